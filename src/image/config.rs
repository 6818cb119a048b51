//! An image's config, which is its identity: it names the layers and the platform.

use serde_json::Value;

use super::archive::ImageWish;
use super::facts::combine;
use super::layout::platform_of;
use crate::bundle::manifest::{Image, LayerFacts};
use crate::digest::Sha256;
use crate::error::{Error, Result};

/// A config for the wished platform.
pub struct Config {
    /// Its digest.
    pub id: Sha256,
    /// Digests of the uncompressed layers, lowest first.
    pub diff_ids: Vec<Sha256>,
    platform: String,
    value: Value,
}

impl Config {
    /// Reads a config; refuses one for another platform than the wished one.
    pub fn read(bytes: &[u8], wished: &str) -> Result<Self> {
        let value: Value = serde_json::from_slice(bytes)
            .map_err(|error| Error::Damaged(format!("the image's config is damaged: {error}")))?;
        let platform = platform_of(&value).unwrap_or_default();
        if platform != wished {
            return Err(Error::Usage(format!(
                "the image is for {platform}, the spec wants {wished}; correct platform in [image] or pack another image"
            )));
        }
        Ok(Self {
            id: Sha256::of(bytes),
            diff_ids: diff_ids(&value)?,
            platform,
            value,
        })
    }

    /// The image as the manifest lists it, without its files.
    pub fn image(
        self,
        wish: &ImageWish,
        layer_facts: Vec<LayerFacts>,
        registry_digest: Option<String>,
    ) -> Image {
        Image {
            reference: wish.reference.clone(),
            platform: self.platform,
            config: self.id,
            layers: self.diff_ids,
            registry_digest,
            facts: combine(&layer_facts, &self.value),
            layer_facts,
            files: Vec::new(),
        }
    }
}

fn diff_ids(config: &Value) -> Result<Vec<Sha256>> {
    let listed = config["rootfs"]["diff_ids"].as_array();
    let listed = listed.ok_or_else(|| {
        Error::Damaged("the image's config lists no layers (rootfs.diff_ids)".into())
    })?;
    listed
        .iter()
        .map(|id| {
            let id = id.as_str().unwrap_or_default();
            id.strip_prefix("sha256:")
                .unwrap_or(id)
                .parse()
                .map_err(|_| {
                    Error::Damaged(format!(
                        "the image's config names a layer {id:?}, which is no digest"
                    ))
                })
        })
        .collect()
}
