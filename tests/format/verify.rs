//! Damage of every kind, found and named; and the word of other tools.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;

use assert_cmd::prelude::*;
use bundle::bundle::manifest::Manifest;
use bundle::bundle::media::Media;
use bundle::verify::{Report, State, bytes_at_hand, verify};

use crate::bundles::Content;
use crate::three_volumes::three_volumes;
use crate::weights::Random;

/// An image in one volume and a model in three.
fn bundle(dir: &Path) -> Manifest {
    let mut content = three_volumes();
    content.image = vec![b"{}".to_vec(), Random(9).bytes(600_000)];
    content.model.push(("empty".into(), vec![]));
    content.write(dir)
}

fn report(dir: &Path) -> Report {
    let media = Media::open(&[dir.to_owned()]).unwrap();
    verify(&media, 3, &|_| ()).unwrap()
}

/// Changes one byte of a file.
fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 0x20;
    fs::write(path, bytes).unwrap();
}

#[test]
fn an_intact_bundle_is_intact_for_us_and_for_sha256sum_and_tar() {
    let dir = tempfile::tempdir().unwrap();
    let manifest = bundle(dir.path());
    let report = report(dir.path());
    report.outcome().unwrap();
    assert_eq!(report.volumes.len(), manifest.volumes.len());
    assert!(report.incomplete.is_empty());
    let size: u64 = manifest.volumes.iter().map(|volume| volume.size).sum();
    assert_eq!(report.bytes, size);

    let mut sha256sum = Command::new("sha256sum");
    sha256sum.args(["--quiet", "--strict", "-c", "SHA256SUMS"]);
    sha256sum.current_dir(dir.path()).assert().success();
    for (chunk, volume) in manifest.chunks.iter().map(|chunk| (chunk, chunk.volume)) {
        let mut tar = Command::new("tar");
        tar.args(["-xOf", &manifest.volumes[volume as usize - 1].name]);
        tar.arg(format!("blobs/sha256/{}", chunk.blob));
        let output = tar.current_dir(dir.path()).output().unwrap();
        assert_eq!(bundle::digest::Sha256::of(&output.stdout), chunk.blob);
    }
}

#[test]
fn progress_ends_at_the_total() {
    let dir = tempfile::tempdir().unwrap();
    bundle(dir.path());
    let media = Media::open(&[dir.path().to_owned()]).unwrap();
    let last = std::sync::atomic::AtomicU64::new(0);
    verify(&media, 2, &|done| {
        last.fetch_max(done, std::sync::atomic::Ordering::Relaxed);
    })
    .unwrap();
    assert_eq!(last.into_inner(), bytes_at_hand(&media));
}

#[test]
fn every_single_byte_of_a_volume_counts() {
    let dir = tempfile::tempdir().unwrap();
    let manifest = Content::model([("a", vec![7; 40]), ("b", vec![8; 600])]).write(dir.path());
    let path = dir.path().join("vol-0001.tar");
    let media = Media::open(&[dir.path().to_owned()]).unwrap();
    let state = || verify(&media, 1, &|_| ()).unwrap().volumes[0].state;
    let bytes = fs::read(&path).unwrap();
    assert_eq!(bytes.len() as u64, manifest.volumes[0].size);
    let file = fs::File::options().write(true).open(&path).unwrap();
    for (at, byte) in (0..).zip(&bytes) {
        file.write_all_at(&[byte ^ 0x20], at).unwrap();
        assert_eq!(state(), State::Damaged, "byte {at}");
        file.write_all_at(&[*byte], at).unwrap();
    }
    assert_eq!(state(), State::Intact);
}

