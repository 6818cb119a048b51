//! The decisions of a round: who is cut out, and who feeds whom from then on. Pure: news in,
//! orders out, no sockets and no clock, so that tables and a simulation test exactly what runs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::chain::{Chain, Upstream};
use super::pace::{Pace, Report};
use crate::error::Error;

/// What is heard during a round. Nodes are meant by their index in hosts.txt.
#[derive(Debug)]
pub enum News {
    /// The node got the end of the round, and everything before it is stored.
    Done(usize),
    /// How far the node is.
    Progress(usize, Report),
    /// How far the origin is.
    Fed(Report),
    /// A chunk that came to the node is not what it was at the origin.
    Changed(usize, u32),
    /// A feeder says that its next node takes no more.
    Refused {
        /// Who says so.
        feeder: Upstream,
        /// About whom.
        next: usize,
        /// Why, as a sentence.
        message: String,
    },
    /// The node's store takes no more, say of a full disk; the error names it.
    Broken(usize, Error),
    /// The node does not do what it is told; the error names it.
    Deaf(usize, Error),
    /// The node's control channel is gone.
    Lost(usize),
    /// Time passed.
    Nothing,
}

/// An order: this feeder passes the stream on to that node from the next chunk on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feed {
    /// Who feeds.
    pub feeder: Upstream,
    /// Whom; nobody at the end of the chain.
    pub next: Option<usize>,
}

/// A node that did not stay in the chain to the end.
#[derive(Debug)]
pub struct Cut {
    /// Which one.
    pub node: usize,
    /// What kind of trouble it was.
    pub why: Why,
    /// The trouble as a sentence that names the node.
    pub error: Error,
}

/// Kinds of trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It failed, or could not be reached any more.
    Failed,
    /// Its store takes no more: no later round would bring it anything.
    Broken,
    /// It held up the others.
    Slow,
    /// The round had a limit, and the node was not done by then.
    Late,
}

/// A round under way.
#[derive(Debug)]
pub struct Schedule {
    names: Vec<String>,
    chain: Chain,
    total: u64,
    limit: Option<Duration>,
    pace: Pace,
    received: Vec<u64>,
    /// By chunk: who got it changed, and from whom, nearest to the origin.
    changed: BTreeMap<u32, (usize, Upstream)>,
    done: BTreeSet<usize>,
    cut: Vec<Cut>,
}

impl Schedule {
    /// Begins a round of `total` bytes over these nodes, first to last. `names` are those of all
    /// nodes, by index. Whoever is not done at the `limit` is cut out.
    #[must_use]
    pub fn new(names: Vec<String>, order: Vec<usize>, total: u64, limit: Option<Duration>) -> Self {
        Self {
            received: vec![0; names.len()],
            pace: Pace::new(names.len(), total),
            changed: BTreeMap::new(),
            names,
            chain: Chain::new(order),
            total,
            limit,
            done: BTreeSet::new(),
            cut: Vec::new(),
        }
    }

