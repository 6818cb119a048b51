//! Images made by hand, as OCI layouts.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use bundle::digest::Sha256;
use serde_json::{Value, json};

use crate::weights::Random;

/// A config and its raw layers.
pub struct Picture {
    pub layers: Vec<Vec<u8>>,
    pub config: Vec<u8>,
    architecture: String,
}

/// A layer with one file of noise.
pub fn layer(name: &str, size: usize) -> Vec<u8> {
    let seed = name.bytes().map(u64::from).sum();
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(size as u64);
    header.set_mode(0o755);
    let content = Random(seed).bytes(size);
    builder
        .append_data(&mut header, name, &content[..])
        .unwrap();
    builder.into_inner().unwrap()
}

impl Picture {
    /// An image for linux.
    pub fn new(architecture: &str, layers: Vec<Vec<u8>>) -> Self {
        let ids: Vec<String> = layers
            .iter()
            .map(|layer| format!("sha256:{}", Sha256::of(layer)))
            .collect();
        let config = json!({
            "os": "linux", "architecture": architecture, "config": {},
            "rootfs": {"type": "layers", "diff_ids": ids},
        });
        Self {
            layers,
            config: config.to_string().into_bytes(),
            architecture: architecture.to_owned(),
        }
    }

    /// Writes a layout with this image alone; returns its directory.
    pub fn write(&self, dir: &Path) -> PathBuf {
        index(dir, &[self])
    }

    /// Writes config, layers and manifest; returns the manifest's descriptor.
    fn blobs(&self, dir: &Path) -> Value {
        let layers = self.layers.iter();
        let layers: Vec<Value> = layers
            .map(|layer| blob(dir, "application/vnd.oci.image.layer.v1.tar", layer))
            .collect();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": blob(dir, "application/vnd.oci.image.config.v1+json", &self.config),
            "layers": layers,
        });
        let mut entry = blob(
            dir,
            "application/vnd.oci.image.manifest.v1+json",
            manifest.to_string().as_bytes(),
        );
        entry["platform"] = json!({"os": "linux", "architecture": self.architecture});
        entry
    }
}

/// Writes a layout with some images behind one index, or one image alone.
pub fn index(dir: &Path, pictures: &[&Picture]) -> PathBuf {
    let dir = dir.join(format!("oci-{}", Sha256::of(&pictures[0].config)));
    fs::create_dir_all(dir.join("blobs/sha256")).unwrap();
    fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    let entries: Vec<Value> = pictures.iter().map(|picture| picture.blobs(&dir)).collect();
    let entry = if let [only] = &entries[..] {
        only.clone()
    } else {
        let inner = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": entries,
        });
        let inner = inner.to_string();
        blob(
            &dir,
            "application/vnd.oci.image.index.v1+json",
            inner.as_bytes(),
        )
    };
    let index = json!({"schemaVersion": 2, "manifests": [entry]});
    fs::write(dir.join("index.json"), index.to_string()).unwrap();
    dir
}

fn blob(dir: &Path, media_type: &str, bytes: &[u8]) -> Value {
    let digest = Sha256::of(bytes);
    fs::write(dir.join(format!("blobs/sha256/{digest}")), bytes).unwrap();
    json!({"mediaType": media_type, "digest": format!("sha256:{digest}"), "size": bytes.len()})
}

/// The image of a bundle, as its manifest has it.
pub fn image(out: &Path) -> Value {
    let json = fs::read(out.join("bundle.json")).unwrap();
    serde_json::from_slice::<Value>(&json).unwrap()["images"][0].take()
}

/// Whether the bundle holds this picture, and whether its bytes are right.
pub fn check(out: &Path, picture: &Picture) {
    check_layers(out, picture);
    let config = Sha256::of(&picture.config).to_string();
    assert_eq!(image(out)["config"], config);
}

/// As [`check`], for tools that write the config anew.
#[allow(dead_code, reason = "not every test has such tools")]
pub fn check_layers(out: &Path, picture: &Picture) {
    let ids: Vec<String> = picture
        .layers
        .iter()
        .map(|layer| Sha256::of(layer).to_string())
        .collect();
    assert_eq!(image(out)["layers"], json!(ids));
    let verify = Command::new(env!("CARGO_BIN_EXE_bundle"))
        .arg("verify")
        .arg(out)
        .output();
    assert!(verify.unwrap().status.success());
}
