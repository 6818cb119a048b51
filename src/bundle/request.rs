//! The small file that asks for lost chunks: the far side writes it, and it is carried out to where
//! the bundle was packed.

use std::collections::HashMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::media::Media;
use crate::digest::Sha256;
use crate::error::{Error, Result};
use crate::fs::read_limited;

/// The requests that this executable writes and reads.
const FORMAT: u32 = 1;

/// A request for all chunks of 200 TB is below this.
const MAX_REQUEST: u64 = 1 << 30;

/// What a bundle lacks on the far side.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Always 1.
    #[serde(rename = "request")]
    format: u32,
    /// The bundle's name, for people.
    bundle: String,
    /// SHA-256 of its `bundle.json`, for people.
    manifest: Sha256,
    /// The stored bytes that are lacking.
    blobs: Vec<Sha256>,
}

/// A request, and what the bundle at hand has of it.
pub struct Asked {
    /// What its fill volumes are called before the number.
    pub volumes: String,
    /// The chunks of the bundle at hand, ascending.
    pub chunks: Vec<u32>,
}

impl Request {
    /// A request for these chunks.
    #[must_use]
    pub fn new(media: &Media, chunks: &[u32]) -> Self {
        let listed = |&index: &u32| Some(media.manifest().chunks.get(index as usize)?.blob);
        Self {
            format: FORMAT,
            bundle: media.manifest().name.to_string(),
            manifest: Sha256::of(media.manifest_bytes()),
            blobs: chunks.iter().filter_map(listed).collect(),
        }
    }

    /// The bytes of its file.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let fail = |cause| Error::Failed(format!("cannot write the request: {cause}"));
        let mut bytes = serde_json::to_vec(self).map_err(fail)?;
        bytes.push(b'\n');
        Ok(bytes)
    }
}

/// Reads a request and finds its chunks in the bundle at hand. That need not be the same bundle:
/// stored bytes are what their hash says, wherever they stand.
pub fn read(path: &Path, media: &Media) -> Result<Asked> {
    let bytes = read_limited(path, MAX_REQUEST)?;
    let bad = |what: &str| Error::Usage(format!("{}: {what}", path.display()));
    let request: Request = serde_json::from_slice(&bytes)
        .map_err(|_| bad("this is no request of `bundle verify --request`"))?;
    if request.format != FORMAT {
        return Err(bad("this request needs another version of bundle"));
    }
    let known = (0..).zip(&media.manifest().chunks);
    let known: HashMap<Sha256, u32> = known.map(|(index, chunk)| (chunk.blob, index)).collect();
    let found = request.blobs.iter().filter_map(|blob| known.get(blob));
    let mut chunks: Vec<u32> = found.copied().collect();
    if chunks.is_empty() || chunks.len() < request.blobs.len() {
        return Err(bad(&format!(
            "{} has {} of the {} chunks that are asked for; they are those of bundle {}, whose bundle.json has \
             the SHA-256 {}: name its directory, or pack it again",
            media.dir().display(),
            chunks.len(),
            request.blobs.len(),
            request.bundle,
            request.manifest
        )));
    }
    chunks.sort_unstable();
    chunks.dedup();
    let id = Sha256::of(&bytes).to_string();
    Ok(Asked {
        volumes: format!("fill-{}", &id[..12]),
        chunks,
    })
}
