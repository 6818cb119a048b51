//! Recovery volumes: what they rebuild, what they cannot, and that nothing is ever repaired in
//! place.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use assert_cmd::prelude::*;
use bundle::bundle::manifest::Manifest;
use bundle::bundle::media::Media;
use bundle::digest::Sha256;
use bundle::verify::{Report, verify};
use proptest::prelude::*;

use crate::bundles::Content;
use crate::weights::Random;

/// Names and bytes of a directory.
type Files = BTreeMap<String, Vec<u8>>;

/// A bundle of six volumes, about 300 kB each, and recovery volumes for a fifth of it.
fn content() -> Content {
    Content {
        volume_size: 320_000,
        parity: Some("20%"),
        ..Content::model([
            ("a.bin", Random(1).bytes(300_000)),
            ("b.bin", Random(2).bytes(290_000)),
            ("c.bin", Random(3).bytes(310_000)),
            ("d.bin", Random(4).bytes(280_001)),
            ("e.bin", Random(5).bytes(300_000)),
            ("f.bin", Random(6).bytes(100_000)),
        ])
    }
}

fn read_dir(dir: &Path) -> Files {
    let files = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    files
        .map(|file| {
            let name = file.file_name().into_string().unwrap();
            (name, fs::read(file.path()).unwrap())
        })
        .collect()
}

/// The bundle's files, made once.
fn good() -> &'static (Manifest, Files) {
    static GOOD: OnceLock<(Manifest, Files)> = OnceLock::new();
    GOOD.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let manifest = content().write(dir.path());
        (manifest, read_dir(dir.path()))
    })
}

fn write(dir: &Path, files: &Files) {
    for (name, bytes) in files {
        fs::write(dir.join(name), bytes).unwrap();
    }
}

fn report(dirs: &[&Path]) -> Report {
    let dirs: Vec<PathBuf> = dirs.iter().map(|dir| (*dir).to_owned()).collect();
    verify(&Media::open(&dirs).unwrap(), 2, &|_| ()).unwrap()
}

fn run(verb: &str, args: &[&Path]) -> Output {
    let mut command = Command::cargo_bin("bundle").unwrap();
    command.arg(verb).args(args);
    command.output().unwrap()
}

fn text(output: &Output) -> String {
    let out = String::from_utf8_lossy(&output.stdout);
    format!("{out}{}", String::from_utf8_lossy(&output.stderr))
}

