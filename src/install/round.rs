//! One round of distribution: the union of what the nodes of a chain lack goes down it once. The
//! decisions are those of [`super::schedule`]; here they meet agents and sockets.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use super::chain::Upstream;
use super::rounds::{Missing, Plan};
use super::schedule::{Cut, Feed, News, Schedule, Why};
use crate::agent::fleet::Member;
use crate::agent::protocol::{Answer, Event, Hop, Request};
use crate::bundle::media::Media;
use crate::bundle::ranges::indices;
use crate::error::{Error, Result};
use crate::relay::forward::Forward;
use crate::relay::tls::Identity;
use crate::relay::{Listener, Neighbour, RelayEvent, feed};
use crate::ssh::fan_out;

/// How often lost control channels are looked for.
const POLL: Duration = Duration::from_millis(500);

/// How long a node may take to change its neighbour.
const ORDER: Duration = Duration::from_secs(10);

/// What came of a round.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Members that were cut out, and why.
    pub cut: Vec<Cut>,
    /// Chunks that could not be read from the media, and why.
    pub unreadable: Vec<(u32, Error)>,
}

/// Hears how many bytes of how many the slowest node has got.
pub type Progress<'a> = &'a (dyn Fn(u64, u64) + Sync);

/// Everything that a round needs.
pub struct Round<'a> {
    /// All members; a plan says which of them take part.
    pub members: &'a [Member],
    /// The bundle.
    pub media: &'a Media,
    /// The data port of the nodes; 0 takes any.
    pub port: u16,
    /// Who hears of progress.
    pub progress: Progress<'a>,
}

/// What the loop of a round hears.
enum Heard {
    /// From a member's agent.
    Agent(usize, Event),
    /// From the origin's own sending side.
    Origin(RelayEvent),
}

impl Round<'_> {
    /// Runs it to its end; members that drop out do not end it for the others.
    pub fn run(&self, plan: &Plan, missing: &Missing) -> Result<Outcome> {
        let needed = plan
            .order
            .iter()
            .flat_map(|&member| indices(&missing[member]));
        let chunks: BTreeSet<u32> = needed
            .filter(|&chunk| self.media.has_chunk(chunk))
            .collect();
        let (hops, mut cut) = self.listen(&plan.order);
        let order: Vec<usize> = plan
            .order
            .iter()
            .copied()
            .filter(|&member| hops[member].is_some())
            .collect();
        let total = chunks.iter().map(|&chunk| self.stored(chunk)).sum();
        let names = self
            .members
            .iter()
            .map(|member| member.host.address.clone());
        let schedule = Schedule::new(names.collect(), order.clone(), total, plan.limit);
        let identity = Arc::new(Identity::generate()?);
        let (sender, heard) = mpsc::channel();
        let of_origin = sender.clone();
        let listener: Listener = Arc::new(move |event| {
            // The round may be over for everyone.
            let _ = of_origin.send(Heard::Origin(event));
        });
        let forward = Forward::start(Arc::clone(&identity), listener)?;
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            for &member in &order {
                let (events, sender) = (self.members[member].link.events(), sender.clone());
                let over = &over;
                scope.spawn(move || pass_on(member, &events, &sender, over));
            }
            drop(sender);
            let mut run = Run {
                round: self,
                hops: &hops,
                forward: &forward,
                schedule,
                began: Instant::now(),
            };
            let refused = self.join(&order, &hops, &identity);
            run.perform(vec![Feed {
                feeder: Upstream::Origin,
                next: order.first().copied(),
            }]);
            for (member, error) in refused {
                run.hear(News::Broken(member, error));
            }
            let wanted = chunks
                .into_iter()
                .take_while(|_| !over.load(Ordering::Relaxed));
            let feeding = scope.spawn(|| self.feed(&forward, wanted));
            cut.extend(run.finish(&heard));
            // Nobody may be left: the rest of the media need not be read then.
            over.store(true, Ordering::Relaxed);
            let unreadable = feeding.join().unwrap_or_default();
            // A member that cannot leave is lost; the next inventory says so.
            fan_out(&order, |&member| {
                self.members[member].perform(Request::Leave).is_ok()
            });
            Ok(Outcome { cut, unreadable })
        })
    }

    /// Sends the chunks; returns those that could not be read, and why.
    fn feed(&self, forward: &Forward, chunks: impl Iterator<Item = u32>) -> Vec<(u32, Error)> {
        feed(forward, chunks, |chunk| {
            let mut stored = Vec::new();
            self.media.read_chunk(chunk, &mut stored).map(|()| stored)
        })
    }

    /// Opens the data port of these members; by member, and those that cannot.
    fn listen(&self, order: &[usize]) -> (Vec<Option<Hop>>, Vec<Cut>) {
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
        let mut cut = Vec::new();
        for (&node, opened) in order.iter().zip(opened) {
            match opened {
                Ok(hop) => hops[node] = Some(hop),
                Err(error) => cut.push(Cut {
                    node,
                    why: Why::Failed,
                    error,
                }),
            }
        }
        (hops, cut)
    }

    /// Tells every member whom it may hear and whom it feeds; returns those that refuse. Anybody
    /// before a member may become its feeder.
    fn join(
        &self,
        order: &[usize],
        hops: &[Option<Hop>],
        identity: &Identity,
    ) -> Vec<(usize, Error)> {
        let positions: Vec<usize> = (0..order.len()).collect();
        let joined = fan_out(&positions, |&position| {
            let before = order[..position]
                .iter()
                .filter_map(|&member| hops[member].as_ref());
            let mut feeders = vec![identity.fingerprint()];
            feeders.extend(before.map(|hop| hop.fingerprint));
            let next = order
                .get(position + 1)
                .and_then(|&member| hops[member].clone());
            self.members[order[position]].perform(Request::Join { feeders, next })
        });
        let answers = order.iter().zip(joined);
        answers
            .filter_map(|(&member, joined)| Some((member, joined.err()?)))
            .collect()
    }

    fn stored(&self, chunk: u32) -> u64 {
        let chunk = self.media.manifest().chunks.get(chunk as usize);
        chunk.map_or(0, |chunk| u64::from(chunk.stored))
    }
}

