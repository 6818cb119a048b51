//! Tries the connections that the relay chain needs, before anything is sent.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use super::reach::{Machine, Reach};
use crate::agent::dial;
use crate::agent::fleet::Member;
use crate::agent::protocol::{Answer, Request};
use crate::error::{Error, Result};
use crate::ssh::fan_out;

/// What was found; nothing yet counts as all open.
#[derive(Default)]
pub struct Dialed {
    /// Who can reach whom.
    pub reach: Reach,
    /// Members whose data port cannot be opened.
    pub closed: BTreeMap<usize, Error>,
}

impl Dialed {
    /// The chain that makes the most of it. A node that is this machine comes first: its share need
    /// not cross the network then. Nodes without a data port come last, and will be left out.
    #[must_use]
    pub fn chain(&self, members: &[Member], nodes: &[usize], source: Machine) -> Vec<usize> {
        let (closed, open): (Vec<usize>, Vec<usize>) = nodes
            .iter()
            .partition(|&member| self.closed.contains_key(member));
        let here = open.iter().copied().find(|&node| members[node].is_here);
        let mut order = self.reach.order(source, &open, here);
        order.extend(closed);
        order
    }
}

/// Opens the data ports of these members and tries the chain in this order, behind `source`. When
/// something in it is blocked, every pair is tried, so that the chain can go around it.
#[must_use]
pub fn dial(members: &[Member], order: &[usize], source: Machine, port: u16) -> Dialed {
    let listening = fan_out(order, |&member| listen(&members[member], port));
    let mut ports = BTreeMap::new();
    let mut closed = BTreeMap::new();
    for (&member, opened) in order.iter().zip(listening) {
        match opened {
            Ok(port) => drop(ports.insert(member, SocketAddr::new(members[member].address, port))),
            Err(error) => drop(closed.insert(member, error)),
        }
    }
    let order: Vec<usize> = order
        .iter()
        .copied()
        .filter(|member| ports.contains_key(member))
        .collect();
    let before = [source]
        .into_iter()
        .chain(order.iter().map(|&node| Some(node)));
    let chain = before.zip(&order).map(|(from, &to)| (from, vec![to]));
    let mut blocked = try_all(members, &ports, &chain.collect::<Vec<_>>());
    if !blocked.is_empty() {
        let from = [None, source]
            .into_iter()
            .chain(order.iter().map(|&node| Some(node)));
        let towards = |from: Machine| {
            let others = order.iter().filter(|&&to| Some(to) != from);
            (from, others.copied().collect())
        };
        let pairs = from.collect::<BTreeSet<_>>().into_iter().map(towards);
        blocked = try_all(members, &ports, &pairs.collect::<Vec<_>>());
    }
    // The ports were opened for this only; a node that cannot answer is missed later anyway.
    fan_out(&order, |&member| {
        members[member].perform(Request::Leave).is_ok()
    });
    Dialed {
        reach: Reach::new(blocked),
        closed,
    }
}

/// Which of these connections are blocked, and why.
fn try_all(
    members: &[Member],
    ports: &BTreeMap<usize, SocketAddr>,
    pairs: &[(Machine, Vec<usize>)],
) -> BTreeMap<(Machine, usize), String> {
    let found = fan_out(pairs, |(from, to)| {
        let addresses = to.iter().filter_map(|to| ports.get(to).copied()).collect();
        failures(members, *from, addresses).unwrap_or_else(|error| {
            // It is lost, and will be missed.
            vec![Some(error.to_string()); to.len()]
        })
    });
    let blocked = pairs.iter().zip(found).flat_map(|((from, to), failures)| {
        let pairs = to.iter().map(|&to| (*from, to));
        pairs.zip(failures).collect::<Vec<_>>()
    });
    blocked
        .filter_map(|(pair, failure)| Some((pair, failure?)))
        .collect()
}

fn failures(
    members: &[Member],
    from: Machine,
    addresses: Vec<SocketAddr>,
) -> Result<Vec<Option<String>>> {
    let Some(from) = from else {
        return Ok(dial::dial(&addresses));
    };
    match members[from].link.call(Request::Dial { addresses })? {
        Answer::Dialed { failures } => Ok(failures),
        _ => Err(members[from].link.unexpected()),
    }
}

fn listen(member: &Member, port: u16) -> Result<u16> {
    match member.link.call(Request::Listen { port })? {
        Answer::Listening { port, .. } => Ok(port),
        _ => Err(member.link.unexpected()),
    }
}