    /// Whether everybody that is left is done.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.chain.live().all(|node| self.done.contains(&node))
    }

    /// The chain as it is now.
    #[must_use]
    pub fn chain(&self) -> &Chain {
        &self.chain
    }

    /// Bytes that are sent.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Bytes that even the slowest node has got.
    #[must_use]
    pub fn received_by_all(&self) -> u64 {
        let slowest = self.chain.live().map(|node| self.received[node]).min();
        slowest.unwrap_or(0).min(self.total)
    }

    /// Who was cut out, and a sentence for each chunk that changed on its way.
    #[must_use]
    pub fn end(self) -> (Vec<Cut>, Vec<String>) {
        let sentence = |(chunk, (node, feeder)): (&u32, &(usize, Upstream))| {
            let feeder = match feeder {
                Upstream::Origin => "the origin",
                Upstream::Node(feeder) => &self.names[*feeder],
            };
            format!(
                "chunk {chunk} changed between {feeder} and {}; nobody kept it. If it happens again, look at their memory",
                self.names[*node]
            )
        };
        let changed = self.changed.iter().map(sentence).collect();
        (self.cut, changed)
    }

    /// Takes news in at a time since the round began; returns what must change.
    pub fn hear(&mut self, now: Duration, news: News) -> Vec<Feed> {
        match news {
            News::Done(node) => {
                self.done.insert(node);
                Vec::new()
            }
            News::Progress(node, report) => {
                self.received[node] = report.received;
                self.pace.note(now, Upstream::Node(node), report);
                self.look_at_clock(now)
            }
            News::Fed(report) => {
                self.pace.note(now, Upstream::Origin, report);
                self.look_at_clock(now)
            }
            News::Changed(node, chunk) => {
                self.note_change(node, chunk);
                Vec::new()
            }
            News::Refused {
                feeder,
                next,
                message,
            } => self.refused(feeder, next, &message),
            News::Broken(node, error) => self.cut_out(node, Why::Broken, error),
            News::Deaf(node, error) => self.cut_out(node, Why::Failed, error),
            News::Lost(node) => self.cut_out(
                node,
                Why::Failed,
                Error::Failed(format!(
                    "{}: the connection to its agent is lost",
                    self.names[node]
                )),
            ),
            News::Nothing => self.look_at_clock(now),
        }
    }

    /// A node that was cut out loses its neighbour to its successor, which is no failure; one that
    /// is done closes its connection when it likes.
    fn refused(&mut self, feeder: Upstream, next: usize, message: &str) -> Vec<Feed> {
        if self.chain.feeder(next) != Some(feeder) || self.done.contains(&next) {
            return Vec::new();
        }
        let error = Error::Failed(format!("{}: {message}", self.names[next]));
        self.cut_out(next, Why::Failed, error)
    }

    fn look_at_clock(&mut self, now: Duration) -> Vec<Feed> {
        match self.limit {
            Some(limit) if now >= limit => self.end_late(limit),
            // A round with a limit is one of slow nodes.
            Some(_) => Vec::new(),
            None => self.cut_slow(now),
        }
    }

    fn cut_slow(&mut self, now: Duration) -> Vec<Feed> {
        let Some((node, rate)) = self
            .pace
            .judge(now, &self.chain, |node| self.done.contains(&node))
        else {
            return Vec::new();
        };
        let error = Error::Failed(format!(
            "{}: it held up the others, at {:.1} MB/s; look at its network and its disk",
            self.names[node],
            rate / 1e6
        ));
        self.cut_out(node, Why::Slow, error)
    }

    /// Everybody passes bytes on before checking them: what changed in one place comes changed to
    /// all nodes behind it.
    fn note_change(&mut self, node: usize, chunk: u32) {
        let Some(feeder) = self.chain.feeder(node) else {
            return;
        };
        let known = self.changed.get(&chunk).map(|(known, _)| *known);
        let mut live = self.chain.live();
        if known.is_none() || live.find(|&live| live == node || Some(live) == known) == Some(node) {
            self.changed.insert(chunk, (node, feeder));
        }
    }

    fn end_late(&mut self, limit: Duration) -> Vec<Feed> {
        let late: Vec<usize> = self
            .chain
            .live()
            .filter(|node| !self.done.contains(node))
            .collect();
        let mut feeds = Vec::new();
        for node in late {
            let error = Error::Failed(format!(
                "{}: it is too slow: after {} s it had {} of {} MB; look at its network and its disk",
                self.names[node],
                limit.as_secs(),
                self.received[node] / 1_000_000,
                self.total / 1_000_000
            ));
            feeds.extend(self.cut_out(node, Why::Late, error));
        }
        feeds
    }

    /// Joins the neighbours of a node over it. A node that is done has what it needs, but whom it
    /// feeds may still wait for the rest of its queue.
    fn cut_out(&mut self, node: usize, why: Why, error: Error) -> Vec<Feed> {
        let Some((feeder, next)) = self.chain.cut(node) else {
            return Vec::new();
        };
        self.cut.push(Cut { node, why, error });
        vec![Feed { feeder, next }]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORIGIN: Upstream = Upstream::Origin;

    fn schedule(nodes: usize) -> Schedule {
        let names = (0..nodes).map(|node| format!("n{node}")).collect();
        Schedule::new(names, (0..nodes).collect(), 1000, None)
    }

    fn received(node: usize, received: u64) -> News {
        let held = Duration::ZERO;
        News::Progress(node, Report { received, held })
    }

    fn refused(feeder: Upstream, next: usize) -> News {
        News::Refused {
            feeder,
            next,
            message: "it is dead".into(),
        }
    }

    fn feed(feeder: Upstream, next: Option<usize>) -> Vec<Feed> {
        vec![Feed { feeder, next }]
    }

    /// What happens, the orders that the last news led to, and who is out.
    type Case = (&'static str, Vec<News>, Vec<Feed>, &'static [usize]);

    /// What each piece of news leads to, in one round of four nodes.
    #[test]
    fn neighbours_are_joined_over_a_node_that_fails() {
        let full = || Error::NoSpace("/data is full".into());
        let cases: [Case; 11] = [
            ("nothing", vec![News::Nothing], vec![], &[]),
            (
                "the first is dead",
                vec![refused(ORIGIN, 0)],
                feed(ORIGIN, Some(1)),
                &[0],
            ),
            (
                "one in the middle is dead",
                vec![refused(Upstream::Node(1), 2)],
                feed(Upstream::Node(1), Some(3)),
                &[2],
            ),
            (
                "the last is dead",
                vec![refused(Upstream::Node(2), 3)],
                feed(Upstream::Node(2), None),
                &[3],
            ),
            (
                "a node that does not feed it says so",
                vec![refused(Upstream::Node(0), 2)],
                vec![],
                &[],
            ),
            (
                "one that was cut out says so",
                vec![News::Lost(1), refused(Upstream::Node(1), 2)],
                vec![],
                &[1],
            ),
            (
                "a done node closed its connection",
                vec![News::Done(1), refused(Upstream::Node(0), 1)],
                vec![],
                &[],
            ),
            (
                "a done node dies before it passed everything on",
                vec![News::Done(1), News::Lost(1)],
                feed(Upstream::Node(0), Some(2)),
                &[1],
            ),
            (
                "a full disk",
                vec![News::Broken(1, full())],
                feed(Upstream::Node(0), Some(2)),
                &[1],
            ),
            (
                "two neighbours",
                vec![News::Lost(1), refused(Upstream::Node(0), 2)],
                feed(Upstream::Node(0), Some(3)),
                &[1, 2],
            ),
            (
                "heard twice",
                vec![News::Lost(1), News::Lost(1)],
                vec![],
                &[1],
            ),
        ];
        for (case, news, expected, out) in cases {
            let mut schedule = schedule(4);
            let mut feeds = Vec::new();
            for news in news {
                feeds = schedule.hear(Duration::ZERO, news);
            }
            assert_eq!(feeds, expected, "{case}");
            let cut: Vec<usize> = schedule.end().0.iter().map(|cut| cut.node).collect();
            assert_eq!(cut, out, "{case}");
        }
    }

    #[test]
    fn a_round_is_over_when_all_that_are_left_are_done() {
        let mut schedule = schedule(3);
        for news in [News::Done(0), News::Lost(1)] {
            schedule.hear(Duration::ZERO, news);
            assert!(!schedule.is_over());
        }
        schedule.hear(Duration::ZERO, News::Done(2));
        assert!(schedule.is_over());
    }

    #[test]
    fn progress_is_that_of_the_slowest_in_the_chain() {
        let mut schedule = schedule(3);
        for news in [received(0, 900), received(1, 100), received(2, 500)] {
            schedule.hear(Duration::ZERO, news);
        }
        assert_eq!(schedule.received_by_all(), 100);
        schedule.hear(Duration::ZERO, News::Lost(1));
        assert_eq!(schedule.received_by_all(), 500);
    }

    #[test]
    fn at_the_limit_whoever_is_not_done_is_named() {
        let names = vec!["n0".into(), "n1".into()];
        let limit = Duration::from_mins(1);
        let mut schedule = Schedule::new(names, vec![0, 1], 500_000_000, Some(limit));
        schedule.hear(Duration::ZERO, News::Done(0));
        schedule.hear(Duration::ZERO, received(1, 75_000_000));
        assert_eq!(schedule.hear(limit / 2, News::Nothing), []);
        assert_eq!(
            schedule.hear(limit, News::Nothing),
            feed(Upstream::Node(0), None)
        );
        assert!(schedule.is_over());
        let (cut, _) = schedule.end();
        assert_eq!((cut[0].node, cut[0].why), (1, Why::Late));
        assert_eq!(
            cut[0].error.to_string(),
            "n1: it is too slow: after 60 s it had 75 of 500 MB; look at its network and its disk"
        );
    }

    #[test]
    fn a_change_is_between_the_first_that_got_it_and_its_feeder() {
        let mut schedule = schedule(4);
        for news in [
            News::Changed(2, 7),
            News::Changed(3, 7),
            News::Changed(1, 7),
            News::Changed(0, 9),
        ] {
            assert_eq!(schedule.hear(Duration::ZERO, news), []);
        }
        let (_, changed) = schedule.end();
        assert!(
            changed[0].starts_with("chunk 7 changed between n0 and n1;"),
            "{changed:?}"
        );
        assert!(
            changed[1].starts_with("chunk 9 changed between the origin and n0;"),
            "{changed:?}"
        );
    }

    #[test]
    fn a_node_that_holds_up_the_others_is_cut_out() {
        let mut schedule = schedule(3);
        let mut feeds = Vec::new();
        for step in 1..20_u32 {
            if !feeds.is_empty() {
                break;
            }
            let now = Duration::from_millis(500) * step;
            for (node, held) in [(0, now), (1, Duration::ZERO), (2, Duration::ZERO)] {
                let received = u64::from(step) * 500_000;
                feeds.extend(schedule.hear(now, News::Progress(node, Report { received, held })));
            }
        }
        assert_eq!(feeds, feed(Upstream::Node(0), Some(2)));
        let (cut, _) = schedule.end();
        assert_eq!((cut[0].node, cut[0].why), (1, Why::Slow));
        assert!(
            cut[0]
                .error
                .to_string()
                .starts_with("n1: it held up the others, at 1.0 MB/s")
        );
    }
}
