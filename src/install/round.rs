//! One round of distribution: the union of what the nodes of a chain lack goes down it once. The
//! decisions are those of [`super::schedule`]; here they meet agents and sockets, and in [`super::run`]
//! what these report while it is under way.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use super::chain::Upstream;
use super::dial::Dialed;
use super::rounds::{Missing, Plan};
use super::run::{Heard, Run};
use super::schedule::{Cut, Feed, News, Schedule, Why};
use super::ways::Ways;
use crate::agent::fleet::Member;
use crate::agent::protocol::{Answer, Fingerprint, Hop, Request};
use crate::bundle::manifest::Manifest;
use crate::bundle::media::Media;
use crate::bundle::ranges::{indices, ranges};
use crate::error::{Error, Result};
use crate::relay::forward::Forward;
use crate::relay::tls::Identity;
use crate::relay::{Listener, feed};
use crate::ssh::fan_out;

/// What came of a round.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Members that were cut out, and why.
    pub cut: Vec<Cut>,
    /// A sentence for each chunk that changed on its way.
    pub changed: Vec<String>,
    /// Chunks that could not be read from the media, and why.
    pub unreadable: Vec<(u32, Error)>,
}

/// Hears how many bytes of how many the slowest node has got.
pub type Progress<'a> = &'a (dyn Fn(u64, u64) + Sync);

/// Everything that a round needs.
pub struct Round<'a> {
    /// All members; a plan says which of them take part.
    pub members: &'a [Member],
    /// Where the chunks come from.
    pub origin: Origin<'a>,
    /// What the bundle holds.
    pub manifest: &'a Manifest,
    /// The data port of the nodes; 0 takes any.
    pub port: u16,
    /// Which of them can be reached from where.
    pub dialed: Dialed,
    /// Who hears of progress.
    pub progress: Progress<'a>,
}

/// Who is before the first node of the chain.
#[derive(Clone, Copy)]
pub enum Origin<'a> {
    /// Nobody yet.
    Nobody,
    /// This machine, with the media.
    Media(&'a Media),
    /// A member that has everything in place.
    Node(usize),
}

