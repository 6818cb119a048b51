//! A second implementation of the format, from its documentation, unpacks the same bytes.

use std::fs;
use std::path::Path;
use std::process::Command;

use assert_cmd::prelude::*;

use crate::bundles::Content;
use crate::weights::{Random, bf16, fp16, fp32, weights};

#[test]
fn the_python_decoder_unpacks_every_encoding() {
    let dir = tempfile::tempdir().unwrap();
    let (bundle, out) = (dir.path().join("b"), dir.path().join("out"));
    let weights = weights(1, 60_000);
    let odd = |mut bytes: Vec<u8>| {
        bytes.truncate(bytes.len() - 1);
        bytes
    };
    let content = Content {
        image: vec![b"{}".to_vec(), Random(3).bytes(70_000)],
        extra: vec![("run".into(), b"#!/bin/sh\n".to_vec(), true)],
        volume_size: 300_000,
        ..Content::model([
            ("bf16", odd(bf16(&weights))),
            ("empty", vec![]),
            ("fp16", fp16(&weights)),
            ("fp32", odd(fp32(&weights[..50_000]))),
            ("noise", Random(2).bytes(100_000)),
            ("text/ü b.txt", b"all work and no play ".repeat(5000)),
        ])
    };
    let manifest = content.write(&bundle);
    let mut encodings: Vec<_> = manifest
        .chunks
        .iter()
        .map(|c| c.encoding.to_string())
        .collect();
    encodings.sort();
    encodings.dedup();
    assert_eq!(
        encodings,
        ["planes2r+zstd", "planes4r+zstd", "stored", "zstd"]
    );

    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/decode.py");
    let mut python = Command::new("python3");
    python.arg(script).arg(&bundle).arg(&out).assert().success();
    for (name, bytes) in &content.model {
        assert!(
            fs::read(out.join("data/model").join(name)).unwrap() == *bytes,
            "{name}"
        );
    }
    assert!(fs::read(out.join("opt/extra/run")).unwrap() == content.extra[0].1);
    let image = &manifest.images[0];
    for (digest, bytes) in [image.config, image.layers[0]].iter().zip(&content.image) {
        let path = out
            .join(image.config.to_string())
            .join(format!("blobs/sha256/{digest}"));
        assert!(fs::read(path).unwrap() == *bytes, "{digest}");
    }
}
