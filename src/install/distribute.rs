//! Rounds until every node has everything, sealed and out of sight.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::dial::{Dialed, dial};
use super::round::{Origin, Outcome, Progress, Round};
use super::rounds::{Missing, Next, Plan, Rounds};
use super::schedule::Why;
use super::source::{Source, no_giver};
use super::space;
use crate::agent::facts::Facts;
use crate::agent::fleet::{Member, all};
use crate::agent::images::ids;
use crate::agent::protocol::{Answer, Request};
use crate::bundle::manifest::{Chunk, Manifest, Name};
use crate::bundle::ranges::{indices, ranges};
use crate::digest::Sha256;
use crate::error::{Error, Result, names_of};
use crate::ssh::fan_out;

/// The hooks of whoever shows what happens.
pub struct Show<'a> {
    /// A step begins.
    pub step: &'a (dyn Fn(&str) + Sync),
    /// Bytes of a round.
    pub progress: Progress<'a>,
}

/// What the command line says about an install.
#[derive(Clone, Copy, Debug, Default)]
pub struct Way {
    /// TCP port of the nodes for the data; 0 takes any free one.
    pub port: u16,
    /// Whether images go into the nodes' container runtimes.
    pub containers: bool,
}

/// Opens the bundle on every node; returns which of them have it in place. A node that has a higher
/// serial refuses, unless told to allow it.
pub fn open(members: &[Member], manifest: &[u8], allow_older: bool) -> Result<Vec<bool>> {
    let manifest = String::from_utf8_lossy(manifest).into_owned();
    all(fan_out(members, |member| {
        match member.link.call(Request::Open {
            manifest: manifest.clone(),
            allow_older,
        })? {
            Answer::Opened { in_place } => Ok(in_place),
            _ => Err(member.link.unexpected()),
        }
    }))
}

/// Brings what is missing to every node and seals it there. Nothing is visible yet.
pub fn fill(
    members: &[Member],
    facts: &[Facts],
    source: &Source,
    way: &Way,
    show: &Show<'_>,
) -> Result<()> {
    (show.step)("looking at what the nodes have");
    let mut round = Round {
        members,
        origin: Origin::Nobody,
        manifest: source.manifest(),
        port: way.port,
        dialed: Dialed::default(),
        progress: show.progress,
    };
    let mut lost = Lost::default();
    let mut missing = lost.inventory(members);
    check_base(members, source, &missing)?;
    check_space(members, facts, source, &missing, way.containers)?;
    let (began, mut rounds) = (Instant::now(), Rounds::default());
    let mut outcome = Outcome::default();
    let mut is_first = true;
    loop {
        let coming = at_hand(source, &missing);
        let mut plan = match rounds.next(began.elapsed(), &coming) {
            Next::Round(plan) if outcome.unreadable.is_empty() => plan,
            Next::Complete => break,
            _ => return Err(stuck(members, &missing, &outcome, &lost)),
        };
        round.origin = match source {
            Source::Media(media) => Origin::Media(media),
            Source::Nodes { .. } => Origin::Node(
                lost.giver(&missing)
                    .ok_or_else(|| no_giver(&source.manifest().name))?,
            ),
        };
        if is_first || !outcome.cut.is_empty() {
            round.dialed = dial(members, &plan.order, round.giver(), way.port);
            is_first = false;
        }
        plan.order = in_reach(&round, &plan.order, show);
        (show.step)(&describe(members, source, &plan, &coming));
        outcome = round.run(&plan, &coming)?;
        for remark in remarks(&outcome) {
            (show.step)(&remark);
        }
        rounds.note(&outcome.cut);
        lost.note(members, &outcome);
        missing = lost.inventory(members);
    }
    if !lost.errors.is_empty() {
        return Err(stuck(members, &missing, &Outcome::default(), &lost));
    }
    check_complete(source, &missing)?;
    (show.step)("syncing every file on every node");
    all(fan_out(members, |member| member.perform(Request::Seal))).map(drop)
}

