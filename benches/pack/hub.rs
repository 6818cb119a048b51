//! Packing from a hub on loopback, beside the hub's own downloader.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::commands::{BUNDLE, Cost, best_of, ratio, row};
use crate::data::{Kind, fresh, model, size_of, work_dir};
use crate::goals::Goals;
use crate::loopback::{Content, Hub, Options};

const RUNS: usize = 2;

/// MiB of the model.
const MIB: usize = 1024;

/// What the added latency is measured with.
const LATENCY: Duration = Duration::from_millis(50);

/// The link's rate then, in bytes per second: 1 Gbit/s.
const RATE: u64 = 125_000_000;

/// Fetches a model at full speed, and over a link with latency.
pub fn run(goals: &mut Goals) {
    let source = model(Kind::Bf16, MIB);
    let raw = size_of(&source, "");
    let hf = downloader();

    let hub = hub(&source, Options::default());
    let theirs = download(&hf, &hub, RUNS);
    row("hf download", &theirs, raw, "");
    let ours = pack(&hub, RUNS);
    row(
        "bundle pack --mirror",
        &ours,
        raw,
        "compresses, hashes, syncs",
    );
    goals.at_most(
        "hub: time / hf download",
        ours.seconds / theirs.seconds,
        1.0,
    );
    drop(hub);

    let slow = Options {
        latency: LATENCY,
        rate: Some(RATE),
        ..Options::default()
    };
    let hub = self::hub(&source, slow);
    row(
        "hf download, 1 Gbit/s, 50 ms",
        &download(&hf, &hub, 1),
        raw,
        "",
    );
    let ours = pack(&hub, 1);
    row("bundle pack --mirror, 1 Gbit/s, 50 ms", &ours, raw, "");
    let rate = ratio(raw, RATE) / ours.seconds;
    goals.at_least(
        "hub with 50 ms of latency: share of the link's rate",
        rate,
        0.9,
    );
}

fn hub(source: &Path, options: Options) -> Hub {
    let hub = Hub::start(options).unwrap();
    let files = fs::read_dir(source).unwrap().map(|entry| {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        (name, Content::disk(&path).unwrap())
    });
    hub.commit("o/m", "main", files.collect::<Vec<_>>());
    hub
}

fn pack(hub: &Hub, runs: usize) -> Cost {
    let work = fresh("hub");
    let dir = work.display();
    let command = format!(
        "{BUNDLE} pack {dir}/bundle.toml --mirror {} -o {dir}/b.bundle",
        hub.url()
    );
    let clean = || drop(fs::remove_dir_all(work.join("b.bundle")));
    let cost = best_of(runs, clean, &command);
    fs::remove_dir_all(&work).unwrap();
    cost
}

fn download(hf: &Path, hub: &Hub, runs: usize) -> Cost {
    let work = fresh("hf");
    let (dir, hf) = (work.display(), hf.display());
    let command = format!(
        "HF_ENDPOINT={} HF_HOME={dir}/home HF_HUB_DISABLE_TELEMETRY=1 \
         {hf} download o/m --local-dir {dir}/m",
        hub.url()
    );
    let clean = || {
        for name in ["m", "home"] {
            let _ = fs::remove_dir_all(work.join(name));
        }
    };
    let cost = best_of(runs, clean, &command);
    // Notes of hf about each file.
    let _ = fs::remove_dir_all(work.join("m/.cache"));
    assert_eq!(size_of(&work.join("m"), "model-"), (MIB as u64) << 20);
    fs::remove_dir_all(&work).unwrap();
    cost
}

/// The official downloader, from `PyPI`; installed once.
fn downloader() -> PathBuf {
    let venv = work_dir().join("venv");
    let hf = venv.join("bin/hf");
    if !hf.exists() {
        let run = |program: &Path, args: &[&str]| {
            let status = Command::new(program).args(args).status().unwrap();
            assert!(status.success(), "{} {args:?}", program.display());
        };
        run(
            Path::new("python3"),
            &["-m", "venv", venv.to_str().unwrap()],
        );
        run(&venv.join("bin/pip"), &["install", "-q", "huggingface_hub"]);
    }
    hf
}
