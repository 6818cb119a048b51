//! Who holds up the others: a pure function over progress reports.
//!
//! A full queue makes everybody before a slow node wait, and everybody behind it starve, so all of
//! them are equally fast. The slow one is where waiting turns into starving: its feeder waits for
//! it, or still fills the queue between them, and it waits for nobody.
//!
//! One that takes a trickle, report after report, is slow, and that shows soon. One that stands
//! still may only be busy for a moment, and gets longer.

use std::time::Duration;

use super::chain::{Chain, Upstream};

/// Reports are compared over this time at least.
const WINDOW: Duration = Duration::from_millis(100);

/// The fastest is measured over this time at least: a burst is no measure.
const STRETCH: Duration = Duration::from_millis(250);

/// Nodes that take anything at all report within this time.
const SILENCE: Duration = Duration::from_secs(1);

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

/// in these bounds when the node takes a trickle,
const TRICKLES: (Duration, Duration) = (Duration::from_millis(400), Duration::from_secs(10));

/// which so many comparisons in a row must show,
const IN_A_ROW: u32 = 3;

/// and in these when it stands still.
const STANDS_STILL: (Duration, Duration) = (Duration::from_secs(3), Duration::from_secs(10));

/// It is thought about no more often than this: there may be a thousand nodes.
const LOOK: Duration = Duration::from_millis(20);

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
    suspect: Option<Suspect>,
    /// When it was last thought about.
    looked: Duration,
    /// The feeder of the node that was judged last.
    blamed: Option<Upstream>,
}

/// A node that seems to be slow.
#[derive(Clone, Copy, Debug)]
struct Suspect {
    node: usize,
    since: Duration,
    /// The last comparison that said so,
    seen: Duration,
    /// and how many of them in a row found a trickle.
    trickles: u32,
}

#[derive(Clone, Debug, Default)]
struct Track {
    from: (Duration, Report),
    last: Option<Measured>,
    /// Where the measure of the fastest begins.
    stretch: (Duration, u64),
}

/// Over one window.
#[derive(Clone, Copy, Debug)]
struct Measured {
    from: Duration,
    at: Duration,
    rate: f64,
    held: f64,
}

impl Measured {
    /// It takes much more than the next node does at that time, so the queue between them fills.
    fn fills(&self, next: &Self) -> bool {
        self.at + STRETCH > next.from && self.rate > next.rate * TIMES
    }

    /// Something comes all the time.
    fn trickles(&self) -> bool {
        self.rate > 0.0 && self.at.saturating_sub(self.from) < SILENCE
    }
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
        if let Some(rate) = track.stretch(now, report.received) {
            self.best = self.best.max(rate);
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
        let Some((feeder, node, measured)) = self.slowest(now, chain, done) else {
            self.suspect = None;
            return None;
        };
        let suspect = suspect(self.suspect, node, &measured);
        self.suspect = Some(suspect);
        let bounds = match suspect.trickles {
            IN_A_ROW.. => TRICKLES,
            _ => STANDS_STILL,
        };
        if now.saturating_sub(suspect.since) < self.patience(bounds) {
            return None;
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
        Some((guilty, measured.rate))
    }

    fn slowest(
        &self,
        now: Duration,
        chain: &Chain,
        done: impl Fn(usize) -> bool,
    ) -> Option<(Upstream, usize, Measured)> {
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
                && (before.held >= WAITS || before.fills(&here))
                && here.held <= FLOWS
                && here.rate * TIMES < self.best
                && !done(node)
            {
                return Some((feeder, node, here));
            }
            (feeder, before) = (Upstream::Node(node), here);
        }
        None
    }

    #[expect(clippy::cast_precision_loss, reason = "a rate need not be exact")]
    fn patience(&self, (least, most): (Duration, Duration)) -> Duration {
        let whole = self.total as f64 / self.best;
        Duration::from_secs_f64(whole * PART).clamp(least, most)
    }
}

