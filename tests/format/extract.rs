//! Unpacking, again and with parts missing.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;

use assert_cmd::prelude::*;
use bundle::bundle::media::Media;
use bundle::verify::{Extracted, extract};

use crate::bundles::Content;
use crate::weights::{Random, bf16, weights};

fn content() -> Content {
    let large = bf16(&weights(1, 9 << 20));
    Content {
        extra: vec![("run".into(), b"#!/bin/sh\n".to_vec(), true)],
        volume_size: 17 << 20,
        ..Content::model([
            ("config.json", b"{}".to_vec()),
            ("empty", vec![]),
            ("large.safetensors", large.clone()),
            ("original/again.safetensors", large),
            ("original/noise.bin", Random(2).bytes(20_000_000)),
        ])
    }
}

fn unpack(bundle: &Path, root: &Path) -> Extracted {
    let media = Media::open(&[bundle.to_owned()]).unwrap();
    extract(&media, root, 3, &|_| ()).unwrap()
}

fn assert_files(root: &Path, content: &Content, names: &[&str]) {
    for (name, bytes) in &content.model {
        let path = root.join("model").join(name);
        let expected = names.contains(&name.as_str());
        assert_eq!(path.exists(), expected, "{name}");
        assert!(!expected || fs::read(path).unwrap() == *bytes, "{name}");
    }
    let part = |entry: &walkdir::DirEntry| entry.path().extension().is_some_and(|e| e == "part");
    assert!(
        !walkdir::WalkDir::new(root)
            .into_iter()
            .flatten()
            .any(|entry| part(&entry))
    );
}

#[test]
fn files_come_out_as_they_went_in_and_a_second_run_keeps_them() {
    let dir = tempfile::tempdir().unwrap();
    let (bundle, root) = (dir.path().join("b"), dir.path().join("out"));
    let content = content();
    content.write(&bundle);
    let names: Vec<_> = content
        .model
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();

    let first = unpack(&bundle, &root);
    assert_eq!((first.written, first.kept, first.failed.len()), (6, 0, 0));
    assert_files(&root, &content, &names);
    let tool = fs::metadata(root.join("extra/run")).unwrap();
    assert_eq!(tool.mode() & 0o777, 0o755);

    fs::write(root.join("model/config.json"), "[]").unwrap();
    fs::remove_file(root.join("model/empty")).unwrap();
    let second = unpack(&bundle, &root);
    assert_eq!(
        (second.written, second.kept, second.failed.len()),
        (2, 4, 0)
    );
    assert_files(&root, &content, &names);
}

#[test]
fn what_is_intact_is_unpacked_and_the_rest_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let (bundle, root) = (dir.path().join("b"), dir.path().join("out"));
    let content = content();
    let manifest = content.write(&bundle);
    fs::remove_file(bundle.join(&manifest.volumes.last().unwrap().name)).unwrap();
    let volume = bundle.join("vol-0001.tar");
    let mut bytes = fs::read(&volume).unwrap();
    bytes[5_000_000] ^= 1;
    fs::write(volume, bytes).unwrap();

    let mut command = Command::cargo_bin("bundle").unwrap();
    command.arg("extract").arg(&bundle).arg("-C").arg(&root);
    let output = command.assert().code(10).get_output().clone();
    let text = String::from_utf8(output.stderr).unwrap();
    for part in [
        "vol-0001.tar is damaged",
        "large.safetensors",
        "vol-0003.tar is missing",
    ] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    assert_files(&root, &content, &["config.json", "empty"]);
}
