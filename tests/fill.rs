//! What was lost on the way, asked for and filled in: `verify --request` and `pack --only`.

#![cfg(test)]

#[path = "support/bundles.rs"]
mod bundles;
#[path = "support/three_volumes.rs"]
mod three_volumes;
#[path = "support/weights.rs"]
mod weights;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU64, Ordering};

use bundle::bundle::media::Media;
use bundle::verify::{bytes_at_hand, verify};
use bundles::Content;
use three_volumes::three_volumes;

const BUNDLE: &str = env!("CARGO_BIN_EXE_bundle");

/// Three volumes here, and a copy that lost one and has a flipped bit in another.
struct Work(tempfile::TempDir);

impl Work {
    fn new() -> Self {
        let work = Self(tempfile::tempdir().unwrap());
        let near = work.path("near.bundle");
        three_volumes().write(&near);
        fs::create_dir(work.path("far.bundle")).unwrap();
        for entry in fs::read_dir(&near).unwrap() {
            let entry = entry.unwrap();
            fs::copy(
                entry.path(),
                work.path("far.bundle").join(entry.file_name()),
            )
            .unwrap();
        }
        work.flip("far.bundle/vol-0002.tar", 300_000);
        fs::remove_file(work.path("far.bundle/vol-0003.tar")).unwrap();
        work
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn flip(&self, name: &str, at: usize) {
        let mut bytes = fs::read(self.path(name)).unwrap();
        bytes[at] ^= 1;
        fs::write(self.path(name), bytes).unwrap();
    }

    /// Exit code, and what it said.
    fn run(&self, line: &str) -> (i32, String) {
        let output = run(self.0.path(), line);
        let text = [output.stdout, output.stderr].concat();
        (
            output.status.code().unwrap(),
            String::from_utf8(text).unwrap(),
        )
    }

    /// Asks and answers; returns the fill volume, which is in the current directory.
    fn fill(&self) -> PathBuf {
        assert_eq!(self.run("verify far.bundle --request ask.json").0, 10);
        let (code, text) = self.run("pack --only ask.json near.bundle --volume-size 20M");
        assert_eq!(code, 0, "{text}");
        let entries = fs::read_dir(self.0.path()).unwrap();
        let mut fills: Vec<PathBuf> = entries
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|end| end == "tar"))
            .collect();
        assert_eq!(fills.len(), 1);
        fills.remove(0)
    }

    /// The model is there as it was packed.
    fn check(&self, dir: &str) {
        assert_eq!(self.run("extract near.bundle -C expected").0, 0);
        let mut diff = Command::new("diff");
        diff.args(["-r", dir, "expected/model"]);
        assert!(diff.current_dir(self.0.path()).status().unwrap().success());
    }

    /// Puts it beside the volumes of the far side.
    fn carry(&self, fill: &[u8]) {
        fs::write(self.path("far.bundle/fill-0123456789ab-0001.tar"), fill).unwrap();
    }
}

fn run(dir: &Path, line: &str) -> Output {
    let mut command = Command::new(BUNDLE);
    command.args(line.split_whitespace()).current_dir(dir);
    command.env("HOME", dir).output().unwrap()
}

#[test]
fn a_fill_volume_makes_up_for_a_flipped_bit_and_a_missing_volume() {
    let work = Work::new();
    let fill = work.fill();
    work.carry(&fs::read(&fill).unwrap());
    let (code, text) = work.run("verify far.bundle --request again.json");
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("2 intact chunks of this bundle"), "{text}");
    assert!(text.contains("nothing to request"), "{text}");
    assert!(!work.path("again.json").exists());

    let (code, text) = work.run("extract far.bundle -C out");
    assert_eq!(code, 0, "{text}");
    work.check("out/model");
}

#[test]
fn progress_counts_the_blobs_of_fill_volumes() {
    let work = Work::new();
    let far = [work.path("far.bundle")];
    let before = bytes_at_hand(&Media::open(&far).unwrap());
    let fill = fs::read(work.fill()).unwrap();
    work.carry(&fill);
    let media = Media::open(&far).unwrap();
    let total = bytes_at_hand(&media);
    // Two blobs, of which headers and padding are not counted.
    let blobs = total - before;
    assert!((fill.len() as u64 - 4096..fill.len() as u64).contains(&blobs));
    let last = AtomicU64::new(0);
    verify(&media, 2, &|done| {
        last.fetch_max(done, Ordering::Relaxed);
    })
    .unwrap();
    assert_eq!(last.into_inner(), total);
}