/// The order that goes around what is blocked; says what must take another way.
fn in_reach(round: &Round<'_>, nodes: &[usize], show: &Show<'_>) -> Vec<usize> {
    let (dialed, source) = (&round.dialed, round.giver());
    let order = dialed.chain(round.members, nodes, source);
    let blocked = dialed.reach.blocked_in(source, &order);
    if let Some((_, cause)) = blocked.first() {
        let name = |&(node, _): &(usize, &str)| round.members[node].host.address.as_str();
        let names: Vec<&str> = blocked.iter().map(name).collect();
        (show.step)(&format!(
            "the data port of {} is blocked ({cause}): data goes there through ssh, which is slower; open the port between the nodes (--data-port fixes its number) for the time of one copy",
            names_of(&names)
        ));
    }
    order
}

/// What should be known of a round even if all ends well.
fn remarks(outcome: &Outcome) -> Vec<String> {
    let slow = outcome.cut.iter().filter(|cut| cut.why == Why::Slow);
    let sentences = slow.map(|cut| cut.error.to_string());
    outcome.changed.iter().cloned().chain(sentences).collect()
}

/// Members whose agents are gone or whose stores take no more. The rounds go on without them, so
/// that the next run has less to send.
#[derive(Default)]
struct Lost {
    errors: BTreeMap<usize, Error>,
}

impl Lost {
    /// What each member lacks; nothing for one that is lost.
    fn inventory(&mut self, members: &[Member]) -> Missing {
        let numbers: Vec<usize> = (0..members.len()).collect();
        let answers = fan_out(&numbers, |&number| {
            if self.errors.contains_key(&number) {
                return Ok(Vec::new());
            }
            match members[number].link.call(Request::Inventory)? {
                Answer::Missing { chunks } => Ok(chunks),
                _ => Err(members[number].link.unexpected()),
            }
        });
        let mut missing = Missing::new();
        for (number, answer) in answers.into_iter().enumerate() {
            missing.push(answer.unwrap_or_else(|error| {
                self.errors.insert(number, error);
                Vec::new()
            }));
        }
        missing
    }

    /// A member that lacks nothing.
    fn giver(&self, missing: &Missing) -> Option<usize> {
        (0..missing.len())
            .find(|number| missing[*number].is_empty() && !self.errors.contains_key(number))
    }

    /// Why a member was cut out says more than that it is gone. One that takes no more would
    /// fail again, and cost those behind it chunks again.
    fn note(&mut self, members: &[Member], outcome: &Outcome) {
        for cut in &outcome.cut {
            if cut.why == Why::Broken || !members[cut.node].link.is_alive() {
                let error = Error::from_code(cut.error.exit_code(), cut.error.to_string());
                self.errors.entry(cut.node).or_insert(error);
            }
        }
    }
}

/// Loads the images of a version on every node; returns how many were not there yet.
pub fn load_images(members: &[Member], name: &Name, manifest: Sha256) -> Result<u32> {
    let loaded = all(fan_out(members, |member| {
        let name = name.to_string();
        match member.link.call(Request::LoadImages { name, manifest })? {
            Answer::Loaded { loaded } => Ok(loaded),
            _ => Err(member.link.unexpected()),
        }
    }))?;
    Ok(loaded.iter().sum())
}

/// Of each image whether a member has yet to load it; none has to be without containers.
pub fn unloaded(member: &Member, manifest: &Manifest, containers: bool) -> Result<Vec<bool>> {
    if !containers {
        return Ok(vec![false; manifest.images.len()]);
    }
    let ids = manifest.images.iter().map(|image| Ok(ids(image)?.to_vec()));
    let ids = ids.collect::<Result<_>>()?;
    match member.link.call(Request::HasImages { ids })? {
        Answer::HasImages { has } => Ok(has.into_iter().map(|has| !has).collect()),
        _ => Err(member.link.unexpected()),
    }
}

fn check_space(
    members: &[Member],
    facts: &[Facts],
    source: &Source,
    missing: &Missing,
    containers: bool,
) -> Result<()> {
    let load = fan_out(members, |member| {
        unloaded(member, source.manifest(), containers)
    });
    let load = all(load)?;
    let checks = members.iter().zip(facts).zip(missing).zip(&load).map(
        |(((member, facts), missing), load)| {
            space::check(
                &member.host.address,
                source.manifest(),
                facts,
                missing,
                load,
            )
        },
    );
    all(checks.collect()).map(drop)
}