/// Repairs; the volumes are then as they were, and what was damaged is kept.
fn assert_repaired(dir: &Path, before: &Files) {
    let output = run("repair", &[dir]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    report(&[dir]).outcome().unwrap();
    let (_, good) = good();
    let mut expected = good.clone();
    for (name, bytes) in before {
        if bytes != &good[name] {
            expected.insert(format!("{name}.damaged"), bytes.clone());
        }
    }
    assert!(read_dir(dir) == expected, "{}", text(&output));
}

/// Repairs in vain: exit code 10, a sentence, and nothing has changed.
fn assert_refused(dir: &Path, before: &Files) {
    let output = run("repair", &[dir]);
    assert_eq!(output.status.code(), Some(10), "{}", text(&output));
    let text = text(&output);
    assert!(text.contains("too much is lost"), "{text}");
    assert!(read_dir(dir) == *before);
}

#[test]
fn any_volumes_up_to_the_share_are_rebuilt() {
    let (manifest, files) = good();
    let (total, count) = (manifest.volume_size(), manifest.volumes.len());
    assert_eq!(count, 6);
    let mut tried = 0;
    for lost in 1..1_u32 << count {
        let lost: Vec<_> = (0..count).filter(|index| lost >> index & 1 == 1).collect();
        let bytes: u64 = lost.iter().map(|&index| manifest.volumes[index].size).sum();
        if bytes * 5 > total {
            continue;
        }
        tried += 1;
        let dir = tempfile::tempdir().unwrap();
        let mut left = files.clone();
        for &index in &lost {
            left.remove(&manifest.volumes[index].name);
        }
        write(dir.path(), &left);
        let found = report(&[dir.path()]).outcome().unwrap_err().to_string();
        assert!(
            found.contains("`bundle repair` can rebuild them"),
            "{found}"
        );
        assert_repaired(dir.path(), &left);
    }
    assert!(tried >= count, "{tried}");
}

#[test]
fn flipped_cut_and_longer_volumes_are_rebuilt_beside() {
    type Change = fn(&mut Vec<u8>);
    let changes: [(&str, Change); 6] = [
        ("vol-0001.tar", |bytes| bytes[100_000] ^= 1),
        ("vol-0001.tar", |bytes| bytes[3] ^= 1),
        ("vol-0002.tar", |bytes| bytes.truncate(50_000)),
        ("vol-0003.tar", |bytes| bytes.extend([0; 512])),
        ("vol-0006.tar", |bytes| *bytes.last_mut().unwrap() = 1),
        ("par-0001.tar", |bytes| bytes[10_000] ^= 1),
    ];
    for (name, change) in changes {
        let dir = tempfile::tempdir().unwrap();
        let mut files = good().1.clone();
        change(files.get_mut(name).unwrap());
        write(dir.path(), &files);
        let found = report(&[dir.path()]).outcome().unwrap_err().to_string();
        assert!(found.contains(&format!("damaged: {name}")), "{found}");
        assert_repaired(dir.path(), &files);
    }
}

#[test]
fn a_bit_costs_one_shard_however_large_its_chunk_is() {
    let dir = tempfile::tempdir().unwrap();
    let manifest = Content {
        parity: Some("1%"),
        ..Content::model([("a.bin", Random(1).bytes(3_000_000))])
    }
    .write(dir.path());
    assert_eq!(manifest.chunks.len(), 1);
    let path = dir.path().join("vol-0001.tar");
    let good = fs::read(&path).unwrap();
    let mut bytes = good.clone();
    for at in [9, 1_000_000, 2_999_999] {
        bytes[at] ^= 4;
    }
    fs::write(&path, bytes).unwrap();
    let recovery = report(&[dir.path()]).recovery.unwrap();
    assert_eq!((recovery.lost, recovery.intact), (3, 10));
    run("repair", &[dir.path()]);
    assert!(fs::read(&path).unwrap() == good);
}

#[test]
fn lost_recovery_volumes_are_made_again_and_are_not_needed_to_install() {
    let (manifest, files) = good();
    let mut left = files.clone();
    for volume in manifest.recovery_volumes() {
        left.remove(&volume.name);
    }
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &left);
    let found = report(&[dir.path()]);
    assert!(found.incomplete.is_empty());
    let sentence = found.outcome().unwrap_err().to_string();
    assert!(sentence.contains("missing: par-0001.tar"), "{sentence}");
    assert_repaired(dir.path(), &left);
}

#[test]
fn rebuilt_volumes_can_go_to_another_directory() {
    let (_, files) = good();
    let root = tempfile::tempdir().unwrap();
    let (dir, out) = (root.path().join("b"), root.path().join("new"));
    fs::create_dir(&dir).unwrap();
    let mut damaged = files.clone();
    damaged.get_mut("vol-0002.tar").unwrap()[7_000] ^= 1;
    damaged.remove("par-0002.tar");
    write(&dir, &damaged);
    let output = run("repair", &[&dir, Path::new("-o"), &out]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(read_dir(&dir) == damaged, "the original is not touched");
    let rebuilt = read_dir(&out);
    let names: Vec<_> = rebuilt.keys().map(String::as_str).collect();
    assert_eq!(names, ["par-0002.tar", "vol-0002.tar"]);
    report(&[&out, &dir]).outcome().unwrap();
    // A second repair has nothing to do.
    let output = run("repair", &[&out, &dir]);
    assert!(
        text(&output).contains("nothing to repair"),
        "{}",
        text(&output)
    );
}

#[test]
fn a_damaged_volume_that_was_kept_is_not_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let mut files = good().1.clone();
    files.get_mut("vol-0001.tar").unwrap()[7_000] ^= 1;
    files.insert("vol-0001.tar.damaged".into(), b"precious".to_vec());
    write(dir.path(), &files);
    let output = run("repair", &[dir.path()]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    assert!(read_dir(dir.path()) == files);
}

#[test]
fn without_recovery_volumes_there_is_no_repair() {
    let dir = tempfile::tempdir().unwrap();
    Content::model([("a", vec![1; 10])]).write(dir.path());
    let output = run("repair", &[dir.path()]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output).contains("packed without --parity"));
}

