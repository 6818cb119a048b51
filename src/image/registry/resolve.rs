//! From a name to what it means now: a config and its layers.

use std::sync::Mutex;

use oci_spec::image::{Descriptor, ImageIndex, ImageManifest};
use serde::de::DeserializeOwned;

use super::client::{Blob, Client};
use crate::digest::Sha256;
use crate::error::{Error, Result};
use crate::image::config::Config;
use crate::image::layout::of_platform;

/// What a reference means.
pub struct Resolved {
    /// Digest of the manifest, or of the index that led to it.
    pub digest: String,
    /// The config's bytes.
    pub config_bytes: Vec<u8>,
    /// The config.
    pub config: Config,
    /// The layers as the registry has them, lowest first, as many as the config names.
    pub layers: Vec<Blob>,
}

/// Asks what a tag or digest means for a platform.
pub fn resolve(client: &Client, reference: &str, platform: &str) -> Result<Resolved> {
    let (bytes, digest) = client.manifest(reference)?;
    let at = |error: Error| error.at(client.endpoint());
    let manifest = match choose(&bytes, platform).map_err(at)? {
        None => bytes,
        Some(entry) => {
            client
                .manifest(&format!("sha256:{}", sha256_of(&entry).map_err(at)?))?
                .0
        }
    };
    let manifest: ImageManifest = read(&manifest).map_err(at)?;
    let config_bytes = client.small_blob(&blob(manifest.config()).map_err(at)?)?;
    let config = Config::read(&config_bytes, platform).map_err(at)?;
    let layers: Vec<Blob> = manifest
        .layers()
        .iter()
        .map(blob)
        .collect::<Result<_>>()
        .map_err(at)?;
    if layers.len() != config.diff_ids.len() {
        return Err(at(Error::Damaged(format!(
            "the image's config names {} layers, its manifest {}",
            config.diff_ids.len(),
            layers.len()
        ))));
    }
    Ok(Resolved {
        digest: format!("sha256:{digest}"),
        config_bytes,
        config,
        layers,
    })
}

/// The entry of an index for the platform; none when these are the bytes of a manifest.
fn choose(bytes: &[u8], platform: &str) -> Result<Option<Descriptor>> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Form {
        schema_version: u32,
        manifests: Option<serde::de::IgnoredAny>,
    }
    let form: Form = read(bytes)?;
    if form.schema_version != 2 {
        return Err(Error::Failed(format!(
            "the image has a manifest of version {}, which no registry takes any more; push it again",
            form.schema_version
        )));
    }
    if form.manifests.is_none() {
        return Ok(None);
    }
    let index: ImageIndex = read(bytes)?;
    let fitting = of_platform(&index, platform)?;
    Ok(fitting.first().map(|entry| (*entry).clone()))
}

fn blob(descriptor: &Descriptor) -> Result<Blob> {
    Ok(Blob {
        digest: sha256_of(descriptor)?,
        size: descriptor.size(),
        direct: Mutex::default(),
    })
}

fn sha256_of(descriptor: &Descriptor) -> Result<Sha256> {
    let hex = descriptor.as_digest_sha256();
    hex.and_then(|hex| hex.parse().ok()).ok_or_else(|| {
        let digest = descriptor.digest();
        Error::Failed(format!("the image names {digest}, which is no SHA-256"))
    })
}

fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| {
        Error::Failed(format!(
            "it sent something that is no manifest of an image: {error}"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attestations_and_other_platforms_are_passed_over() {
        let entry = |digit: &str, os: &str, architecture: &str| {
            format!(
                r#"{{"mediaType":"application/vnd.oci.image.manifest.v1+json","size":1,
                    "digest":"sha256:{}","platform":{{"os":"{os}","architecture":"{architecture}"}}}}"#,
                digit.repeat(64)
            )
        };
        let index = format!(
            r#"{{"schemaVersion":2,"manifests":[{},{},{}]}}"#,
            entry("a", "unknown", "unknown"),
            entry("b", "linux", "arm64"),
            entry("c", "linux", "amd64")
        );
        let chosen = choose(index.as_bytes(), "linux/amd64").unwrap().unwrap();
        assert_eq!(sha256_of(&chosen).unwrap().to_string(), "c".repeat(64));
        let error = choose(index.as_bytes(), "linux/s390x").unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(
            error
                .to_string()
                .contains("it is for linux/arm64, linux/amd64"),
            "{error}"
        );
    }

    #[test]
    fn manifests_are_told_from_indices_and_old_ones_refused() {
        assert!(
            choose(br#"{"schemaVersion":2,"layers":[]}"#, "")
                .unwrap()
                .is_none()
        );
        let old = choose(br#"{"schemaVersion":1,"fsLayers":[]}"#, "").unwrap_err();
        assert!(old.to_string().contains("push it again"), "{old}");
        for bad in ["", "<html>", "[]", "{}"] {
            let error = choose(bad.as_bytes(), "").err();
            assert!(error.unwrap().to_string().contains("no manifest"), "{bad}");
        }
    }
}