/// What only the base has must be on every node, or on a medium at hand.
fn check_base(members: &[Member], source: &Source, missing: &Missing) -> Result<()> {
    let manifest = source.manifest();
    let Some(base) = &manifest.base else {
        return Ok(());
    };
    let nowhere = |index: u32| {
        let chunk = manifest.chunks.get(index as usize);
        chunk.is_some_and(Chunk::is_in_base) && !source.has_chunk(index)
    };
    let lacks = |(member, missing): (&Member, &Vec<(u32, u32)>)| {
        let chunks: BTreeSet<u32> = indices(missing).filter(|&index| nowhere(index)).collect();
        let files: Vec<&str> = (manifest.files())
            .filter(|(_, file)| file.chunks.iter().any(|index| chunks.contains(index)))
            .map(|(_, file)| file.path.as_str())
            .collect();
        (!files.is_empty()).then(|| format!("{} lacks {}", member.host.address, names_of(&files)))
    };
    let sentences: Vec<String> = members.iter().zip(missing).filter_map(lacks).collect();
    if sentences.is_empty() {
        return Ok(());
    }
    Err(Error::Damaged(format!(
        "this bundle builds on {base} and leaves out what that one has, but\n{}\n\
         install {base} on these nodes first, or name its directory too; no node was changed",
        sentences.join("\n")
    )))
}

/// The part of what is missing that can be had now.
fn at_hand(source: &Source, missing: &Missing) -> Missing {
    let of_node = |missing: &Vec<(u32, u32)>| {
        ranges(indices(missing).filter(|&chunk| source.has_chunk(chunk)))
    };
    missing.iter().map(of_node).collect()
}

/// All that these media have is on the nodes; says which come next when that is not all.
fn check_complete(source: &Source, missing: &Missing) -> Result<()> {
    let manifest = source.manifest();
    let chunks = missing.iter().flat_map(|missing| indices(missing));
    let numbers: BTreeSet<usize> = chunks
        .filter_map(|chunk| manifest.chunks.get(chunk as usize))
        .map(|chunk| chunk.volume as usize)
        .collect();
    if numbers.is_empty() {
        return Ok(());
    }
    let volumes = numbers
        .iter()
        .filter_map(|number| manifest.volumes.get(number.checked_sub(1)?));
    let names: Vec<&str> = volumes.map(|volume| volume.name.as_str()).collect();
    Err(Error::Damaged(format!(
        "the nodes have all that these media hold; needed next: {}. Insert their media and run the same command again with their directories; until the last one, no node shows anything of it",
        names.join(", ")
    )))
}

fn describe(members: &[Member], source: &Source, plan: &Plan, missing: &Missing) -> String {
    let lacking = plan
        .order
        .iter()
        .map(|&node| bytes(source.manifest(), &missing[node]));
    format!(
        "sending up to {} MB to {} of {} nodes",
        lacking.max().unwrap_or(0) / 1_000_000,
        plan.order.len(),
        members.len()
    )
}

fn bytes(manifest: &Manifest, ranges: &[(u32, u32)]) -> u64 {
    let stored = indices(ranges).filter_map(|chunk| manifest.chunks.get(chunk as usize));
    stored.map(|chunk| u64::from(chunk.stored)).sum()
}

/// Another round would not help: why, about each node concerned, and what to do.
fn stuck(members: &[Member], missing: &Missing, outcome: &Outcome, lost: &Lost) -> Error {
    let unreadable = outcome.unreadable.iter().map(|(_, error)| error);
    let still_there = |number: &usize| !lost.errors.contains_key(number);
    let cut = outcome
        .cut
        .iter()
        .filter(|cut| still_there(&cut.node))
        .map(|cut| &cut.error);
    let errors = unreadable.chain(cut).chain(lost.errors.values());
    let mut sentences: Vec<String> = errors.map(ToString::to_string).collect();
    sentences.extend(outcome.changed.iter().cloned());
    for (member, ranges) in members.iter().zip(missing) {
        let lacking: u32 = ranges.iter().map(|(from, to)| to - from).sum();
        if lacking > 0 {
            sentences.push(format!(
                "{} still lacks {lacking} chunks",
                member.host.address
            ));
        }
    }
    sentences.push(
        "no node was changed; run the same command again: only what is missing is sent".into(),
    );
    let text = sentences.join("\n");
    match outcome.unreadable.first() {
        Some((_, error)) => Error::from_code(error.exit_code(), text),
        None => Error::SomeNodes(text),
    }
}