#[test]
fn nodes_get_what_only_a_fill_volume_has() {
    let work = Work::new();
    fs::write(work.path("hosts.txt"), "127.0.0.21\n127.0.0.22\n").unwrap();
    let install = "install far.bundle --hosts hosts.txt --rehearsal nodes --no-start";
    let (code, text) = work.run(install);
    assert_eq!(code, 10, "{text}");
    assert!(text.contains("vol-0002.tar is damaged"), "{text}");
    work.carry(&fs::read(work.fill()).unwrap());
    let (code, text) = work.run(install);
    assert_eq!(code, 0, "{text}");
    for node in ["127.0.0.21", "127.0.0.22"] {
        work.check(&format!("nodes/{node}/data/model"));
    }
}

#[test]
fn what_is_wrong_in_a_fill_volume_is_ignored() {
    let work = Work::new();
    let fill = fs::read(work.fill()).unwrap();
    let mut name = fill.clone();
    name[20] = if name[20] == b'0' { b'1' } else { b'0' };
    let mut content = fill.clone();
    content[600] ^= 1;
    let mut foreign = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(3);
    foreign
        .append_data(&mut header, "etc/passwd", &b"abc"[..])
        .unwrap();
    let foreign = foreign.into_inner().unwrap();
    for (hostile, what) in [
        (name, "none of this bundle"),
        (content, "does not have its SHA-256"),
        (foreign, "none of this bundle"),
        (fill[..700].to_vec(), "breaks off"),
    ] {
        work.carry(&hostile);
        let (code, text) = work.run("verify far.bundle");
        assert_eq!(code, 10, "{text}");
        assert!(text.contains(what), "{what}: {text}");
        assert_eq!(work.run("extract far.bundle -C out").0, 10);
    }
    fs::write(work.path("far.bundle/fill-zz-0001.tar"), &fill).unwrap();
    assert_eq!(work.run("verify far.bundle").0, 0);
}

#[test]
fn a_fill_volume_with_other_bytes_does_not_count_as_a_chunk() {
    let work = Work::new();
    let mut fill = fs::read(work.fill()).unwrap();
    let missing = |work: &Work| {
        let media = Media::open(&[work.path("far.bundle")]).unwrap();
        let chunks = 0..media.manifest().chunks.len();
        let chunks = chunks.map(|index| u32::try_from(index).unwrap());
        let lacking: Vec<u32> = chunks.filter(|&index| !media.has_chunk(index)).collect();
        lacking.len()
    };
    assert_eq!(missing(&work), 1);
    work.carry(&fill);
    assert_eq!(missing(&work), 0);
    // The second blob: the first is the one of the damaged volume, which is at hand.
    let at = fill.len() - 1024 - 5000;
    fill[at] ^= 1;
    work.carry(&fill);
    assert_eq!(missing(&work), 1);
}

#[test]
fn requests_that_cannot_be_met_are_refused() {
    let work = Work::new();
    work.fill();
    Content::model([("x", vec![1; 100])]).write(&work.path("other.bundle"));
    let (code, text) = work.run("pack --only ask.json other.bundle");
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("has 0 of the 2 chunks"), "{text}");
    assert!(text.contains("bundle tiny"), "{text}");

    fs::write(work.path("ask2.json"), "{}").unwrap();
    let (code, text) = work.run("pack --only ask2.json near.bundle");
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("is no request"), "{text}");

    // What is lost here as well is named, and the rest is packed.
    work.flip("near.bundle/vol-0002.tar", 300_000);
    let (code, text) = work.run("pack --only ask.json near.bundle -o part");
    assert_eq!(code, 10, "{text}");
    for words in [
        "packed 1 chunks in 1 volumes",
        "1 of the chunks asked for cannot be had here either",
        "vol-0002.tar is damaged",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert_eq!(fs::read_dir(work.path("part")).unwrap().count(), 1);
    let (code, text) = work.run("pack --only ask.json far.bundle");
    assert_eq!(code, 10, "{text}");
    assert!(text.contains("vol-0003.tar is missing"), "{text}");
}
