//! A node's place in the Ray cluster.

use serde::Serialize;

use super::container::RUNTIMES;
use super::{NodeStatus, run};
use crate::agent::fleet::{Contact, Member};
use crate::bundle::manifest::Manifest;
use crate::cluster::container;

/// Prints `ADDRESS STATE` for each node that Ray knows, in the order in which they came.
const RAY_NODES: &str = include_str!("../ray_membership.py");

/// A node's place in the Ray cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Membership {
    /// It is there.
    Alive,
    /// It was there.
    Lost,
    /// It was never there.
    Absent,
}

/// Asks Ray, in the head's container, for its nodes.
pub(super) fn add(
    head: &Member,
    contacts: &[Contact],
    manifest: &Manifest,
    nodes: &mut [NodeStatus],
) {
    let container = nodes.first().and_then(|head| head.container.as_ref());
    if !container.is_some_and(|found| found.uses_ray && found.status == "running") {
        return;
    }
    let name = container::name(&manifest.name);
    let answer = RUNTIMES.iter().find_map(|runtime| {
        let exited = run(head, &[runtime, "exec", &name, "python3", "-c", RAY_NODES]).ok()?;
        (exited.status == 0).then_some(exited.stdout)
    });
    let Some(answer) = answer else { return };
    for (node, contact) in nodes.iter_mut().zip(contacts) {
        node.ray = contact
            .address
            .map(|address| membership(&answer, &address.to_string()));
    }
}

/// A node that came back has an entry for each time; one of them is alive.
fn membership(answer: &str, address: &str) -> Membership {
    let states = || {
        answer
            .lines()
            .filter_map(|line| line.strip_prefix(address)?.strip_prefix(' '))
    };
    if states().any(|state| state == "alive") {
        Membership::Alive
    } else if states().next().is_some() {
        Membership::Lost
    } else {
        Membership::Absent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_came_back_to_ray_is_alive() {
        let answer =
            "10.0.0.11 alive\n10.0.0.12 dead\n10.0.0.13 dead\n10.0.0.13 alive\n10.0.0.1 dead\n";
        let cases = [
            ("10.0.0.11", Membership::Alive),
            ("10.0.0.12", Membership::Lost),
            ("10.0.0.13", Membership::Alive),
            ("10.0.0.1", Membership::Lost),
            ("10.0.0.14", Membership::Absent),
        ];
        for (address, expected) in cases {
            assert_eq!(membership(answer, address), expected, "{address}");
        }
    }
}
