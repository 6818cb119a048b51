//! `bundle pack --model-dir` against the pipe that people write by hand, both with warm caches.

#![allow(clippy::unwrap_used, reason = "a bench that cannot run shall stop")]

use std::fs;

mod support;

use support::{best_of, bf16_dir, row, size_of, work_dir};

const RUNS: usize = 3;

fn main() {
    let data = bf16_dir();
    let raw = size_of(&data);
    let work = work_dir().join("pack");
    let clean = || {
        let _ = fs::remove_dir_all(&work);
        fs::create_dir_all(&work).unwrap();
        let spec = "name = \"b\"\n[[model]]\nrepo = \"o/m\"\npath = \"/m\"\n";
        fs::write(work.join("bundle.toml"), spec).unwrap();
    };
    let (dir, data) = (work.display(), data.display());

    let by_hand = best_of(
        RUNS,
        clean,
        &format!(
            "tar c -C {data} . | zstd -q -3 -T0 | tee >(sha256sum > {dir}/sum) > {dir}/m.tar.zst"
        ),
    );
    let by_hand_size = fs::metadata(work.join("m.tar.zst")).unwrap().len();
    row(
        "tar | zstd -3 -T0 | tee >(sha256sum)",
        by_hand.seconds,
        raw,
        &share(by_hand_size, raw),
    );

    let ours = best_of(
        RUNS,
        clean,
        &format!(
            "{} pack {dir}/bundle.toml --model-dir {data} -o {dir}/b.bundle",
            env!("CARGO_BIN_EXE_bundle")
        ),
    );
    let ours_size = size_of(&work.join("b.bundle"));
    let executable = fs::metadata(work.join("b.bundle/bundle")).unwrap().len();
    let note = format!(
        "{}, peak {:.0} MiB, {:.2} x the time by hand",
        share(ours_size - executable, raw),
        ours.peak_mib,
        ours.seconds / by_hand.seconds
    );
    row("bundle pack --model-dir", ours.seconds, raw, &note);
    clean();
}

fn share(stored: u64, raw: u64) -> String {
    #[allow(clippy::cast_precision_loss, reason = "three digits are shown")]
    let share = stored as f64 / raw as f64;
    format!("stored/raw {share:.3}")
}
