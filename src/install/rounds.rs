//! What each round of a distribution is for, and when another one would not help. Pure, as
//! [`super::schedule`] is.

use std::time::Duration;

use super::schedule::{Cut, Why};

/// Chunks that are missing on each member, as half-open ranges.
pub type Missing = Vec<Vec<(u32, u32)>>;

/// A slow node's own round may take so many times what the others needed,
const PATIENCE: u32 = 4;

/// and at least so long.
const MIN_LIMIT: Duration = Duration::from_mins(1);

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Another round.
    Round(Plan),
    /// Nobody lacks anything.
    Complete,
    /// Another round would bring nothing.
    Stuck,
}

/// A round to be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The nodes of its chain, first to last.
    pub order: Vec<usize>,
    /// After so long, whoever is not done is given up.
    pub limit: Option<Duration>,
}

/// The rounds so far.
#[derive(Debug, Default)]
pub struct Rounds {
    /// Nodes that held up the others.
    slow: Vec<usize>,
    /// Nodes that failed in a round. At the end of the chain they cost nobody anything when they
    /// fail again.
    failed: Vec<usize>,
    /// Chunks that were missing before the last round, in all.
    before: Option<u64>,
    /// The last round was the one of the slow nodes.
    was_last: bool,
}

impl Rounds {
    /// What the last round led to.
    pub fn note(&mut self, cut: &[Cut]) {
        for cut in cut {
            match cut.why {
                Why::Slow => self.slow.push(cut.node),
                Why::Failed | Why::Broken | Why::Late => self.failed.push(cut.node),
            }
        }
    }

    /// What to do, `elapsed` after the first round began, when this is missing. A node that is
    /// lost or broken must lack nothing here: it takes part no more.
    pub fn next(&mut self, elapsed: Duration, missing: &Missing) -> Next {
        let now = count(missing);
        if now == 0 {
            return Next::Complete;
        }
        if self.was_last || self.before.replace(now) == Some(now) {
            return Next::Stuck;
        }
        let lacking = (0..missing.len()).filter(|&node| !missing[node].is_empty());
        let (slow, mut quick): (Vec<usize>, Vec<usize>) =
            lacking.partition(|node| self.slow.contains(node));
        if !quick.is_empty() {
            quick.sort_by_key(|node| self.failed.contains(node));
            return Next::Round(Plan {
                order: quick,
                limit: None,
            });
        }
        self.was_last = true;
        Next::Round(Plan {
            order: slow,
            limit: Some((elapsed * PATIENCE).max(MIN_LIMIT)),
        })
    }
}

fn count(missing: &Missing) -> u64 {
    let ranges = missing.iter().flatten();
    ranges.map(|&(from, to)| u64::from(to - from)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    fn round(order: &[usize], limit: Option<u64>) -> Next {
        Next::Round(Plan {
            order: order.to_vec(),
            limit: limit.map(Duration::from_secs),
        })
    }

    fn slow(node: usize) -> Cut {
        Cut {
            node,
            why: Why::Slow,
            error: Error::Failed("slow".into()),
        }
    }

    const NOW: Duration = Duration::from_secs(100);

    #[test]
    fn only_those_that_lack_something_take_part() {
        let mut rounds = Rounds::default();
        let missing = vec![vec![(0, 5)], vec![], vec![(2, 3), (4, 5)]];
        assert_eq!(rounds.next(NOW, &missing), round(&[0, 2], None));
        assert_eq!(rounds.next(NOW, &vec![vec![]; 3]), Next::Complete);
    }

    #[test]
    fn a_round_that_brought_nothing_is_the_last() {
        let mut rounds = Rounds::default();
        assert_eq!(rounds.next(NOW, &vec![vec![(0, 5)]]), round(&[0], None));
        assert_eq!(rounds.next(NOW, &vec![vec![(4, 5)]]), round(&[0], None));
        assert_eq!(rounds.next(NOW, &vec![vec![(4, 5)]]), Next::Stuck);
    }

    #[test]
    fn slow_nodes_have_a_round_of_their_own_when_the_others_have_all() {
        let mut rounds = Rounds::default();
        let missing = vec![vec![(0, 50)]; 3];
        assert_eq!(rounds.next(NOW, &missing), round(&[0, 1, 2], None));
        rounds.note(&[slow(1)]);
        let missing = vec![vec![], vec![(1, 50)], vec![(7, 8)]];
        assert_eq!(rounds.next(NOW, &missing), round(&[2], None));
        let missing = vec![vec![], vec![(1, 50)], vec![]];
        assert_eq!(rounds.next(NOW, &missing), round(&[1], Some(400)));
        let missing = vec![vec![], vec![(40, 50)], vec![]];
        assert_eq!(rounds.next(NOW, &missing), Next::Stuck);
    }

    #[test]
    fn who_failed_before_stands_at_the_end() {
        let mut rounds = Rounds::default();
        let why = Why::Failed;
        rounds.note(&[Cut { why, ..slow(0) }]);
        let missing = vec![vec![(0, 50)], vec![(3, 4)], vec![(3, 4)]];
        assert_eq!(rounds.next(NOW, &missing), round(&[1, 2, 0], None));
    }

    #[test]
    fn a_slow_node_has_a_minute_at_least() {
        let mut rounds = Rounds::default();
        rounds.note(&[slow(0)]);
        let next = rounds.next(Duration::from_secs(2), &vec![vec![(0, 5)]]);
        assert_eq!(next, round(&[0], Some(60)));
    }
}
