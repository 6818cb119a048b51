//! The bundle that the far side has already: what of it need not travel again.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use crate::bundle::MANIFEST_NAME;
use crate::bundle::manifest::{Chunk, FileEntry, LayerFacts, Manifest, Reference};
use crate::digest::Sha256;
use crate::error::{Error, Result};

/// A bundle of before, by what is in it.
pub struct Base {
    /// How the new manifest names it.
    pub reference: Reference,
    manifest: Manifest,
    chunks: HashMap<Sha256, usize>,
    files: HashMap<Sha256, FileEntry>,
    layers: HashMap<Sha256, LayerFacts>,
}

/// A file that the base holds.
#[derive(Clone, Debug)]
pub struct BaseFile {
    /// Bytes.
    pub size: u64,
    /// Of the whole file.
    pub sha256: Sha256,
    /// Its chunks, as a manifest that builds on the base has them.
    pub chunks: Vec<Chunk>,
}

impl Base {
    /// Reads a base's `bundle.json`, or that of its directory. Its volumes are not needed.
    pub fn read(path: &Path) -> Result<Self> {
        let path = if path.is_dir() {
            path.join(MANIFEST_NAME)
        } else {
            path.to_owned()
        };
        let bytes = fs::read(&path).map_err(Error::io("read", &path))?;
        let manifest = Manifest::parse(&bytes).map_err(|error| error.at(path.display()))?;
        Ok(Self::of(manifest, Sha256::of(&bytes)))
    }

    /// A base with this manifest, whose bytes have this digest.
    #[must_use]
    pub fn of(manifest: Manifest, sha256: Sha256) -> Self {
        let chunks = manifest.chunks.iter().enumerate();
        let files = manifest
            .files()
            .map(|(_, file)| (file.sha256, file.clone()));
        let layers = manifest.images.iter().flat_map(|image| {
            let facts = image.layers.iter().zip(&image.layer_facts);
            facts.map(|(layer, facts)| (*layer, facts.clone()))
        });
        Self {
            reference: Reference {
                name: manifest.name.clone(),
                serial: manifest.serial,
                sha256,
            },
            chunks: chunks.map(|(index, chunk)| (chunk.blob, index)).collect(),
            files: files.collect(),
            layers: layers.collect(),
            manifest,
        }
    }

    /// The chunk with these stored bytes.
    #[must_use]
    pub fn chunk(&self, blob: Sha256) -> Option<Chunk> {
        let index = *self.chunks.get(&blob)?;
        Some(self.manifest.chunks[index].in_base())
    }

    /// The file with this content.
    #[must_use]
    pub fn file(&self, sha256: Sha256) -> Option<BaseFile> {
        let file = self.files.get(&sha256)?;
        let chunks = file.chunks.iter();
        let chunks = chunks.map(|&index| self.manifest.chunks[index as usize].in_base());
        Some(BaseFile {
            size: file.size,
            sha256,
            chunks: chunks.collect(),
        })
    }

    /// What was seen in a layer, if the base holds it.
    #[must_use]
    pub fn layer(&self, diff_id: Sha256) -> Option<&LayerFacts> {
        self.layers.get(&diff_id)
    }

    /// Whether any file has this size, so that a local one may be the same.
    #[must_use]
    pub fn has_size(&self, size: u64) -> bool {
        self.files.values().any(|file| file.size == size)
    }
}
