//! The one archive that every runtime loads: an OCI layout with uncompressed layers that is a
//! docker archive at the same time. Tried with Docker 20.10, podman 4.3 and containerd 1.6;
//! compressed layers, or an OCI layout alone, fail on Docker 20.10.

use std::io::{self, Read, Write};

use serde_json::{Value, json};

use crate::bundle::manifest::{FileEntry, Image};
use crate::digest::Sha256;
use crate::error::{Error, Result};

/// Media type of a layer that is not compressed.
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// Media type of an image's config.
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// Media type of an OCI manifest.
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Writes the archive of an image; `open` opens one of its blobs. Deterministic. The error of
/// `out` comes back as it is, so that the caller can say who stopped reading.
pub fn write_archive<R: Read>(
    image: &Image,
    mut open: impl FnMut(&FileEntry) -> Result<R>,
    out: impl Write,
) -> Result<()> {
    let manifest = oci_manifest(image)?.to_string().into_bytes();
    let index = index(image, &manifest).to_string().into_bytes();
    let docker = docker_manifest(image).to_string().into_bytes();
    let mut tar = tar::Builder::new(out);
    append(
        &mut tar,
        "oci-layout",
        30,
        &br#"{"imageLayoutVersion":"1.0.0"}"#[..],
    )?;
    append(&mut tar, "index.json", index.len() as u64, &index[..])?;
    append(&mut tar, "manifest.json", docker.len() as u64, &docker[..])?;
    append(
        &mut tar,
        &blob_path(Sha256::of(&manifest)),
        manifest.len() as u64,
        &manifest[..],
    )?;
    for file in &image.files {
        append(&mut tar, file.path.as_str(), file.size, open(file)?)?;
    }
    tar.finish().map_err(|cause| unwritable(&cause))
}

/// Digest of the OCI manifest in the archive: what the containerd image store calls the image.
pub fn manifest_digest(image: &Image) -> Result<Sha256> {
    Ok(Sha256::of(oci_manifest(image)?.to_string().as_bytes()))
}

/// Where a blob stands in the archive, and in a bundle's image tree.
#[must_use]
pub fn blob_path(digest: Sha256) -> String {
    format!("blobs/sha256/{digest}")
}

fn append(
    tar: &mut tar::Builder<impl Write>,
    name: &str,
    size: u64,
    content: impl Read,
) -> Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_size(size);
    header.set_mode(0o644);
    header.set_mtime(0);
    tar.append_data(&mut header, name, content)
        .map_err(|cause| unwritable(&cause))
}

fn oci_manifest(image: &Image) -> Result<Value> {
    let layers: Vec<Value> = image
        .layers
        .iter()
        .map(|layer| Ok(descriptor(LAYER, *layer, size_of(image, *layer)?)))
        .collect::<Result<_>>()?;
    Ok(json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor(CONFIG, image.config, size_of(image, image.config)?),
        "layers": layers,
    }))
}

fn index(image: &Image, manifest: &[u8]) -> Value {
    let mut entry = descriptor(MANIFEST, Sha256::of(manifest), manifest.len() as u64);
    entry["annotations"] = json!({
        "io.containerd.image.name": super::layout::normal(&image.reference),
        "org.opencontainers.image.ref.name": image.reference,
    });
    json!({"schemaVersion": 2, "manifests": [entry]})
}

fn docker_manifest(image: &Image) -> Value {
    let layers: Vec<String> = image.layers.iter().map(|layer| blob_path(*layer)).collect();
    json!([{"Config": blob_path(image.config), "RepoTags": [image.reference], "Layers": layers}])
}

fn descriptor(media_type: &str, digest: Sha256, size: u64) -> Value {
    json!({"mediaType": media_type, "digest": format!("sha256:{digest}"), "size": size})
}

fn size_of(image: &Image, digest: Sha256) -> Result<u64> {
    let file = image.files.iter().find(|file| file.sha256 == digest);
    file.map(|file| file.size).ok_or_else(|| {
        Error::Damaged(format!(
            "the bundle lacks a part of image {}: {digest}",
            image.reference
        ))
    })
}

fn unwritable(cause: &io::Error) -> Error {
    Error::Failed(format!("cannot write the image archive: {cause}"))
}
