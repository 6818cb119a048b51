//! Asks every node for its facts and puts them into the preflight table: the first step of
//! `check` and of `install`. Changes nothing, and a node that does not answer is a row.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::dial::dial;
use super::distribute::unloaded;
use super::preflight::{self, Found, Row, Wish};
use super::space;
use crate::agent::facts::Facts;
use crate::agent::fleet::{Contact, Member};
use crate::agent::protocol::{Answer, Request};
use crate::bundle::manifest::Manifest;
use crate::error::{Error, Result};
use crate::path::AbsPath;
use crate::ssh::fan_out;

/// What was found out.
pub struct Survey {
    /// A row per node of hosts.txt, head first.
    pub rows: Vec<Row>,
    /// The nodes that answered, in the same order.
    pub members: Vec<Member>,
    /// Their own words.
    pub facts: Vec<Facts>,
    /// The index of each member's row.
    pub places: Vec<usize>,
}

impl Survey {
    /// Asks all nodes at once. `contacts` have the head first, `paths` are the directories whose
    /// filesystems matter.
    #[must_use]
    pub fn of(contacts: Vec<Contact>, wish: &Wish, paths: &[AbsPath]) -> Self {
        let numbers: Vec<usize> = (0..contacts.len()).collect();
        let answers = fan_out(&numbers, |&number| match &contacts[number].member {
            Ok(member) => ask(member, number == 0, wish, paths),
            Err(error) => Err(Error::from_code(error.exit_code(), error.to_string())),
        });
        let mut survey = Self {
            rows: Vec::new(),
            members: Vec::new(),
            facts: Vec::new(),
            places: Vec::new(),
        };
        for (place, (contact, answer)) in contacts.into_iter().zip(answers).enumerate() {
            survey.rows.push(match (contact.member, answer) {
                (Ok(member), Ok((facts, clock_offset_ms))) => {
                    let found = Found {
                        node: &contact.name,
                        gpus: member.host.gpus,
                        head: place == 0,
                        facts: &facts,
                        clock_offset_ms,
                    };
                    let row = Row::of_facts(&found, wish);
                    survey.members.push(member);
                    survey.facts.push(facts);
                    survey.places.push(place);
                    row
                }
                (Err(error), _) | (_, Err(error)) => Row::of_error(&contact.name, &error),
            });
        }
        survey
    }

    /// Adds what of the bundle is on each node already, and whether the rest fits there, with the
    /// images in the nodes' runtimes if there are `containers`.
    pub fn add_content(
        &mut self,
        manifest: &Manifest,
        text: &str,
        allow_older: bool,
        containers: bool,
    ) {
        let looks = fan_out(&self.members, |member| {
            let lacking = look(member, text, allow_older)?;
            Ok((lacking, unloaded(member, manifest, containers)?))
        });
        for ((&place, facts), look) in self.places.iter().zip(&self.facts).zip(looks) {
            let row = &mut self.rows[place];
            row.add(match &look {
                Ok((None, _)) => preflight::content(0, 0),
                Ok((Some(lacking), _)) => preflight::content(count(lacking), manifest.chunks.len()),
                Err(error) => preflight::of_error("content", "unknown", error),
            });
            if let Ok((Some(lacking), load)) = look
                && let Err(error) = space::check(&row.node, manifest, facts, &lacking, &load)
            {
                row.add(preflight::of_error("free", "", &error));
            }
        }
    }

    /// Adds how data gets to each node: from the one before it in the chain, or through ssh. The
    /// nodes that did not answer are left out of it, as they would be when something is sent.
    pub fn add_chain(&mut self, data_port: u16) {
        let nodes: Vec<usize> = (0..self.members.len()).collect();
        let dialed = dial(&self.members, &nodes, None, data_port);
        let order = dialed.chain(&self.members, &nodes, None);
        let blocked: BTreeMap<usize, &str> =
            dialed.reach.blocked_in(None, &order).into_iter().collect();
        for (member, &place) in self.places.iter().enumerate() {
            self.rows[place].add(match (dialed.closed.get(&member), blocked.get(&member)) {
                (Some(error), _) => preflight::of_error("chain", "no", error),
                (None, Some(cause)) => preflight::through_ssh(cause),
                (None, None) => preflight::straight(),
            });
        }
    }
}

/// Half-open ranges of the chunks that a node lacks for sure; nothing when all is in place.
fn look(member: &Member, manifest: &str, allow_older: bool) -> Result<Option<Vec<(u32, u32)>>> {
    match member.link.call(Request::Look {
        manifest: manifest.to_owned(),
        allow_older,
    })? {
        Answer::Looked { in_place: true, .. } => Ok(None),
        Answer::Looked { lacking, .. } => Ok(Some(lacking)),
        _ => Err(member.link.unexpected()),
    }
}

fn count(ranges: &[(u32, u32)]) -> usize {
    ranges.iter().map(|(from, to)| (to - from) as usize).sum()
}

/// Facts, and how far the node's clock is ahead of ours.
fn ask(member: &Member, head: bool, wish: &Wish, paths: &[AbsPath]) -> Result<(Facts, i64)> {
    let ports: Vec<u16> = wish.ports_of(head).map(|port| port.number).collect();
    let facts = member.facts(paths, &ports, wish.containers)?;
    // The node looks at its clock last.
    let offset = facts.clock_ms - now_ms();
    Ok((facts, offset))
}

/// The clock here, in milliseconds since 1970.
fn now_ms() -> i64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}
