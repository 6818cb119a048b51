//! Which machine can open a connection to which node's data port, and the chain that makes the
//! most of it. Pure: knows no sockets.

use std::collections::BTreeMap;

/// A machine that opens connections: a node by its index in hosts.txt, or the origin's.
pub type Machine = Option<usize>;

/// What was found blocked, and why. Whatever was not tried counts as open.
#[derive(Clone, Debug, Default)]
pub struct Reach {
    blocked: BTreeMap<(Machine, usize), String>,
}

impl Reach {
    /// With these connections blocked.
    #[must_use]
    pub fn new(blocked: BTreeMap<(Machine, usize), String>) -> Self {
        Self { blocked }
    }

    /// Whether `from` can connect to the node.
    #[must_use]
    pub fn is_open(&self, from: Machine, to: usize) -> bool {
        !self.blocked.contains_key(&(from, to))
    }

    /// Orders a chain that begins behind `source`, so that as few of its connections are blocked
    /// as can be found by putting in one node after another; where all are open, the order stays.
    /// A node that is `here` remains the first.
    #[must_use]
    pub fn order(&self, source: Machine, nodes: &[usize], here: Option<usize>) -> Vec<usize> {
        let first = here.filter(|here| nodes.contains(here));
        let mut order = Vec::from_iter(first);
        for &node in nodes.iter().filter(|&&node| Some(node) != first) {
            let places = usize::from(first.is_some())..=order.len();
            // The last of the best: nodes stay behind those that were named before them.
            let best = places.rev().min_by_key(|&at| {
                let before = at.checked_sub(1).map_or(source, |at| Some(order[at]));
                let after = order.get(at).copied();
                let behind = after.map_or(0, |after| self.cost(Some(node), after));
                let saved = after.map_or(0, |after| self.cost(before, after));
                self.cost(before, node) + behind - saved
            });
            order.insert(best.unwrap_or(order.len()), node);
        }
        order
    }

    fn cost(&self, from: Machine, to: usize) -> i32 {
        i32::from(!self.is_open(from, to))
    }

    /// The nodes of a chain that the one before them cannot reach, and why.
    #[must_use]
    pub fn blocked_in(&self, source: Machine, order: &[usize]) -> Vec<(usize, &str)> {
        let before = [source]
            .into_iter()
            .chain(order.iter().map(|&node| Some(node)));
        let pairs = before.zip(order);
        pairs
            .filter_map(|(from, &to)| Some((to, self.blocked.get(&(from, to))?.as_str())))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reach(blocked: &[(Machine, usize)]) -> Reach {
        Reach::new(
            blocked
                .iter()
                .map(|&pair| (pair, "closed".into()))
                .collect(),
        )
    }

    /// Everything is blocked towards these.
    fn closed(nodes: &[usize]) -> Vec<(Machine, usize)> {
        let from = || [None].into_iter().chain((0..4).map(Some));
        let towards = |&to: &usize| from().map(move |from| (from, to));
        nodes.iter().flat_map(towards).collect()
    }

    /// What it is, what is blocked, the order, and how many must go through ssh.
    type Case = (&'static str, Vec<(Machine, usize)>, &'static [usize], usize);

    #[test]
    fn the_chain_goes_around_what_is_blocked() {
        let cases: [Case; 7] = [
            ("nothing is blocked", vec![], &[0, 1, 2, 3], 0),
            ("one pair", vec![(Some(1), 2)], &[0, 2, 1, 3], 0),
            ("the origin to the first", vec![(None, 0)], &[1, 0, 2, 3], 0),
            (
                "a pair both ways",
                vec![(Some(0), 1), (Some(1), 0)],
                &[0, 2, 1, 3],
                0,
            ),
            ("one node is closed", closed(&[2]), &[0, 1, 2, 3], 1),
            ("all are closed", closed(&[0, 1, 2, 3]), &[0, 1, 2, 3], 4),
            (
                "the last goes on to nobody",
                vec![(Some(0), 1), (Some(0), 2), (Some(0), 3)],
                &[1, 2, 3, 0],
                0,
            ),
        ];
        for (case, blocked, expected, tunnels) in cases {
            let reach = reach(&blocked);
            let order = reach.order(None, &[0, 1, 2, 3], None);
            assert_eq!(reach.blocked_in(None, &order).len(), tunnels, "{case}");
            assert_eq!(order, expected, "{case}");
        }
    }

    #[test]
    fn the_node_that_is_here_stays_first() {
        let reach = reach(&[(Some(2), 0), (Some(2), 1), (Some(2), 3)]);
        let order = reach.order(None, &[0, 1, 2, 3], Some(2));
        assert_eq!(order[0], 2);
        assert_eq!(reach.blocked_in(None, &order).len(), 1);
        assert_eq!(reach.order(None, &[0, 1], Some(2)), [0, 1]);
    }
}