/// What is thought of a node after a comparison in which it was slow.
fn suspect(before: Option<Suspect>, node: usize, measured: &Measured) -> Suspect {
    let before = before.filter(|before| before.node == node);
    let new = Suspect {
        node,
        // The time of a trickle counts from its beginning. Whoever stood still goes on just now.
        since: if measured.trickles() {
            measured.from
        } else {
            measured.at
        },
        seen: measured.at,
        trickles: u32::from(measured.trickles()),
    };
    match before {
        None => new,
        Some(before) if before.seen == measured.at => before,
        Some(before) if measured.trickles() => Suspect {
            seen: measured.at,
            trickles: before.trickles + 1,
            ..before
        },
        Some(before) => Suspect {
            seen: measured.at,
            trickles: 0,
            ..before
        },
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
            from: begun,
            at: now,
            rate: report.received.saturating_sub(first.received) as f64 / seconds,
            held: report.held.saturating_sub(first.held).as_secs_f64() / seconds,
        });
        self.from = (now, report);
    }

    /// Bytes a second over the stretch that ends now, if one does.
    #[expect(clippy::cast_precision_loss, reason = "a rate need not be exact")]
    fn stretch(&mut self, now: Duration, received: u64) -> Option<f64> {
        let (begun, first) = self.stretch;
        let time = now.saturating_sub(begun);
        if time < STRETCH {
            return None;
        }
        self.stretch = (now, received);
        Some(received.saturating_sub(first) as f64 / time.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORIGIN: f64 = 50e6;

    /// Between two reports.
    const STEP: Duration = Duration::from_millis(250);

    /// Reports for so many seconds, one every [`STEP`]: each node's rate and share of waiting, the
    /// origin first. Who is cut out, and when.
    fn play(total: u64, phases: &[(f64, &[(f64, f64)])]) -> Option<(usize, Duration)> {
        let (nodes, step) = (phases[0].1.len() - 1, STEP.as_secs_f64());
        let mut pace = Pace::new(nodes, total);
        let chain = Chain::new((0..nodes).collect());
        let mut sums = vec![(0.0, 0.0); nodes + 1];
        let mut now = Duration::ZERO;
        for (seconds, rates) in phases {
            let end = now + Duration::from_secs_f64(*seconds);
            while now < end {
                now += STEP;
                for (index, (rate, held)) in rates.iter().enumerate() {
                    sums[index].0 += rate * step;
                    sums[index].1 += held * step;
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
                &[(1.0, &[(ORIGIN, 1.0), fast, fast, fast]), (20.0, &rates)],
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
            play(10_000_000, &[(5.0, &rates)]).map(|(node, _)| node),
            Some(0)
        );
    }

    #[test]
    fn a_pause_is_forgiven_the_longer_the_more_there_is_to_send() {
        let (well, pause): (&[_], &[_]) = (
            &[(ORIGIN, 1.0), (ORIGIN, 0.0), (ORIGIN, 0.0)],
            &[(0.0, 1.0), (0.0, 0.0), (0.0, 0.0)],
        );
        let phases = [(2.0, well), (5.0, pause), (5.0, well)];
        assert_eq!(play(93_000_000_000, &phases), None);
        assert!(play(500_000_000, &phases).is_some());
    }

    /// A name, rates and waiting for so many seconds, and after how many milliseconds the node is
    /// cut out.
    type Trickle<'a> = (&'a str, &'a [(f64, f64)], f64, Option<u64>);

    #[test]
    fn a_trickle_is_judged_sooner_than_a_node_that_stands_still() {
        let (well, flows, waits) = ((ORIGIN, 0.0), (ORIGIN, 0.0), (1.2e6, 1.0));
        let (trickles, still) = ((1.2e6, 0.0), (0.0, 0.0));
        let total = 500_000_000;
        // All is well afterwards.
        let cases: [Trickle; 6] = [
            (
                "a trickle from the beginning",
                &[flows, flows, trickles],
                9.0,
                Some(750),
            ),
            (
                "its feeder waits",
                &[flows, waits, trickles],
                9.0,
                Some(750),
            ),
            ("half a second of it", &[flows, waits, trickles], 0.5, None),
            (
                "it stands still",
                &[flows, (0.0, 1.0), still],
                9.0,
                Some(3250),
            ),
            ("for a moment", &[flows, (0.0, 1.0), still], 2.5, None),
            ("all do", &[(0.0, 1.0), still, still], 2.5, None),
        ];
        for (case, rates, seconds, expected) in cases {
            let cut = play(total, &[(seconds, rates), (9.0, &[well, well, well])]);
            let expected = expected.map(|at| (1, Duration::from_millis(at)));
            assert_eq!(cut, expected, "{case}");
        }
    }

    #[test]
    fn a_trickle_once_in_a_while_is_none() {
        let (well, hiccup): (&[_], &[_]) = (
            &[(ORIGIN, 1.0), (ORIGIN, 0.0), (ORIGIN, 0.0)],
            &[(ORIGIN, 1.0), (ORIGIN, 1.0), (1.2e6, 0.0)],
        );
        let phases: Vec<_> = (0..20)
            .flat_map(|_| [(0.5, hiccup), (0.25, well)])
            .collect();
        assert_eq!(play(500_000_000, &phases), None);
    }

    #[test]
    fn whoever_is_behind_a_node_that_fell_silent_is_not_slow() {
        let (mut pace, chain) = (Pace::new(3, 500_000_000), Chain::new(vec![0, 1, 2]));
        for step in 1..40_u32 {
            let now = STEP * step;
            let report = |received| Report {
                received,
                held: Duration::ZERO,
            };
            let most = u64::from(step) * 12_500_000;
            pace.note(now, Upstream::Node(0), report(most));
            if step < 8 {
                pace.note(now, Upstream::Node(1), report(most));
                pace.note(now, Upstream::Node(2), report(most));
            } else {
                let trickle = 100_000_000 + u64::from(step) * 300_000;
                pace.note(now, Upstream::Node(2), report(trickle));
            }
            assert_eq!(pace.judge(now, &chain, |_| false), None);
        }
    }

    #[test]
    fn one_node_alone_holds_up_nobody() {
        assert_eq!(play(10, &[(20.0, &[(1e6, 1.0), (1e6, 0.0)])]), None);
    }

    #[test]
    fn a_feeder_for_whom_everybody_is_slow_is_slow_itself() {
        let mut pace = Pace::new(4, 0);
        let mut chain = Chain::new(vec![0, 1, 2, 3]);
        let mut now = Duration::ZERO;
        let mut cut = Vec::new();
        for step in 1..40_u32 {
            now += STEP;
            let report = |held| Report {
                received: u64::from(step) * 250_000,
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