/// Somebody changed a volume so that its digests still fit: the rebuilt one is refused.
#[test]
fn a_wrong_check_value_cannot_make_a_wrong_volume() {
    let dir = tempfile::tempdir().unwrap();
    let (manifest, files) = good();
    let mut manifest = manifest.clone();
    let mut files = files.clone();
    files.get_mut("vol-0001.tar").unwrap()[700] ^= 1;
    write(dir.path(), &files);
    let shard = usize::try_from(manifest.parity.as_ref().unwrap().shard).unwrap();
    let forged = bundle::digest::Blake3::of(&files["vol-0001.tar"][..shard]);
    manifest.parity.as_mut().unwrap().data[0] = forged;
    crate::bundles::seal(dir.path(), &manifest);
    let before = read_dir(dir.path());
    let output = run("repair", &[dir.path()]);
    assert_eq!(output.status.code(), Some(10), "{}", text(&output));
    assert!(text(&output).contains("does not have its SHA-256"));
    assert!(read_dir(dir.path()) == before);
}

/// Another version of the code must make the same recovery shards, or old bundles are lost.
#[test]
fn recovery_shards_are_always_the_same() {
    let (manifest, files) = good();
    let parity = manifest.parity.as_ref().unwrap();
    assert_eq!((parity.shard, parity.data.len()), (4096, 389));
    assert_eq!(parity.recovery.len(), 80);
    let par = files.iter().filter(|(name, _)| name.starts_with("par-"));
    let bytes: Vec<u8> = par.flat_map(|(_, bytes)| bytes.clone()).collect();
    assert_eq!(
        Sha256::of(&bytes).to_string(),
        "abfa987c6950cd4be2aa4e6cf4b4698bd95084a8c5e42a54ad3cc702443dda2b"
    );
}

/// Damage: bytes of a volume (recovery volumes behind the others) that are overwritten.
#[derive(Debug, Clone)]
struct Damage {
    volume: prop::sample::Index,
    at: prop::sample::Index,
    len: usize,
}

fn damage() -> impl Strategy<Value = Vec<Damage>> {
    let one = (
        any::<prop::sample::Index>(),
        any::<prop::sample::Index>(),
        1..60_000_usize,
    );
    let one = one.prop_map(|(volume, at, len)| Damage { volume, at, len });
    prop::collection::vec(one, 1..14)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// Each recovery shard makes up for one lost shard, wherever they are: `verify` knows whether
    /// they are enough, and `repair` does what it said.
    #[test]
    fn scattered_damage_is_repaired_up_to_the_share_and_refused_above(damages in damage()) {
        let (manifest, good) = good();
        let volumes: Vec<_> = manifest.volumes.iter().chain(manifest.recovery_volumes()).collect();
        let mut files = good.clone();
        for damage in &damages {
            let bytes = files.get_mut(&damage.volume.get(&volumes).name).unwrap();
            let at = damage.at.index(bytes.len());
            let end = bytes.len().min(at + damage.len);
            bytes[at..end].iter_mut().for_each(|byte| *byte ^= 0x5a);
        }
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &files);
        let recovery = report(&[dir.path()]).recovery.unwrap();
        if recovery.lost <= recovery.intact {
            assert_repaired(dir.path(), &files);
        } else {
            assert_refused(dir.path(), &files);
        }
        let touched: usize = damages.iter().map(|damage| damage.len / 4096 + 2).sum();
        prop_assert!(recovery.lost + (80 - recovery.intact) <= touched);
    }
}
