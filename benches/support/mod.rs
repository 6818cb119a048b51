//! What the benches share: synthetic weights on disk, commands with their time and memory, and
//! the table that they print.

#![allow(dead_code, reason = "each bench uses another part")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a bench that cannot run shall stop"
)]

use std::env;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

#[path = "../../tests/support/weights.rs"]
mod weights;

/// Files that the data is split into, made in parallel.
const FILES: usize = 8;

/// Where benches keep their data: `BENCH_DIR`, else below `target`.
pub fn work_dir() -> PathBuf {
    let default = || Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench");
    let dir = env::var_os("BENCH_DIR").map_or_else(default, PathBuf::from);
    fs::create_dir_all(&dir).unwrap();
    dir
}

/// A directory of bf16 weights, `BENCH_MIB` (2048) MiB in all; made once.
pub fn bf16_dir() -> PathBuf {
    let mib: usize = env::var("BENCH_MIB").map_or(2048, |text| text.parse().unwrap());
    let dir = work_dir().join(format!("bf16-{mib}"));
    if !dir.exists() {
        let part = dir.with_extension("part");
        fs::create_dir_all(&part).unwrap();
        thread::scope(|scope| {
            for number in 0..FILES {
                let path = part.join(format!("model-{number}.safetensors"));
                scope.spawn(move || write_bf16(&path, number, mib / FILES));
            }
        });
        fs::rename(part, &dir).unwrap();
    }
    dir
}

fn write_bf16(path: &Path, number: usize, mib: usize) {
    let mut file = File::create(path).unwrap();
    for piece in 0..mib {
        let seed = (number * mib + piece) as u64;
        let floats = weights::weights(seed, 512 << 10);
        file.write_all(&weights::bf16(&floats)).unwrap();
    }
}

/// What a command took.
pub struct Cost {
    /// Wall-clock seconds.
    pub seconds: f64,
    /// Peak resident memory of the largest process, in MiB.
    pub peak_mib: f64,
}

/// Runs a bash command under `/usr/bin/time`; it must succeed.
pub fn measure(command: &str) -> Cost {
    let output = Command::new("/usr/bin/time")
        .args(["-f", "%e %M", "bash", "-c"])
        .arg(format!("set -o pipefail; {command}"))
        .output()
        .expect("/usr/bin/time (Debian package time) runs");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {text}");
    let mut numbers = text.lines().last().unwrap().split(' ');
    let mut next = || numbers.next().unwrap().parse::<f64>().unwrap();
    Cost {
        seconds: next(),
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

/// Bytes of all files below a directory.
pub fn size_of(dir: &Path) -> u64 {
    let files = walkdir::WalkDir::new(dir).into_iter();
    files
        .map(|entry| entry.unwrap().metadata().unwrap())
        .filter(fs::Metadata::is_file)
        .map(|metadata| metadata.len())
        .sum()
}

/// A line of the table.
pub fn row(what: &str, seconds: f64, raw: u64, note: &str) {
    #[allow(clippy::cast_precision_loss, reason = "three digits are shown")]
    let rate = raw as f64 / 1e6 / seconds;
    println!("{what:<44} {seconds:>7.2} s {rate:>8.0} MB/s  {note}");
}
