//! A thousand nodes without a socket: the very decisions of [`super::schedule`] and
//! [`super::rounds`], fed by a model of links, queues and failures. `cargo test --lib simulation --
//! --nocapture` prints its table.
//!
//! The model is harsher than the real thing: what lies in the queues behind a node that is cut out
//! is lost to all nodes behind it.

#![expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a model need not be exact"
)]

use std::time::Duration;

use super::chain::Upstream;
use super::pace::Report;
use super::rounds::{Missing, Next, Plan, Rounds};
use super::schedule::{Cut, Feed, News, Schedule, Why};
use crate::bundle::ranges::ranges;
use crate::error::Error;

const CHUNK: f64 = 16.0 * 1_048_576.0;
const CHUNKS: usize = 2000;
const QUEUE: f64 = CHUNK;
/// 10 Gbit/s.
const FAST: f64 = 1.25e9;
/// Seconds of a step.
const STEP: f64 = 0.01;
/// Seconds after which a silent neighbour is given up.
const STALL: f64 = 10.0;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Trouble {
    None,
    /// The agent dies at this second.
    Crash(f64),
    /// The link is silent between these seconds.
    Silent(f64, f64),
    /// The disk is full from this second on.
    Full(f64),
    /// It takes so many bytes a second.
    Slow(f64),
}

struct World {
    now: f64,
    troubles: Vec<Trouble>,
    have: Vec<Vec<bool>>,
    /// Nodes whose stores take no more.
    broken: Vec<usize>,
}

/// What came of it.
struct End {
    /// Seconds until nobody quick lacked anything, and in all.
    quick: f64,
    all: f64,
    rounds: usize,
    /// Nodes that have not got everything.
    lacking: Vec<usize>,
}

/// One round of the model.
struct Stream<'a> {
    world: &'a mut World,
    schedule: Schedule,
    chunks: Vec<usize>,
    began: f64,
    position: Vec<f64>,
    marked: Vec<usize>,
    /// Seconds that each node's next made it wait; the origin's last.
    held: Vec<f64>,
    told: Vec<bool>,
}

impl World {
    fn new(troubles: Vec<Trouble>) -> Self {
        let have = vec![vec![false; CHUNKS]; troubles.len()];
        Self {
            now: 0.0,
            troubles,
            have,
            broken: Vec::new(),
        }
    }

    fn works(&self, node: usize) -> bool {
        match self.troubles[node] {
            Trouble::Crash(at) => self.now < at,
            Trouble::Silent(from, to) => !(from..to).contains(&self.now),
            _ => true,
        }
    }

    /// A dead or broken node takes part no more.
    fn missing(&self) -> Missing {
        let of = |(node, have): (usize, &Vec<bool>)| match self.troubles[node] {
            Trouble::Crash(_) if !self.works(node) => Vec::new(),
            _ if self.broken.contains(&node) => Vec::new(),
            _ => ranges(
                (0..)
                    .zip(have)
                    .filter(|(_, has)| !**has)
                    .map(|(chunk, _)| chunk),
            ),
        };
        self.have.iter().enumerate().map(of).collect()
    }

    fn run(mut self) -> End {
        let mut rounds = Rounds::default();
        let (mut count, mut quick) = (0, 0.0);
        loop {
            let missing = self.missing();
            let next = rounds.next(Duration::from_secs_f64(self.now), &missing);
            let Next::Round(plan) = next else { break };
            let of_the_slow = plan.limit.is_some();
            let cut = Stream::begin(&mut self, plan).run();
            rounds.note(&cut);
            let broken = cut.iter().filter(|cut| cut.why == Why::Broken);
            self.broken.extend(broken.map(|cut| cut.node));
            // Looking at what the nodes have, and connecting again.
            self.now += 0.5;
            if !of_the_slow {
                count += 1;
                quick = self.now;
            }
        }
        let lacking = |node: &usize| self.have[*node].contains(&false);
        End {
            quick,
            all: self.now,
            rounds: count,
            lacking: (0..self.have.len()).filter(lacking).collect(),
        }
    }
}

impl<'a> Stream<'a> {
    fn begin(world: &'a mut World, plan: Plan) -> Self {
        let nodes = world.troubles.len();
        let needed = |chunk: &usize| plan.order.iter().any(|&node| !world.have[node][*chunk]);
        let chunks: Vec<usize> = (0..CHUNKS).filter(needed).collect();
        let names = (0..nodes).map(|node| format!("n{node}")).collect();
        let total = (chunks.len() as f64 * CHUNK) as u64;
        Self {
            schedule: Schedule::new(names, plan.order, total, plan.limit),
            began: world.now,
            world,
            chunks,
            position: vec![0.0; nodes],
            marked: vec![0; nodes],
            held: vec![0.0; nodes + 1],
            told: vec![false; nodes],
        }
    }

    fn run(mut self) -> Vec<Cut> {
        let mut reported = self.world.now;
        while !self.schedule.is_over() {
            self.world.now += STEP;
            self.flow();
            for node in self.live() {
                self.news_of(node);
            }
            if self.world.now - reported >= 0.5 {
                reported = self.world.now;
                self.report();
            }
            assert!(self.world.now < 10_000.0, "the round has no end");
        }
        self.schedule.end().0
    }

    fn live(&self) -> Vec<usize> {
        self.schedule.chain().live().collect()
    }

    fn total(&self) -> f64 {
        self.chunks.len() as f64 * CHUNK
    }

