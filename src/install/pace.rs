//! Who holds up the others: a pure function over progress reports.
//!
//! A full queue makes everybody before a slow node wait, and everybody behind it starve, so all of
//! them are equally fast. The slow one is where waiting turns into starving: its feeder waits for
//! it, and it waits for nobody.

use std::time::Duration;

use super::chain::{Chain, Upstream};

/// Reports are compared over this time at least.
const WINDOW: Duration = Duration::from_millis(500);

/// An older comparison says nothing.
const FRESH: Duration = Duration::from_secs(3);

/// A feeder waits for its next node if it does so for this share of the time,
const WAITS: f64 = 0.7;

/// and waits for nobody below this one.
const FLOWS: f64 = 0.3;

/// Slow is who takes this many times less than was seen in the round,
const TIMES: f64 = 8.0;

/// where so many bytes a second are taken for granted: the first node of a chain has nobody before
/// it to be compared with.
const GRANTED: f64 = 16e6;

/// The others may lose this part of their whole time to a slow node before it is cut out,
const PART: f64 = 0.03;

/// in these bounds.
const PATIENCE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));

/// It is thought about no more often than this: there may be a thousand nodes.
const LOOK: Duration = Duration::from_millis(100);

/// Totals of a round, from a node or from the origin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Bytes that came in.
    pub received: u64,
    /// For how long the next node made it wait.
    pub held: Duration,
}

/// What is known about everybody's pace.
#[derive(Debug)]
pub struct Pace {
    total: u64,
    origin: Track,
    nodes: Vec<Track>,
    /// The fastest that anybody was, in bytes a second.
    best: f64,
    suspect: Option<(usize, Duration)>,
    /// When it was last thought about.
    looked: Duration,
    /// The feeder of the node that was judged last.
    blamed: Option<Upstream>,
}

#[derive(Clone, Debug, Default)]
struct Track {
    from: (Duration, Report),
    last: Option<Measured>,
}

/// Over one window.
#[derive(Clone, Copy, Debug)]
struct Measured {
    at: Duration,
    rate: f64,
    held: f64,
}

impl Pace {
    /// Nothing is known yet about this many nodes, for whom `total` bytes come.
    #[must_use]
    pub fn new(nodes: usize, total: u64) -> Self {
        Self {
            total,
            origin: Track::default(),
            nodes: vec![Track::default(); nodes],
            best: GRANTED,
            suspect: None,
            looked: Duration::ZERO,
            blamed: None,
        }
    }

    /// Takes a report in.
    pub fn note(&mut self, now: Duration, who: Upstream, report: Report) {
        let track = match who {
            Upstream::Origin => &mut self.origin,
            Upstream::Node(node) => &mut self.nodes[node],
        };
        track.note(now, report);
        if let Some(measured) = track.last {
            self.best = self.best.max(measured.rate);
        }
    }

    /// The node that should be cut out now, with its rate in bytes a second. Two nodes in a row
    /// that are slow for the same feeder: then it is the feeder.
    pub fn judge(
        &mut self,
        now: Duration,
        chain: &Chain,
        done: impl Fn(usize) -> bool,
    ) -> Option<(usize, f64)> {
        if now.saturating_sub(self.looked) < LOOK {
            return None;
        }
        self.looked = now;
        let Some((feeder, node, rate)) = self.slowest(now, chain, done) else {
            self.suspect = None;
            return None;
        };
        match self.suspect {
            Some((suspect, since)) if suspect == node => {
                if now.saturating_sub(since) < self.patience() {
                    return None;
                }
            }
            _ => {
                self.suspect = Some((node, now));
                return None;
            }
        }
        let guilty = match (self.blamed.replace(feeder) == Some(feeder), feeder) {
            (false, _) => node,
            (true, Upstream::Node(feeder)) => feeder,
            // Nobody is slow, the origin is.
            (true, Upstream::Origin) => return None,
        };
        // Whether this helped is seen from now on.
        self.best = GRANTED;
        self.suspect = None;
        self.nodes.iter_mut().for_each(|track| track.last = None);
        self.origin.last = None;
        Some((guilty, rate))
    }

    fn slowest(
        &self,
        now: Duration,
        chain: &Chain,
        done: impl Fn(usize) -> bool,
    ) -> Option<(Upstream, usize, f64)> {
        chain.live().nth(1)?;
        let fresh = |track: &Track| {
            track
                .last
                .filter(|last| now.saturating_sub(last.at) < FRESH)
        };
        let (mut feeder, mut before) = (Upstream::Origin, fresh(&self.origin));
        for node in chain.live() {
            let here = fresh(&self.nodes[node]);
            if let (Some(before), Some(here)) = (before, here)
                && before.held >= WAITS
                && here.held <= FLOWS
                && here.rate * TIMES < self.best
                && !done(node)
            {
                return Some((feeder, node, here.rate));
            }
            (feeder, before) = (Upstream::Node(node), here);
        }
        None
    }

    #[expect(clippy::cast_precision_loss, reason = "a rate need not be exact")]
    fn patience(&self) -> Duration {
        let whole = self.total as f64 / self.best;
        Duration::from_secs_f64(whole * PART).clamp(PATIENCE.0, PATIENCE.1)
    }
}

