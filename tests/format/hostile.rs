//! Bundles that an attacker or an accident made: each differs in one property from a good one,
//! and each is refused with exit code 10 and a sentence that names the property.

use std::fs;
use std::path::Path;
use std::process::Command;

use assert_cmd::prelude::*;
use bundle::bundle::manifest::{Manifest, max_stored};
use serde_json::{Value, json};

use crate::bundles::{Content, seal};
use crate::weights::{Random, bf16, weights};

/// A change of bytes.
type Change<'a> = &'a dyn Fn(&mut Vec<u8>);

/// An image of two chunks, two model files of one chunk each in two volumes, and extra files.
fn good(dir: &Path) -> Manifest {
    Content {
        volume_size: 400_000,
        parity: Some("5%"),
        image: vec![b"{}".to_vec(), Random(9).bytes(60_000)],
        extra: vec![
            ("LICENCE".into(), b"as you like".to_vec(), false),
            ("run".into(), b"#!/bin/sh\n".to_vec(), true),
        ],
        ..Content::model([
            ("a.safetensors", bf16(&weights(1, 200_000))),
            ("b.bin", Random(2).bytes(100_000)),
        ])
    }
    .write(dir)
}

/// A change of the manifest's JSON and a part of the refusal.
type Case = (fn(&mut Value), &'static str);

const MANIFESTS: &[Case] = &[
    (|m| m["format"] = json!(2), "format 2 is not 1"),
    (|m| m["extra"] = json!(1), "unknown field `extra`"),
    (
        |m| m["chunks"][0]["extra"] = json!(1),
        "unknown field `extra`",
    ),
    (|m| m["name"] = json!("../x"), "must be 1 to 63"),
    (
        |m| m["models"][0]["path"] = json!("data/model"),
        "must be absolute",
    ),
    (
        |m| m["models"][0]["path"] = json!("/data/../etc"),
        "\"..\" is not allowed",
    ),
    (
        |m| m["models"][0]["files"][0]["path"] = json!("../a"),
        "\"..\" is not allowed",
    ),
    (
        |m| m["models"][0]["files"][0]["path"] = json!("/etc/passwd"),
        "empty part",
    ),
    (
        |m| m["models"][0]["files"][0]["path"] = json!("a\u{0}b"),
        "control character",
    ),
    (
        |m| m["models"][0]["files"][0]["path"] = json!("b.bin"),
        "listed twice",
    ),
    (
        |m| m["models"][0]["files"][0]["path"] = json!("b.bin/x"),
        "lies inside b.bin",
    ),
    (
        |m| m["extras"][0]["path"] = json!("/data/model/x"),
        "lies inside /data/model",
    ),
    (
        |m| m["extras"][0]["path"] = json!("/opt/../etc"),
        "\"..\" is not allowed",
    ),
    (
        |m| m["extras"][0]["files"][1]["path"] = json!("../run"),
        "\"..\" is not allowed",
    ),
    (
        |m| m["extras"][0]["executable"] = json!(["absent"]),
        "executable absent is no file of it",
    ),
    (
        |m| m["extras"][0]["executable"] = json!(["run", "LICENCE"]),
        "executable LICENCE is out of order",
    ),
    (|m| m["extras"] = json!([]), "belongs to no file"),
    (in_base_with_offset, "is nowhere"),
    (|m| m["serial"] = json!(-1), "invalid value"),
    (
        |m| m["images"][0]["layer_facts"] = json!([]),
        "the facts are not those of its layers",
    ),
    (
        |m| m["models"][0]["files"][0]["size"] = json!(1),
        "has 1 bytes but chunks of 400000",
    ),
    (
        |m| m["models"][0]["files"][0]["chunks"] = json!([99]),
        "a chunk that does not exist",
    ),
    (
        |m| m["models"][0]["files"][0]["chunks"] = json!([3]),
        "a chunk out of order",
    ),
    (
        |m| m["models"][0]["files"][0]["sha256"] = json!("00"),
        "is not 64 lower-case hex digits",
    ),
    (|m| m["images"] = json!([]), "a chunk out of order"),
    (
        |m| m["images"][0]["config"] = json!("0".repeat(64)),
        "is missing",
    ),
    (
        |m| m["images"][0]["files"][0]["path"] = json!("blobs/sha256/x"),
        "digest of its name",
    ),
    (|m| m["chunks"][0]["raw"] = json!(0), "impossible size"),
    (
        |m| m["chunks"][0]["raw"] = json!(4_000_000_000_u32),
        "impossible size",
    ),
    (
        |m| m["chunks"][1]["blob"] = m["chunks"][0]["blob"].clone(),
        "listed twice",
    ),
    (
        |m| m["chunks"][1]["encoding"] = json!("lzma"),
        "unknown encoding",
    ),
    (
        |m| m["chunks"][1]["encoding"] = json!("planes2r8+zstd"),
        "unknown encoding",
    ),
    (
        |m| m["chunks"][1]["offset"] = json!(512),
        "overlaps the one before or leaves a gap",
    ),
    (|m| m["chunks"][1]["volume"] = json!(0), "is nowhere"),
    (
        |m| m["chunks"][1]["volume"] = json!(9),
        "does not end behind its chunks",
    ),
    (
        |m| m["volumes"][0]["name"] = json!("/dev/zero"),
        "volume 1 is called",
    ),
    (
        |m| m["volumes"][0]["size"] = json!(1_u64 << 40),
        "does not end behind its chunks",
    ),
    (|m| m["parity"]["extra"] = json!(1), "unknown field `extra`"),
    (
        |m| m["parity"]["shard"] = json!(0),
        "shards of an impossible size",
    ),
    (
        |m| m["parity"]["shard"] = json!(u64::MAX),
        "shards of an impossible size",
    ),
    (
        |m| m["parity"]["shard"] = json!(1_u64 << 60),
        "impossible number of shards",
    ),
    (
        |m| m["parity"]["data"] = json!([]),
        "impossible number of shards",
    ),
    (
        |m| m["parity"]["recovery"] = json!([]),
        "impossible number of shards",
    ),
    (
        |m| m["parity"]["recovery"] = json!(vec!["0".repeat(64); 70_000]),
        "impossible number of shards",
    ),
    (
        |m| m["parity"]["volumes"] = json!([]),
        "impossible number of shards",
    ),
    (
        |m| m["parity"]["volumes"][0]["size"] = json!(u64::MAX),
        "does not end behind its shards",
    ),
    (
        |m| m["parity"]["volumes"][0]["size"] = json!(0),
        "impossible number of shards",
    ),
    (
        |m| m["parity"]["volumes"][0]["name"] = json!("../par-0001.tar"),
        "recovery volume 1 is called",
    ),
    (
        |m| {
            let first = m["parity"]["volumes"][0].clone();
            m["parity"]["volumes"] = json!([first, first]);
            m["parity"]["volumes"][1]["name"] = json!("par-0002.tar");
        },
        "impossible number of volumes",
    ),
    (oversized, "stored larger or smaller than any encoding"),
    (short_inner, "has a short chunk before its last"),
    (swap_chunks, "does not end behind its chunks"),
    (empty_volume, "does not end behind its chunks"),
];

/// A chunk that claims more stored bytes than its raw ones can give, with a layout to match.
fn oversized(manifest: &mut Value) {
    let raw = u32::try_from(manifest["chunks"][0]["raw"].as_u64().unwrap()).unwrap();
    let stored = max_stored(raw) + 1;
    manifest["chunks"][0]["stored"] = json!(stored);
    let padded = u64::from(stored).next_multiple_of(512);
    manifest["volumes"][0]["size"] = json!(512 + padded + 1024);
    manifest["chunks"].as_array_mut().unwrap().truncate(1);
    manifest["volumes"].as_array_mut().unwrap().truncate(1);
}

/// A chunk that the base has, and yet has a place.
fn in_base_with_offset(manifest: &mut Value) {
    let sha256 = "0".repeat(64);
    manifest["base"] = json!({"name": "old", "serial": 0, "sha256": sha256});
    manifest["chunks"][1]["volume"] = json!(0);
}

/// A file whose first chunk is short.
fn short_inner(manifest: &mut Value) {
    manifest["models"][0]["files"][0]["chunks"] = json!([2, 2]);
    manifest["models"][0]["files"][0]["size"] = json!(800_000);
}

fn swap_chunks(manifest: &mut Value) {
    let chunks = manifest["chunks"].as_array_mut().unwrap();
    chunks.swap(2, 3);
}

fn empty_volume(manifest: &mut Value) {
    let mut volume = manifest["volumes"][0].clone();
    volume["name"] = json!("vol-0003.tar");
    volume["size"] = json!(1024);
    manifest["volumes"].as_array_mut().unwrap().push(volume);
}

#[test]
fn every_hostile_manifest_is_refused_for_its_own_reason() {
    let dir = tempfile::tempdir().unwrap();
    let manifest = good(dir.path());
    Manifest::parse(&manifest.to_bytes().unwrap()).unwrap();
    let mut wrong = Vec::new();
    for (number, (change, expected)) in MANIFESTS.iter().enumerate() {
        let mut json = serde_json::to_value(&manifest).unwrap();
        change(&mut json);
        let error = Manifest::parse(json.to_string().as_bytes()).expect_err(expected);
        let text = error.to_string();
        if error.exit_code() != 10 || !text.contains(expected) {
            wrong.push(format!("case {number}: {expected:?} is not in {text:?}"));
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn a_manifest_that_is_no_manifest_is_refused() {
    let long = "[".repeat(100_000);
    for bytes in [
        &b""[..],
        b"{}",
        b"[1,2]",
        b"\xff\xfe",
        b"{\"format\":1",
        long.as_bytes(),
    ] {
        assert_eq!(Manifest::parse(bytes).unwrap_err().exit_code(), 10);
    }
}

#[test]
fn a_chunk_that_decodes_to_something_else_is_refused_by_extract() {
    let files = ["model/a.safetensors", "model/b.bin"];
    let cases: [(&str, usize, Change); 4] = [
        ("a bomb", 2, &|stored| {
            *stored = zstd::bulk::compress(&vec![0; 1 << 28], 3).unwrap();
        }),
        ("a truncated frame", 2, &|stored| {
            stored.truncate(stored.len() / 2);
        }),
        ("a frame more", 2, &|stored| {
            stored.extend(zstd::bulk::compress(b"x", 3).unwrap());
        }),
        ("other bytes", 3, &|stored| stored[5] ^= 1),
    ];
    for (what, chunk, change) in cases {
        let dir = tempfile::tempdir().unwrap();
        let manifest = good(dir.path());
        rewrite_chunk(dir.path(), manifest, chunk, change);
        let mut verify = Command::cargo_bin("bundle").unwrap();
        verify.arg("verify").arg(dir.path()).assert().success();
        let out = dir.path().join("out");
        let mut extract = Command::cargo_bin("bundle").unwrap();
        extract.arg("extract").arg(dir.path()).arg("-C").arg(&out);
        let output = extract.assert().code(10).get_output().clone();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.contains("cannot be decoded"), "{what}: {text}");
        for (index, file) in (2..).zip(files) {
            assert_eq!(out.join(file).exists(), index != chunk, "{what}: {file}");
        }
    }
}

/// Writes the volumes again with a changed chunk; manifest and sums match it.
fn rewrite_chunk(dir: &Path, mut manifest: Manifest, wanted: usize, change: &dyn Fn(&mut Vec<u8>)) {
    use bundle::bundle::volume::VolumeWriter;
    use bundle::digest::Sha256;
    let volumes: Vec<Vec<u8>> = (manifest.volumes.iter())
        .map(|volume| fs::read(dir.join(&volume.name)).unwrap())
        .collect();
    let mut writer = VolumeWriter::create(dir, 1 << 30);
    for (index, chunk) in manifest.chunks.iter_mut().enumerate() {
        let start = usize::try_from(chunk.offset).unwrap();
        let volume = &volumes[chunk.volume as usize - 1];
        let mut stored = volume[start..start + chunk.stored as usize].to_vec();
        if index == wanted {
            change(&mut stored);
        }
        chunk.blob = Sha256::of(&stored);
        chunk.stored = u32::try_from(stored.len()).unwrap();
        (chunk.volume, chunk.offset) = writer.append(&chunk.blob, &stored).unwrap();
    }
    for volume in &manifest.volumes {
        fs::remove_file(dir.join(&volume.name)).unwrap();
    }
    manifest.volumes = writer.finish().unwrap();
    manifest.parity = None;
    seal(dir, &manifest);
}

#[test]
fn nothing_hides_in_a_volume() {
    let cases: [(Change, &str); 4] = [
        // The name in the header leads elsewhere: `tar x` would write there.
        (
            &|bytes| bytes[..12].copy_from_slice(b"../../etc/xx"),
            "tar header",
        ),
        // The type becomes a symbolic link.
        (&|bytes| bytes[156] = b'2', "tar header"),
        (&|bytes| bytes.extend([0; 512]), "bytes instead of"),
        (
            &|bytes| {
                let end = bytes.len();
                bytes[end - 1] = 1;
            },
            "not the end of a tar file",
        ),
    ];
    for (change, expected) in cases {
        let dir = tempfile::tempdir().unwrap();
        good(dir.path());
        let path = dir.path().join("vol-0001.tar");
        let mut bytes = fs::read(&path).unwrap();
        change(&mut bytes);
        fs::write(&path, bytes).unwrap();
        let mut verify = Command::cargo_bin("bundle").unwrap();
        let output = verify
            .arg("verify")
            .arg(dir.path())
            .assert()
            .code(10)
            .get_output()
            .clone();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains(expected), "{expected:?} is not in {text}");
    }
}
