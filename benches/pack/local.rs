//! Packing from a directory, verifying and unpacking, with warm caches.

use std::fs;
use std::thread::available_parallelism;

use crate::commands::{BUNDLE, best_of, measure, peak_disk, ratio, row};
use crate::data::{Kind, fresh, large, model, size_of};
use crate::goals::Goals;

const RUNS: usize = 2;

/// One 16 MiB chunk, in MiB.
const CHUNK_MIB: f64 = 16.0;

/// Everything that happens without a network.
pub fn run(goals: &mut Goals) {
    let source = model(Kind::Bf16, large());
    let raw = size_of(&source, "");
    let work = fresh("local");
    let (dir, data) = (work.display(), source.display());
    let cores = available_parallelism().unwrap().get() as u64;

    let tar = work.join("m.tar.zst");
    let hand = best_of(
        RUNS,
        || drop(fs::remove_file(&tar)),
        &format!(
            "tar c -C {data} . | zstd -q -3 -T0 | tee >(sha256sum > {dir}/sum) > {dir}/m.tar.zst"
        ),
    );
    let hand_size = size_of(&work, "m.tar.zst");
    let note = format!("stored/raw {:.3}", ratio(hand_size, raw));
    row("tar | zstd -3 -T0 | tee >(sha256sum)", &hand, raw, &note);

    let bundle = work.join("b.bundle");
    let clean = || drop(fs::remove_dir_all(&bundle));
    let pack = format!(
        "{BUNDLE} pack {dir}/bundle.toml --model-dir {data} --volume-size 1G -o {dir}/b.bundle"
    );
    let (ours, peak) = peak_disk(&bundle, || best_of(RUNS, clean, &pack));
    let (size, stored) = (size_of(&bundle, ""), size_of(&bundle, "vol-"));
    // The other side needs its tools as well; so the executable is shown, and not compared.
    let note = format!(
        "stored/raw {:.3}; executable and manifest, not counted: {:.0} MB",
        ratio(stored, raw),
        ratio(size - stored, 1_000_000)
    );
    row("bundle pack --model-dir", &ours, raw, &note);
    goals.at_most("pack: time / by hand", ours.seconds / hand.seconds, 1.0);
    goals.at_most("pack: size / by hand", ratio(stored, hand_size), 0.85);
    #[allow(clippy::cast_precision_loss, reason = "a few cores")]
    let memory = 256.0 + cores as f64 * 3.0 * CHUNK_MIB;
    goals.at_most("pack: peak memory in MiB", ours.peak_mib, memory);
    let over = ratio(peak.saturating_sub(size), 1 << 20);
    goals.at_most("pack: MiB on disk beyond the bundle's own", over, 64.0);

    let sum = best_of(RUNS, || (), &format!("sha256sum {dir}/b.bundle/vol-*.tar"));
    row("sha256sum", &sum, stored, "one core");
    let verify = best_of(RUNS, || (), &format!("{BUNDLE} verify {dir}/b.bundle"));
    row("bundle verify", &verify, stored, "");
    let speed = sum.seconds / verify.seconds;
    let what = format!("verify: speed / (sha256sum x {cores} cores)");
    goals.at_least(&what, speed / ratio(cores, 1), 0.9);

    unpack(goals, raw);

    clean();
    let parity = measure(&format!("{pack} --parity 5%"));
    let share = ratio(size_of(&bundle, "par-"), size_of(&bundle, "vol-"));
    let note = format!("recovery volumes {share:.3} of the volumes");
    row("bundle pack --parity 5%", &parity, raw, &note);
    goals.at_most("pack --parity: peak memory in MiB", parity.peak_mib, memory);
    // 40 MB of the last volume are gone.
    let lost = bundle.join("vol-0002.tar");
    let file = fs::File::options().write(true).open(lost).unwrap();
    let len = file.metadata().unwrap().len();
    file.set_len(len - 40_000_000).unwrap();
    let repair = measure(&format!("{BUNDLE} repair {dir}/b.bundle"));
    row("bundle repair of 40 MB", &repair, stored, "");
    goals.at_most("repair: peak memory in MiB", repair.peak_mib, memory);
    fs::remove_dir_all(work).unwrap();
}

/// Unpacks what was just packed in both ways.
fn unpack(goals: &mut Goals, raw: u64) {
    let work = crate::data::work_dir().join("local");
    let (dir, out) = (work.display(), work.join("out"));
    let empty = || {
        let _ = fs::remove_dir_all(&out);
        fs::create_dir(&out).unwrap();
    };
    // `bundle extract` leaves nothing to the system's cache; so the other side must not either.
    let hand = best_of(
        RUNS,
        empty,
        &format!("zstd -qdc {dir}/m.tar.zst | tar x -C {dir}/out && sync -f {dir}/out"),
    );
    row("zstd -d | tar x && sync", &hand, raw, "");
    let command = format!("{BUNDLE} extract {dir}/b.bundle -C {dir}/out");
    let ours = best_of(RUNS, empty, &command);
    row("bundle extract", &ours, raw, "hashes chunks, and syncs");
    goals.at_most("extract: time / by hand", ours.seconds / hand.seconds, 1.0);
    let _ = fs::remove_dir_all(&out);
}
