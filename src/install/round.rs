//! One round of distribution: the union of what live nodes lack goes down the chain once.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use super::chain::{Chain, Upstream};
use crate::agent::fleet::{Member, all};
use crate::agent::protocol::{Answer, Event, Hop, Request};
use crate::bundle::media::Media;
use crate::error::{Error, Result};
use crate::relay::forward::{Forward, Switch};
use crate::relay::tls::Identity;
use crate::relay::{Listener, Neighbour, RelayEvent, feed};
use crate::ssh::fan_out;

/// How often lost control channels are looked for.
const POLL: Duration = Duration::from_millis(500);

/// Chunks that are missing on each member, as half-open ranges.
pub type Missing = Vec<Vec<(u32, u32)>>;

/// What came of a round.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Members that were cut out, and why.
    pub cut: Vec<(usize, Error)>,
    /// Chunks that could not be read from the media, and why.
    pub unreadable: Vec<(u32, Error)>,
}

/// Hears how many bytes of how many the slowest node has got.
pub type Progress<'a> = &'a (dyn Fn(u64, u64) + Sync);

/// Everything that a round needs.
pub struct Round<'a> {
    /// All members; only those that lack something take part.
    pub members: &'a [Member],
    /// The bundle.
    pub media: &'a Media,
    /// The data port of the nodes; 0 takes any.
    pub port: u16,
    /// Who hears of progress.
    pub progress: Progress<'a>,
}

/// What the loop of a round hears.
enum News {
    /// From a member's agent.
    Agent(usize, Event),
    /// From the origin's own sending side.
    Origin(RelayEvent),
}

impl Round<'_> {
    /// Runs it to its end; members that drop out do not end it for the others.
    pub fn run(&self, missing: &Missing) -> Result<Outcome> {
        let order: Vec<usize> = (0..self.members.len())
            .filter(|&member| !missing[member].is_empty())
            .collect();
        let chunks: BTreeSet<u32> = union(missing)
            .filter(|&chunk| self.media.has_chunk(chunk))
            .collect();
        if order.is_empty() || chunks.is_empty() {
            return Ok(Outcome::default());
        }
        let identity = Arc::new(Identity::generate()?);
        let (sender, news) = mpsc::channel();
        let hops = self.listen(&order)?;
        let of_origin = sender.clone();
        let listener: Listener = Arc::new(move |event| {
            // The round may be over for everyone.
            let _ = of_origin.send(News::Origin(event));
        });
        let forward = Forward::start(Arc::clone(&identity), listener)?;
        let total = chunks.iter().map(|&chunk| self.stored(chunk)).sum();
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            for &member in &order {
                let (events, sender) = (self.members[member].link.events(), sender.clone());
                let over = &over;
                scope.spawn(move || pass_on(member, &events, &sender, over));
            }
            drop(sender);
            let joined = self.join(&order, &hops, &identity);
            let outcome = joined.map(|()| {
                forward.switch().set(hops[order[0]].as_ref().map(neighbour));
                let switch = forward.switch();
                let feeding = scope.spawn(|| self.feed(&forward, chunks));
                let state = State {
                    round: self,
                    chain: Chain::new(order.clone()),
                    hops: &hops,
                    switch,
                    done: BTreeSet::new(),
                    received: vec![0; self.members.len()],
                    total,
                    cut: Vec::new(),
                };
                let cut = state.run(&news);
                Outcome {
                    cut,
                    unreadable: feeding.join().unwrap_or_default(),
                }
            });
            // A member that cannot leave is lost; the next inventory says so.
            fan_out(&order, |&member| {
                self.members[member].perform(Request::Leave).is_ok()
            });
            over.store(true, Ordering::Relaxed);
            outcome
        })
    }

    /// Sends the chunks; returns those that could not be read, and why.
    fn feed(&self, forward: &Forward, chunks: BTreeSet<u32>) -> Vec<(u32, Error)> {
        feed(forward, chunks.into_iter(), |chunk| {
            let mut stored = Vec::new();
            self.media.read_chunk(chunk, &mut stored).map(|()| stored)
        })
    }

    /// Opens the data port of every member; by member.
    fn listen(&self, order: &[usize]) -> Result<Vec<Option<Hop>>> {
        let opened = fan_out(order, |&member| {
            let member = &self.members[member];
            match member.link.call(Request::Listen { port: self.port })? {
                Answer::Listening { port, fingerprint } => Ok(Hop {
                    address: (member.address, port).into(),
                    fingerprint,
                }),
                _ => Err(member.link.unexpected()),
            }
        });
        let mut hops = vec![None; self.members.len()];
        for (&member, hop) in order.iter().zip(all(opened)?) {
            hops[member] = Some(hop);
        }
        Ok(hops)
    }

    /// Tells every member whom it may hear and whom it feeds. Anybody before a member may become
    /// its feeder.
    fn join(&self, order: &[usize], hops: &[Option<Hop>], identity: &Identity) -> Result<()> {
        let positions: Vec<usize> = (0..order.len()).collect();
        all(fan_out(&positions, |&position| {
            let before = order[..position]
                .iter()
                .filter_map(|&member| hops[member].as_ref());
            let mut feeders = vec![identity.fingerprint()];
            feeders.extend(before.map(|hop| hop.fingerprint));
            let next = order
                .get(position + 1)
                .and_then(|&member| hops[member].clone());
            self.members[order[position]].perform(Request::Join { feeders, next })
        }))
        .map(drop)
    }

    fn stored(&self, chunk: u32) -> u64 {
        let chunk = self.media.manifest().chunks.get(chunk as usize);
        chunk.map_or(0, |chunk| u64::from(chunk.stored))
    }
}

