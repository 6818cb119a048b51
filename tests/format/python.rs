//! A second implementation of the format, from its documentation, unpacks the same bytes.

use std::fs;
use std::path::Path;
use std::process::Command;

use assert_cmd::prelude::*;
use bundle::bundle::codec::Decoder;

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
        [
            "planes2r1+zstd",
            "planes2r4+zstd",
            "planes4r4+zstd",
            "stored",
            "zstd"
        ]
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

/// Decodes every file of a directory; the names say how: `ENCODING,RAW`.
const DECODE_ALL: &str = "
import decode, pathlib, sys
for path in pathlib.Path(sys.argv[1]).iterdir():
    encoding, raw = path.name.split(',')
    path.write_bytes(decode.decode(encoding, path.read_bytes(), int(raw)))
";

#[test]
fn the_python_decoder_and_ours_agree_on_every_layout() {
    let dir = tempfile::tempdir().unwrap();
    let mut decoder = Decoder::new().unwrap();
    let mut expected = Vec::new();
    for (width, rotate) in (0..8).flat_map(|rotate| [(2, rotate), (4, rotate)]) {
        for raw in [1, 4, 6, 1003] {
            // Any bytes are planes of something.
            let planes = Random((width * 8 + rotate) as u64).bytes(raw);
            let (mut stored, mut rest) = (Vec::new(), &planes[..]);
            for index in 0..width {
                let (plane, others) = rest.split_at((raw + width - 1 - index) / width);
                stored.extend(zstd::bulk::compress(plane, 1).unwrap());
                rest = others;
            }
            let encoding = format!("planes{width}r{rotate}+zstd");
            let mut bytes = Vec::new();
            decoder
                .decode(encoding.parse().unwrap(), &stored, raw, &mut bytes)
                .unwrap();
            let path = dir.path().join(format!("{encoding},{raw}"));
            fs::write(&path, stored).unwrap();
            expected.push((path, bytes));
        }
    }
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let mut python = Command::new("python3");
    python.args(["-B", "-c", DECODE_ALL]).arg(dir.path());
    python.env("PYTHONPATH", docs).assert().success();
    for (path, bytes) in expected {
        assert!(fs::read(&path).unwrap() == bytes, "{}", path.display());
    }
}