/// Passes a member's events on until the round is over or the channel is gone.
fn pass_on(member: usize, events: &Receiver<Event>, sender: &Sender<Heard>, over: &AtomicBool) {
    loop {
        match events.recv_timeout(POLL) {
            Ok(event) => {
                if sender.send(Heard::Agent(member, event)).is_err() {
                    return;
                }
            }
            Err(RecvTimeoutError::Timeout) if !over.load(Ordering::Relaxed) => {}
            Err(_) => return,
        }
    }
}

fn neighbour(hop: &Hop) -> Neighbour {
    Neighbour {
        address: hop.address,
        fingerprint: hop.fingerprint,
    }
}

/// A round under way.
struct Run<'a> {
    round: &'a Round<'a>,
    hops: &'a [Option<Hop>],
    forward: &'a Forward,
    schedule: Schedule,
    began: Instant,
}

impl Run<'_> {
    /// Hears and obeys until everybody that is left is done; returns who is not.
    fn finish(mut self, heard: &Receiver<Heard>) -> Vec<Cut> {
        while !self.schedule.is_over() {
            match heard.recv_timeout(POLL) {
                Ok(Heard::Agent(member, event)) => {
                    if let Some(news) = self.news(member, event) {
                        self.hear(news);
                    }
                }
                Ok(Heard::Origin(RelayEvent::NextFailed { next, message })) => {
                    if let Some(news) = self.refused(Upstream::Origin, next, message) {
                        self.hear(news);
                    }
                }
                Ok(Heard::Origin(_)) => {}
                Err(_) => self.look_for_lost(),
            }
        }
        self.forward.switch().set(None);
        self.schedule.end()
    }

    fn hear(&mut self, news: News) {
        let feeds = self.schedule.hear(self.began.elapsed(), news);
        self.perform(feeds);
        (self.round.progress)(self.schedule.received_by_all(), self.schedule.total());
    }

    /// What an agent's event means for the schedule.
    fn news(&self, member: usize, event: Event) -> Option<News> {
        match event {
            Event::RoundDone => Some(News::Done(member)),
            Event::Progress { received, .. } => Some(News::Received(member, received)),
            Event::NextFailed { next, message } => {
                self.refused(Upstream::Node(member), next, message)
            }
            Event::Broken { code, message } => {
                let error = Error::from_code(code, message);
                let name = &self.round.members[member].host.address;
                Some(News::Broken(member, error.at(name)))
            }
            // Whoever fed it says why, or is lost itself.
            Event::FeederLost { .. } | Event::Line { .. } => None,
        }
    }

    fn refused(&self, feeder: Upstream, next: SocketAddr, message: String) -> Option<News> {
        let is_it = |hop: &Option<Hop>| hop.as_ref().is_some_and(|hop| hop.address == next);
        let next = self.hops.iter().position(is_it)?;
        Some(News::Refused {
            feeder,
            next,
            message,
        })
    }

    fn look_for_lost(&mut self) {
        let live = self.schedule.chain().live();
        let lost: Vec<usize> = live
            .filter(|&member| !self.round.members[member].link.is_alive())
            .collect();
        self.hear(News::Nothing);
        for member in lost {
            self.hear(News::Lost(member));
        }
    }

    /// Tells feeders whom they feed. One that cannot be told is broken itself.
    fn perform(&mut self, feeds: Vec<Feed>) {
        for Feed { feeder, next } in feeds {
            let next = next.and_then(|next| self.hops[next].clone());
            let node = match feeder {
                Upstream::Origin => {
                    self.forward.switch().set(next.as_ref().map(neighbour));
                    continue;
                }
                Upstream::Node(node) => node,
            };
            let link = &self.round.members[node].link;
            if let Err(error) = link.call_within(Request::Relink { next }, ORDER) {
                self.hear(News::Broken(node, error));
            }
        }
    }
}