impl Round<'_> {
    /// The member that feeds the chain, if one does.
    #[must_use]
    pub fn giver(&self) -> Option<usize> {
        match self.origin {
            Origin::Node(giver) => Some(giver),
            Origin::Nobody | Origin::Media(_) => None,
        }
    }

    /// Runs it to its end; members that drop out do not end it for the others.
    pub fn run(&self, plan: &Plan, missing: &Missing) -> Result<Outcome> {
        let needed = plan
            .order
            .iter()
            .flat_map(|&member| indices(&missing[member]));
        let chunks: BTreeSet<u32> = needed.collect();
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
        let ways = Ways::new(self.members, &self.dialed.reach, self.giver(), &hops);
        let schedule = Schedule::new(names.collect(), order.clone(), total, plan.limit);
        let identity = Arc::new(Identity::generate()?);
        let source = match self.origin {
            Origin::Node(giver) => {
                let port = self.open_port(giver)?;
                self.members[giver].perform(Request::Lead)?;
                port.fingerprint
            }
            _ => identity.fingerprint(),
        };
        let (sender, heard) = mpsc::channel();
        let of_origin = sender.clone();
        let listener: Listener = Arc::new(move |event| {
            // The round may be over for everyone.
            let _ = of_origin.send(Heard::Origin(event));
        });
        let forward = Forward::start(identity, listener)?;
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            for member in order.iter().copied().chain(self.giver()) {
                let sender = sender.clone();
                let pass_on = move |event| sender.send(Heard::Agent(member, event)).is_ok();
                self.members[member].link.subscribe(pass_on);
            }
            drop(sender);
            let mut run = Run {
                round: self,
                ways: &ways,
                forward: &forward,
                schedule,
                began: Instant::now(),
            };
            let refused = self.join(&order, &hops, &ways, source);
            run.perform(vec![Feed {
                feeder: Upstream::Origin,
                next: order.first().copied(),
            }]);
            for (member, error) in refused {
                run.hear(News::Deaf(member, error));
            }
            let feeding = scope.spawn(|| self.feed(&forward, &chunks, &over));
            let (others, changed) = run.finish(&heard);
            cut.extend(others);
            // Nobody may be left: the rest of the media need not be read then.
            over.store(true, Ordering::Relaxed);
            let leaving: Vec<usize> = order.iter().copied().chain(self.giver()).collect();
            // A member that cannot leave is lost; the next inventory says so.
            fan_out(&leaving, |&member| {
                self.members[member].perform(Request::Leave).is_ok()
            });
            let unreadable = feeding.join().unwrap_or_default();
            Ok(Outcome {
                cut,
                changed,
                unreadable,
            })
        })
    }

    /// Sends the chunks, or has them sent; returns those that could not be read, and why.
    fn feed(
        &self,
        forward: &Forward,
        chunks: &BTreeSet<u32>,
        over: &AtomicBool,
    ) -> Vec<(u32, Error)> {
        let wanted = chunks.iter().copied();
        match self.origin {
            Origin::Nobody => Vec::new(),
            Origin::Media(media) => {
                let wanted = wanted.take_while(|_| !over.load(Ordering::Relaxed));
                feed(forward, wanted, |chunk, stored| {
                    media.read_chunk(chunk, stored)
                })
            }
            Origin::Node(giver) => self.have_fed(giver, ranges(wanted)),
        }
    }

    /// Lets a member feed the chain. When it is lost, so is this round.
    fn have_fed(&self, giver: usize, chunks: Vec<(u32, u32)>) -> Vec<(u32, Error)> {
        let link = &self.members[giver].link;
        let lowest = chunks.first().map_or(0, |range| range.0);
        match link.call(Request::Feed { chunks }) {
            Ok(Answer::Fed { left_out }) => {
                let told = |(chunk, code, text): (u32, u8, String)| {
                    let name = &self.members[giver].host.address;
                    (chunk, Error::from_code(code, text).at(name))
                };
                left_out.into_iter().map(told).collect()
            }
            Ok(_) => vec![(lowest, link.unexpected())],
            Err(error) => vec![(lowest, error)],
        }
    }

    /// Opens the data port of these members; by member, and those that cannot.
    fn listen(&self, order: &[usize]) -> (Vec<Option<Hop>>, Vec<Cut>) {
        let opened = fan_out(order, |&member| self.open_port(member));
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

    /// Opens the data port of a member.
    fn open_port(&self, member: usize) -> Result<Hop> {
        let member = &self.members[member];
        match member.link.call(Request::Listen { port: self.port })? {
            Answer::Listening { port, fingerprint } => Ok(Hop {
                address: (member.address, port).into(),
                fingerprint,
            }),
            _ => Err(member.link.unexpected()),
        }
    }

    /// Tells every member whom it may hear and whom it feeds; returns those that refuse. Anybody
    /// before a member may become its feeder.
    fn join(
        &self,
        order: &[usize],
        hops: &[Option<Hop>],
        ways: &Ways<'_>,
        source: Fingerprint,
    ) -> Vec<(usize, Error)> {
        let positions: Vec<usize> = (0..order.len()).collect();
        let joined = fan_out(&positions, |&position| {
            let before = order[..position]
                .iter()
                .filter_map(|&member| hops[member].as_ref());
            let mut feeders = vec![source];
            feeders.extend(before.map(|hop| hop.fingerprint));
            let member = order[position];
            let next = order.get(position + 1).copied();
            let (next, no_way) = match ways.to(Upstream::Node(member), next) {
                Ok(next) => (next, None),
                Err(no_way) => (None, Some(no_way)),
            };
            let joined = self.members[member].perform(Request::Join { feeders, next });
            [joined.err().map(|error| (member, error)), no_way]
        });
        joined.into_iter().flatten().flatten().collect()
    }

    fn stored(&self, chunk: u32) -> u64 {
        let chunk = self.manifest.chunks.get(chunk as usize);
        chunk.map_or(0, |chunk| u64::from(chunk.stored))
    }
}