#[test]
fn damaged_and_missing_volumes_are_named_with_their_files() {
    let dir = tempfile::tempdir().unwrap();
    let manifest = bundle(dir.path());
    flip(&dir.path().join("vol-0002.tar"), 300_000);
    fs::remove_file(dir.path().join("vol-0004.tar")).unwrap();
    let report = report(dir.path());

    let states: Vec<_> = report.volumes.iter().map(|volume| volume.state).collect();
    assert_eq!(
        states,
        [State::Intact, State::Damaged, State::Intact, State::Missing]
    );
    let fault = &report.volumes[1].faults[0];
    assert_eq!(fault.offset, manifest.chunks[2].offset);
    assert_eq!(fault.chunk, Some(manifest.chunks[2].blob));
    assert_eq!(fault.owners[0].path, "a.safetensors");
    assert_eq!((fault.owners[0].start, fault.owners[0].end), (0, 800_000));
    assert_eq!(
        report.incomplete[..2],
        ["owner/model: a.safetensors", "owner/model: c.bin"]
    );
    let error = report.outcome().unwrap_err();
    assert_eq!(error.exit_code(), 10);
    let text = error.to_string();
    assert!(text.contains("damaged: vol-0002.tar"), "{text}");
    assert!(text.contains("missing: vol-0004.tar"), "{text}");
}

#[test]
fn longer_and_shorter_volumes_are_damaged() {
    let dir = tempfile::tempdir().unwrap();
    bundle(dir.path());
    let path = dir.path().join("vol-0002.tar");
    let bytes = fs::read(&path).unwrap();
    let longer = [&bytes[..], &[0; 512]].concat();
    for other in [
        &longer[..],
        &bytes[..bytes.len() - 512],
        &bytes[..9000],
        &[],
    ] {
        fs::write(&path, other).unwrap();
        let report = report(dir.path());
        assert_eq!(report.volumes[1].state, State::Damaged);
        assert!(report.volumes[1].faults.iter().any(|fault| {
            fault.what == format!("it has {} bytes instead of {}", other.len(), bytes.len())
        }));
    }
}

#[test]
fn the_files_beside_the_volumes_count_too() {
    type Damage<'a> = &'a dyn Fn(&Path);
    let cases: [(&str, Damage, &str); 6] = [
        ("bundle", &|path| flip(path, 1), "SHA-256 is another"),
        ("bundle", &|path| fs::remove_file(path).unwrap(), "missing"),
        (
            "SHA256SUMS",
            &|path| fs::remove_file(path).unwrap(),
            "No such file",
        ),
        (
            "SHA256SUMS",
            &|path| fs::write(path, "x\n").unwrap(),
            "line 1",
        ),
        (
            "bundle",
            &|path| edit_sums(path, "  bundle\n", "  other\n"),
            "not list",
        ),
        ("vol-0002.tar", &swap_volume_sums, "different hashes"),
    ];
    for (name, damage, expected) in cases {
        let dir = tempfile::tempdir().unwrap();
        bundle(dir.path());
        damage(&dir.path().join(name));
        let report = report(dir.path());
        assert_eq!(report.outcome().unwrap_err().exit_code(), 10);
        let fault = report.beside.iter().find(|fault| fault.name == name);
        let what = &fault.unwrap_or_else(|| panic!("{name}: {report:?}")).what;
        assert!(what.contains(expected), "{name}: {what}");
    }
}

fn edit_sums(beside: &Path, from: &str, to: &str) {
    let path = beside.with_file_name("SHA256SUMS");
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(from));
    fs::write(path, text.replace(from, to)).unwrap();
}

fn swap_volume_sums(beside: &Path) {
    edit_sums(beside, "vol-0002", "vol-000x");
    edit_sums(beside, "vol-0003", "vol-0002");
    edit_sums(beside, "vol-000x", "vol-0003");
}

#[test]
fn the_command_says_so_with_its_exit_code() {
    let dir = tempfile::tempdir().unwrap();
    bundle(dir.path());
    let command = || {
        let mut command = Command::cargo_bin("bundle").unwrap();
        command.arg("verify").current_dir(dir.path());
        command
    };
    command().assert().success();
    flip(&dir.path().join("vol-0002.tar"), 300_000);
    let output = command().assert().code(10).get_output().clone();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("bytes 0-799999 of a.safetensors in owner/model"),
        "{text}"
    );
    let output = command()
        .arg("--json")
        .assert()
        .code(10)
        .get_output()
        .clone();
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["volumes"][1]["state"], "damaged");
    assert_eq!(json["volumes"][0]["state"], "intact");
}