/// Passes a member's events on until the round is over or the channel is gone.
fn pass_on(member: usize, events: &Receiver<Event>, sender: &Sender<News>, over: &AtomicBool) {
    loop {
        match events.recv_timeout(POLL) {
            Ok(event) => {
                if sender.send(News::Agent(member, event)).is_err() {
                    return;
                }
            }
            Err(RecvTimeoutError::Timeout) if !over.load(Ordering::Relaxed) => {}
            Err(_) => return,
        }
    }
}

/// Every chunk that somebody lacks.
fn union(missing: &Missing) -> impl Iterator<Item = u32> {
    missing.iter().flatten().flat_map(|&(from, to)| from..to)
}

fn neighbour(hop: &Hop) -> Neighbour {
    Neighbour {
        address: hop.address,
        fingerprint: hop.fingerprint,
    }
}

/// The loop of a round.
struct State<'a> {
    round: &'a Round<'a>,
    chain: Chain,
    hops: &'a [Option<Hop>],
    switch: Switch,
    done: BTreeSet<usize>,
    received: Vec<u64>,
    total: u64,
    cut: Vec<(usize, Error)>,
}

impl State<'_> {
    fn run(mut self, news: &Receiver<News>) -> Vec<(usize, Error)> {
        while self.chain.live().any(|member| !self.done.contains(&member)) {
            match news.recv_timeout(POLL) {
                Ok(News::Agent(member, event)) => self.hear(member, event),
                Ok(News::Origin(RelayEvent::NextFailed { next, message })) => {
                    self.cut_at(next, &message);
                }
                Ok(News::Origin(_)) => {}
                Err(_) => self.look_for_lost(),
            }
        }
        self.switch.set(None);
        self.cut
    }

    fn hear(&mut self, member: usize, event: Event) {
        match event {
            Event::RoundDone => {
                self.done.insert(member);
            }
            Event::Progress { received, .. } => {
                self.received[member] = received;
                let slowest = self.chain.live().map(|member| self.received[member]).min();
                (self.round.progress)(slowest.unwrap_or(0).min(self.total), self.total);
            }
            Event::NextFailed { next, message } => {
                // One that was cut out loses its neighbour to its successor; that is no failure.
                let after = self
                    .chain
                    .after(member)
                    .and_then(|after| self.hops[after].as_ref());
                if after.is_some_and(|after| after.address == next) {
                    self.cut_at(next, &message);
                }
            }
            Event::Broken { code, message } => {
                let error = Error::from_code(code, message).at(self.name(member));
                self.cut_out(member, error);
            }
            // Whoever fed it says why, or is lost itself.
            Event::FeederLost { .. } | Event::Line { .. } => {}
        }
    }

    /// The node at this data address is cut out.
    fn cut_at(&mut self, next: std::net::SocketAddr, message: &str) {
        let is_it = |hop: &Option<Hop>| hop.as_ref().is_some_and(|hop| hop.address == next);
        if let Some(member) = self.hops.iter().position(is_it) {
            let error = Error::Failed(format!("{}: {message}", self.name(member)));
            self.cut_out(member, error);
        }
    }

    fn look_for_lost(&mut self) {
        let lost: Vec<usize> = self
            .chain
            .live()
            .filter(|&member| !self.round.members[member].link.is_alive())
            .collect();
        for member in lost {
            let error = Error::Failed(format!(
                "{}: the connection to its agent is lost",
                self.name(member)
            ));
            self.cut_out(member, error);
        }
    }

    /// Joins the neighbours of a member over it.
    fn cut_out(&mut self, member: usize, error: Error) {
        // A member that is done misses nothing, and has passed on everything.
        if self.done.contains(&member) {
            return;
        }
        let Some((upstream, next)) = self.chain.cut(member) else {
            return;
        };
        self.cut.push((member, error));
        let next = next.and_then(|next| self.hops[next].clone());
        match upstream {
            Upstream::Origin => self.switch.set(next.as_ref().map(neighbour)),
            Upstream::Node(node) => {
                if let Err(error) = self.round.members[node].perform(Request::Relink { next }) {
                    self.cut_out(node, error);
                }
            }
        }
    }

    fn name(&self, member: usize) -> &str {
        &self.round.members[member].host.address
    }
}
