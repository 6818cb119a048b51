//! The order in which nodes pass the stream on, and who takes over when one drops out.

/// Nodes by their index in hosts.txt, in the order of the chain. Pure: knows no sockets.
#[derive(Clone, Debug)]
pub struct Chain {
    order: Vec<usize>,
    out: Vec<bool>,
}

/// Who feeds a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Upstream {
    /// The origin itself.
    Origin,
    /// The node of this index.
    Node(usize),
}

impl Chain {
    /// A chain over these nodes, first to last.
    #[must_use]
    pub fn new(order: Vec<usize>) -> Self {
        let out = vec![false; order.len()];
        Self { order, out }
    }

    /// The nodes that are still in it, first to last.
    pub fn live(&self) -> impl Iterator<Item = usize> {
        self.order
            .iter()
            .zip(&self.out)
            .filter(|(_, out)| !**out)
            .map(|(&node, _)| node)
    }

    /// The first node still in it.
    #[must_use]
    pub fn first(&self) -> Option<usize> {
        self.live().next()
    }

    /// Who `node` passes the stream on to; nobody once it was cut out.
    #[must_use]
    pub fn after(&self, node: usize) -> Option<usize> {
        self.live().skip_while(|&live| live != node).nth(1)
    }

    /// Who passes the stream on to `node`; nobody once it was cut out.
    #[must_use]
    pub fn feeder(&self, node: usize) -> Option<Upstream> {
        let mut before = Upstream::Origin;
        for live in self.live() {
            if live == node {
                return Some(before);
            }
            before = Upstream::Node(live);
        }
        None
    }

    /// Cuts a node out. Returns who fed it, and whom that one feeds from now on; none when the
    /// node was out already or is not of this chain.
    pub fn cut(&mut self, node: usize) -> Option<(Upstream, Option<usize>)> {
        let position = self.order.iter().position(|&member| member == node)?;
        let (feeder, next) = (self.feeder(node)?, self.after(node));
        self.out[position] = true;
        Some((feeder, next))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live(chain: &Chain) -> Vec<usize> {
        chain.live().collect()
    }

    #[test]
    fn neighbours_follow_the_order() {
        let chain = Chain::new(vec![2, 0, 5]);
        assert_eq!(chain.first(), Some(2));
        assert_eq!(
            (chain.after(2), chain.after(0), chain.after(5)),
            (Some(0), Some(5), None)
        );
        assert_eq!(
            (chain.feeder(2), chain.feeder(5)),
            (Some(Upstream::Origin), Some(Upstream::Node(0)))
        );
        assert_eq!((chain.after(7), chain.feeder(7)), (None, None));
    }

    #[test]
    fn cutting_joins_the_neighbours() {
        let mut chain = Chain::new(vec![0, 1, 2, 3]);
        assert_eq!(chain.cut(1), Some((Upstream::Node(0), Some(2))));
        assert_eq!((chain.after(0), chain.after(1)), (Some(2), None));
        assert_eq!(chain.cut(2), Some((Upstream::Node(0), Some(3))));
        assert_eq!(chain.cut(0), Some((Upstream::Origin, Some(3))));
        assert_eq!(live(&chain), [3]);
        assert_eq!(chain.cut(3), Some((Upstream::Origin, None)));
        assert_eq!(chain.first(), None);
    }

    #[test]
    fn cutting_twice_or_a_stranger_changes_nothing() {
        let mut chain = Chain::new(vec![0, 1]);
        assert!(chain.cut(1).is_some());
        assert_eq!(chain.cut(1), None);
        assert_eq!(chain.cut(9), None);
        assert_eq!(live(&chain), [0]);
    }
}
