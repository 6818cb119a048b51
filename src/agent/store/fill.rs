//! Chunks come in: each is decoded once and written to every place that still lacks it.

use std::io;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use super::Store;
use super::state::Stamp;
use super::targets::{Target, Use};
use crate::agent::child::lock;
use crate::bundle::codec::Decoder;
use crate::bundle::manifest::Chunk;
use crate::digest::Sha256;
use crate::error::{Error, Result};
use crate::fs::write_direct;
use crate::parallel::Aligned;
use crate::relay::Put;

/// How far a target is.
pub struct Filling {
    /// By chunk position: whether it is there, which its BLAKE3 said.
    pub have: Vec<bool>,
    /// How the file looked when it was hashed, if that found it whole: nothing is written to it.
    pub stamp: Option<Stamp>,
}

impl Store {
    /// Takes a chunk's stored bytes, at any time and on any thread. [`Error::Damaged`] when they
    /// are what the manifest names, but do not decode to what it promises.
    ///
    /// The raw bytes are hashed, and the stored ones only to say what is wrong: a file is its
    /// chunks, so nothing else needs to be hashed.
    pub fn keep(&self, index: u32, stored: &[u8]) -> Result<Put> {
        let chunk = self.manifest.chunks.get(index as usize).ok_or_else(|| {
            Error::Damaged(format!(
                "chunk {index} came, which the manifest does not know"
            ))
        })?;
        let wanted = self.still_wanted(index)?;
        if wanted.is_empty() {
            return Ok(Put::Kept);
        }
        let decoded = match self.decode(chunk, stored) {
            Err(Error::Damaged(_)) if Sha256::of(stored) != chunk.blob => return Ok(Put::Changed),
            Err(Error::Damaged(_)) => {
                return Err(Error::Damaged(format!(
                    "chunk {} does not decode to what the manifest promises; run `bundle verify` on the bundle",
                    chunk.blob
                )));
            }
            decoded => decoded?,
        };
        let raw = decoded.as_deref().unwrap_or(stored);
        let fillings = self.fillings.read().unwrap_or_else(PoisonError::into_inner);
        for place in wanted {
            self.write(place, raw, &fillings)?;
        }
        Ok(Put::Kept)
    }

    /// With one of the decoders that are idle.
    fn decode(&self, chunk: &Chunk, stored: &[u8]) -> Result<Option<Aligned>> {
        let idle = lock(&self.decoders).pop();
        let mut decoder = idle.map_or_else(Decoder::new, Ok)?;
        let raw = decoder.decode_chunk(chunk, stored, &self.buffers);
        lock(&self.decoders).push(decoder);
        raw
    }

    fn still_wanted(&self, index: u32) -> Result<Vec<Use>> {
        let fillings = self.fillings.read().unwrap_or_else(PoisonError::into_inner);
        if fillings.is_empty() && !self.in_place {
            return Err(Error::Failed(
                "a chunk came before the node's inventory was taken".into(),
            ));
        }
        Ok(self.lacking(index as usize, &fillings))
    }

    /// The places that still lack a chunk.
    pub(super) fn lacking(&self, index: usize, fillings: &[Mutex<Filling>]) -> Vec<Use> {
        let lacks = |place: &&Use| {
            fillings
                .get(place.target)
                .is_some_and(|filling| !lock(filling).have[place.position])
        };
        let uses = self.targets.uses[index].iter();
        uses.filter(lacks).copied().collect()
    }

    /// Writes a chunk's raw bytes where they are lacking.
    pub(super) fn write(&self, place: Use, raw: &[u8], fillings: &[Mutex<Filling>]) -> Result<()> {
        let target = &self.targets.list[place.target];
        let (start, _) = target.span(place.position);
        write_direct(&target.staged, raw, start).map_err(|cause| cannot_write(target, cause))?;
        if let Some(filling) = fillings.get(place.target) {
            lock(filling).have[place.position] = true;
        }
        Ok(())
    }
}

/// A failed write to a target, with what to do when the disk is full.
pub fn cannot_write(target: &Target, cause: io::Error) -> Error {
    match cause.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => full(&target.published, ""),
        _ => Error::io("write", &target.staged)(cause),
    }
}

/// The filesystem that holds `path` is full; `details` may say more about it.
pub fn full(path: &Path, details: &str) -> Error {
    Error::NoSpace(format!(
        "no space left for {}{details}; free some on its filesystem and run the same command again: what is installed was not touched",
        path.display()
    ))
}
