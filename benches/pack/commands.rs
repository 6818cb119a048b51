//! Commands and what they take.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::data::size_of;

/// The executable that is measured.
pub const BUNDLE: &str = env!("CARGO_BIN_EXE_bundle");

/// What a command took, as `/usr/bin/time -v` counts it.
pub struct Cost {
    /// Wall-clock seconds.
    pub seconds: f64,
    /// Seconds of all cores, user and system.
    pub cpu: f64,
    /// Peak resident memory of the largest process, in MiB.
    pub peak_mib: f64,
}

/// Runs a bash command under `/usr/bin/time`; it must succeed.
pub fn measure(command: &str) -> Cost {
    let output = Command::new("/usr/bin/time")
        .args(["-f", "%e %U %S %M", "bash", "-c"])
        .arg(format!("set -o pipefail; {command}"))
        .output()
        .expect("/usr/bin/time (Debian package time) runs");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {text}");
    let mut numbers = text.lines().last().unwrap().split(' ');
    let mut next = || numbers.next().unwrap().parse::<f64>().unwrap();
    Cost {
        seconds: next(),
        cpu: next() + next(),
        peak_mib: next() / 1024.0,
    }
}

/// The best of several runs, each begun with a clean slate.
pub fn best_of(runs: usize, prepare: impl Fn(), command: &str) -> Cost {
    let costs = (0..runs).map(|_| {
        prepare();
        measure(command)
    });
    costs
        .min_by(|one, other| one.seconds.total_cmp(&other.seconds))
        .unwrap()
}

/// The most bytes that a directory had while something ran.
pub fn peak_disk<T>(dir: &Path, run: impl FnOnce() -> T) -> (T, u64) {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let poll = scope.spawn(|| {
            let mut peak = 0;
            while !done.load(Ordering::Relaxed) {
                peak = peak.max(size_of(dir, ""));
                thread::sleep(Duration::from_millis(10));
            }
            peak
        });
        let result = run();
        done.store(true, Ordering::Relaxed);
        (result, poll.join().unwrap())
    })
}

/// A line of the table.
pub fn row(what: &str, cost: &Cost, bytes: u64, note: &str) {
    println!(
        "  {what:<46} {:>7.2} s {:>6.0} MB/s  cpu {:>6.2} s  peak {:>4.0} MiB  {note}",
        cost.seconds,
        ratio(bytes, 1_000_000) / cost.seconds,
        cost.cpu,
        cost.peak_mib
    );
}

/// A quotient of bytes.
#[allow(clippy::cast_precision_loss, reason = "three digits are shown")]
pub fn ratio(one: u64, other: u64) -> f64 {
    one as f64 / other as f64
}