impl Track {
    #[expect(clippy::cast_precision_loss, reason = "a rate need not be exact")]
    fn note(&mut self, now: Duration, report: Report) {
        let (begun, first) = self.from;
        let time = now.saturating_sub(begun);
        if time < WINDOW {
            return;
        }
        let seconds = time.as_secs_f64();
        self.last = Some(Measured {
            at: now,
            rate: report.received.saturating_sub(first.received) as f64 / seconds,
            held: report.held.saturating_sub(first.held).as_secs_f64() / seconds,
        });
        self.from = (now, report);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORIGIN: f64 = 50e6;

    /// Reports for so many seconds, twice a second: each node's rate and share of waiting, the
    /// origin first. Who is cut out, and when.
    fn play(total: u64, phases: &[(u64, &[(f64, f64)])]) -> Option<(usize, Duration)> {
        let nodes = phases[0].1.len() - 1;
        let mut pace = Pace::new(nodes, total);
        let chain = Chain::new((0..nodes).collect());
        let mut sums = vec![(0.0, 0.0); nodes + 1];
        let mut now = Duration::ZERO;
        for (seconds, rates) in phases {
            for _ in 0..seconds * 2 {
                now += WINDOW;
                for (index, (rate, held)) in rates.iter().enumerate() {
                    sums[index].0 += rate / 2.0;
                    sums[index].1 += held / 2.0;
                    let who = index
                        .checked_sub(1)
                        .map_or(Upstream::Origin, Upstream::Node);
                    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
                    let received = sums[index].0 as u64;
                    let held = Duration::from_secs_f64(sums[index].1);
                    pace.note(now, who, Report { received, held });
                }
                if let Some((node, _)) = pace.judge(now, &chain, |_| false) {
                    return Some((node, now));
                }
            }
        }
        None
    }

    /// A name, rates and waiting, and who is cut out.
    type Case = (&'static str, [(f64, f64); 4], Option<usize>);

    #[test]
    fn only_who_lags_far_behind_is_cut_out() {
        let (fast, wait, slow) = ((ORIGIN, 0.0), (1.2e6, 1.0), (1.2e6, 0.0));
        let total = 2_000_000_000;
        let cases: [Case; 6] = [
            ("all alike", [(ORIGIN, 1.0), fast, fast, fast], None),
            ("the first", [wait, slow, slow, slow], Some(0)),
            ("one in the middle", [wait, wait, slow, slow], Some(1)),
            ("the last", [wait, wait, wait, slow], Some(2)),
            ("the medium", [slow, slow, slow, slow], None),
            (
                "a quarter as fast",
                [(12e6, 1.0), (12e6, 0.0), (12e6, 0.0), (12e6, 0.0)],
                None,
            ),
        ];
        for (case, rates, expected) in cases {
            let cut = play(
                total,
                &[(1, &[(ORIGIN, 1.0), fast, fast, fast]), (20, &rates)],
            );
            assert_eq!(cut.map(|(node, _)| node), expected, "{case}");
            // 3 % of 40 s.
            assert!(
                cut.is_none_or(|(_, at)| at <= Duration::from_secs(4)),
                "{case}"
            );
        }
    }

    #[test]
    fn a_first_node_that_never_was_fast_is_cut_out_too() {
        let rates = [(1.2e6, 1.0), (1.2e6, 0.0), (1.2e6, 0.0)];
        assert_eq!(
            play(10_000_000, &[(5, &rates)]).map(|(node, _)| node),
            Some(0)
        );
    }

    #[test]
    fn a_pause_is_forgiven_the_longer_the_more_there_is_to_send() {
        let (well, pause): (&[_], &[_]) = (
            &[(ORIGIN, 1.0), (ORIGIN, 0.0), (ORIGIN, 0.0)],
            &[(0.0, 1.0), (0.0, 0.0), (0.0, 0.0)],
        );
        let phases = [(2, well), (5, pause), (5, well)];
        assert_eq!(play(93_000_000_000, &phases), None);
        assert!(play(500_000_000, &phases).is_some());
    }

    #[test]
    fn one_node_alone_holds_up_nobody() {
        assert_eq!(play(10, &[(20, &[(1e6, 1.0), (1e6, 0.0)])]), None);
    }

    #[test]
    fn a_feeder_for_whom_everybody_is_slow_is_slow_itself() {
        let mut pace = Pace::new(4, 0);
        let mut chain = Chain::new(vec![0, 1, 2, 3]);
        let mut now = Duration::ZERO;
        let mut cut = Vec::new();
        for step in 1..40_u32 {
            now += WINDOW;
            let report = |held| Report {
                received: u64::from(step) * 500_000,
                held,
            };
            pace.note(now, Upstream::Origin, report(now));
            for node in 0..4 {
                let held = if node == 0 { now } else { Duration::ZERO };
                pace.note(now, Upstream::Node(node), report(held));
            }
            if let Some((node, _)) = pace.judge(now, &chain, |_| false) {
                chain.cut(node);
                cut.push(node);
            }
        }
        // Node 1 at first, then the one that feeds it; the next would be slow for the origin.
        assert_eq!(cut[..2], [1, 0]);
        assert!(cut.len() <= 3, "{cut:?}");
    }
}