    /// One step of every link, from the origin on.
    fn flow(&mut self) {
        let live = self.live();
        let origin = self.held.len() - 1;
        let (mut feeder, mut available) = (origin, self.total());
        for (place, &node) in live.iter().enumerate() {
            let here = self.position[node];
            let space = live
                .get(place + 1)
                .map_or(f64::MAX, |&next| QUEUE - (here - self.position[next]));
            let rate = match self.world.troubles[node] {
                Trouble::Slow(rate) => rate,
                _ => FAST,
            };
            let ready = if self.world.works(node) {
                rate * STEP
            } else {
                0.0
            };
            let step = ready.min(available - here).min(space).max(0.0);
            let waits = if feeder == origin {
                here < available
            } else {
                available - here >= QUEUE * 0.99
            };
            if waits {
                self.held[feeder] += STEP;
            }
            self.position[node] += step;
            self.mark(node);
            (feeder, available) = (node, self.position[node]);
        }
    }

    /// Whole chunks are kept.
    fn mark(&mut self, node: usize) {
        while self.position[node] + 1.0 >= (self.marked[node] + 1) as f64 * CHUNK {
            let chunk = self.chunks[self.marked[node]];
            let full =
                matches!(self.world.troubles[node], Trouble::Full(at) if self.world.now >= at);
            self.world.have[node][chunk] |= !full;
            self.marked[node] += 1;
        }
    }

    fn news_of(&mut self, node: usize) {
        let now = self.world.now;
        let since = match self.world.troubles[node] {
            Trouble::Crash(at) => at + 0.1,
            Trouble::Silent(from, to) if now < to => from.max(self.began) + STALL,
            _ => f64::MAX,
        };
        if now >= since
            && let Some(feeder) = self.schedule.chain().feeder(node)
        {
            let message = "it takes no more data".into();
            self.hear(
                node,
                News::Refused {
                    feeder,
                    next: node,
                    message,
                },
            );
        } else if matches!(self.world.troubles[node], Trouble::Full(at) if now >= at) {
            self.hear(node, News::Broken(node, Error::NoSpace("full".into())));
        } else if !self.told[node]
            && self.world.works(node)
            && self.marked[node] == self.chunks.len()
        {
            self.told[node] = true;
            self.hear(node, News::Done(node));
        }
    }

    fn report(&mut self) {
        let origin = self.held.len() - 1;
        self.hear(0, News::Fed(self.totals(origin, 0.0)));
        for node in self.live() {
            if self.world.works(node) {
                let report = self.totals(node, self.position[node]);
                self.hear(node, News::Progress(node, report));
            }
        }
    }

    fn totals(&self, index: usize, received: f64) -> Report {
        let received = received as u64;
        let held = Duration::from_secs_f64(self.held[index]);
        Report { received, held }
    }

    fn hear(&mut self, about: usize, news: News) {
        let time = Duration::from_secs_f64(self.world.now - self.began);
        for Feed { feeder, next } in self.schedule.hear(time, news) {
            let sent = match feeder {
                Upstream::Origin => (self.position[about] + QUEUE).min(self.total()),
                Upstream::Node(node) => self.position[node],
            };
            let skip = (sent / CHUNK).ceil() * CHUNK;
            let behind: Vec<usize> = self
                .live()
                .into_iter()
                .skip_while(|&node| Some(node) != next)
                .collect();
            for node in behind {
                if self.position[node] < skip && !self.told[node] {
                    self.position[node] = skip;
                    let chunks = (skip / CHUNK) as usize;
                    self.marked[node] = chunks;
                }
            }
        }
    }
}

/// Nodes spread over the chain.
fn thousand(troubles: &[Trouble]) -> Vec<Trouble> {
    let mut nodes = vec![Trouble::None; 1000];
    for (index, &trouble) in troubles.iter().enumerate() {
        nodes[(index * 389 + 7) % 1000] = trouble;
    }
    nodes
}

#[test]
fn a_thousand_nodes_get_everything_in_little_more_than_the_time_of_one_copy() {
    let copy = CHUNKS as f64 * CHUNK / FAST;
    println!(
        "1,000 nodes, {:.0} GB, 10 Gbit/s; one copy takes {copy:.1} s",
        CHUNKS as f64 * CHUNK / 1e9
    );
    let crashes: Vec<Trouble> = (0..20)
        .map(|number| Trouble::Crash(1.0 + f64::from(number)))
        .collect();
    let silent: Vec<Trouble> = (0..3)
        .map(|number| Trouble::Silent(2.0 + f64::from(number), 22.0 + f64::from(number)))
        .collect();
    let mixed: Vec<Trouble> = crashes
        .iter()
        .chain(&silent)
        .copied()
        .chain([
            Trouble::Slow(1.25e6),
            Trouble::Slow(50e6),
            Trouble::Full(5.0),
        ])
        .collect();
    // Seconds that they may cost besides the copy, and which troubles end without everything.
    let cases: [(&str, &[Trouble], f64, usize); 6] = [
        ("nothing fails", &[], 1.0, 0),
        ("20 agents die", &crashes, 3.0, 20),
        ("3 links are silent for 20 s", &silent, 40.0, 0),
        ("one node at 10 Mbit/s", &[Trouble::Slow(1.25e6)], 8.0, 1),
        ("a full disk", &[Trouble::Full(5.0)], 3.0, 1),
        ("all of this, one node at 400 Mbit/s", &mixed, 80.0, 23),
    ];
    for (case, troubles, cost, lacking) in cases {
        let end = World::new(thousand(troubles)).run();
        println!(
            "{case:<36} {:>6.1} s  {:>5.2} x one copy, {} rounds; {:>6.1} s in all, {} nodes lack something",
            end.quick,
            end.quick / copy,
            end.rounds,
            end.all,
            end.lacking.len()
        );
        assert!(end.quick <= copy + cost, "{case}");
        assert!(end.lacking.len() <= lacking, "{case}: {:?}", end.lacking);
    }
}
