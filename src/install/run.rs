//! A round under way: what agents and sockets report becomes news for the schedule, and its
//! decisions become orders.

use std::net::SocketAddr;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use super::chain::Upstream;
use super::pace::Report;
use super::round::{Origin, Round};
use super::schedule::{Cut, Feed, News, Schedule};
use super::ways::Ways;
use crate::agent::protocol::{Event, Hop, Request};
use crate::error::Error;
use crate::relay::forward::Forward;
use crate::relay::{Neighbour, RelayEvent};

/// How often lost control channels are looked for.
const POLL: Duration = Duration::from_millis(500);

/// How long a node may take to change its neighbour.
const ORDER: Duration = Duration::from_secs(10);

/// What the loop of a round hears.
pub enum Heard {
    /// From a member's agent.
    Agent(usize, Event),
    /// From the origin's own sending side.
    Origin(RelayEvent),
}

/// A round under way.
pub struct Run<'a> {
    /// What it is about.
    pub round: &'a Round<'a>,
    /// How nodes are reached.
    pub ways: &'a Ways<'a>,
    /// The origin's own sending side.
    pub forward: &'a Forward,
    /// What was decided.
    pub schedule: Schedule,
    /// When it began.
    pub began: Instant,
}

impl Run<'_> {
    /// Hears and obeys until everybody that is left is done; returns who is not, and which chunks
    /// changed on their way.
    pub fn finish(mut self, heard: &Receiver<Heard>) -> (Vec<Cut>, Vec<String>) {
        while !self.schedule.is_over() {
            let held = self.forward.held();
            self.hear(News::Fed(Report { received: 0, held }));
            let news = match heard.recv_timeout(POLL) {
                Ok(Heard::Agent(member, event)) => self.news(member, event),
                Ok(Heard::Origin(RelayEvent::NextFailed { next, message })) => {
                    self.refused(Upstream::Origin, next, message)
                }
                Ok(Heard::Origin(_)) => None,
                Err(_) => {
                    self.look_for_lost();
                    None
                }
            };
            if let Some(news) = news {
                self.hear(news);
            }
        }
        self.forward.switch().set(None);
        self.schedule.end()
    }

    /// Takes news, and obeys what comes of them.
    pub fn hear(&mut self, news: News) {
        let feeds = self.schedule.hear(self.began.elapsed(), news);
        self.perform(feeds);
        (self.round.progress)(self.schedule.received_by_all(), self.schedule.total());
    }

    /// What an agent's event means for the schedule.
    fn news(&self, member: usize, event: Event) -> Option<News> {
        match event {
            // It stands for the origin, and takes nothing itself.
            Event::NextFailed { next, message } if self.is_giver(member) => {
                self.refused(Upstream::Origin, next, message)
            }
            _ if self.is_giver(member) => None,
            Event::RoundDone => Some(News::Done(member)),
            Event::Progress { received, held, .. } => {
                let held = Duration::from_millis(held);
                Some(News::Progress(member, Report { received, held }))
            }
            Event::Changed { chunk } => Some(News::Changed(member, chunk)),
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

    fn refused(&self, feeder: Upstream, at: SocketAddr, message: String) -> Option<News> {
        let (next, is_tunnel) = self.ways.node_at(feeder, at)?;
        let message = if is_tunnel {
            message.replace(&at.to_string(), "its way through ssh")
        } else {
            message
        };
        Some(News::Refused {
            feeder,
            next,
            message,
        })
    }

    fn is_giver(&self, member: usize) -> bool {
        self.round.giver() == Some(member)
    }

    fn look_for_lost(&mut self) {
        if let Some(giver) = self.round.giver()
            && !self.round.members[giver].link.is_alive()
        {
            // Nobody feeds the chain any more.
            let waiting: Vec<usize> = self.schedule.chain().live().collect();
            let name = &self.round.members[giver].host.address;
            for member in waiting {
                let error = Error::Failed(format!("{name}: lost while it fed the others"));
                self.hear(News::Deaf(member, error));
            }
            return;
        }
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
    pub fn perform(&mut self, feeds: Vec<Feed>) {
        for Feed { feeder, next } in feeds {
            let next = match self.ways.to(feeder, next) {
                Ok(next) => next,
                Err((next, error)) => {
                    // Its feeder is told who comes after it.
                    self.hear(News::Broken(next, error));
                    continue;
                }
            };
            let node = match (feeder, self.round.origin) {
                (Upstream::Origin, Origin::Node(giver)) => giver,
                (Upstream::Origin, _) => {
                    self.forward.switch().set(next.as_ref().map(neighbour));
                    continue;
                }
                (Upstream::Node(node), _) => node,
            };
            let link = &self.round.members[node].link;
            if let Err(error) = link.call_within(Request::Relink { next }, ORDER) {
                self.hear(News::Deaf(node, error));
            }
        }
    }
}

fn neighbour(hop: &Hop) -> Neighbour {
    Neighbour {
        address: hop.address,
        fingerprint: hop.fingerprint,
    }
}
