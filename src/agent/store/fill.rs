//! Chunks come in: each is decoded once and written to every place that still lacks it.

use std::io;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use super::Store;
use super::targets::{Target, Use};
use crate::agent::child::lock;
use crate::bundle::codec::Decoder;
use crate::bundle::manifest::{Chunk, Encoding};
use crate::digest::{Hasher, Sha256, Xxh3};
use crate::error::{Error, Result};
use crate::fs::write_direct;
use crate::parallel::Aligned;
use crate::relay::Put;

/// How far a target is.
pub struct Filling {
    /// By chunk position: whether it is there.
    pub have: Vec<bool>,
    /// Whether the whole file was hashed before and is unchanged since.
    pub proven: bool,
    /// SHA-256 of the leading chunks, as far as they came in order in this session.
    pub prefix: Hasher,
}

impl Filling {
    /// With these chunks there and nothing hashed.
    pub fn new(have: Vec<bool>, proven: bool) -> Self {
        Self {
            have,
            proven,
            prefix: Hasher::default(),
        }
    }
}

impl Store {
    /// Takes a chunk's stored bytes. [`Error::Damaged`] when they are what the manifest names, but
    /// do not decode to what it promises.
    ///
    /// The fast check of the raw bytes is enough for one chunk: its file counts only by its
    /// SHA-256, and hashing twice would be the most expensive thing that a node does.
    pub fn keep(&self, index: u32, stored: Aligned) -> Result<Put> {
        let chunk = self.manifest.chunks.get(index as usize).ok_or_else(|| {
            Error::Damaged(format!(
                "chunk {index} came, which the manifest does not know"
            ))
        })?;
        let wanted = self.still_wanted(index)?;
        if wanted.is_empty() {
            return Ok(Put::Known);
        }
        let raw = match self.decode(chunk, stored)? {
            Ok(raw) => raw,
            Err(stored) if Sha256::of(&stored) != chunk.blob => return Ok(Put::Changed),
            Err(_) => {
                return Err(Error::Damaged(format!(
                    "chunk {} does not decode to what the manifest promises; run `bundle verify` on the bundle",
                    chunk.blob
                )));
            }
        };
        let fillings = self.fillings.read().unwrap_or_else(PoisonError::into_inner);
        for place in wanted {
            self.write(place, &raw, &fillings)?;
        }
        Ok(Put::Kept(raw))
    }

    /// A chunk's raw bytes; the stored ones again when they are not those of the manifest.
    fn decode(
        &self,
        chunk: &Chunk,
        stored: Aligned,
    ) -> Result<std::result::Result<Aligned, Aligned>> {
        if chunk.encoding == Encoding::Stored {
            let is_it = stored.len() == chunk.raw as usize && Xxh3::of(&stored) == chunk.xxh3;
            return Ok(if is_it { Ok(stored) } else { Err(stored) });
        }
        let idle = lock(&self.decoders).pop();
        let mut decoder = idle.map_or_else(Decoder::new, Ok)?;
        let mut raw = self.buffers.aligned(chunk.raw as usize);
        let outcome = decoder.decode_into(chunk.encoding, &stored, &mut raw);
        lock(&self.decoders).push(decoder);
        let is_it = outcome.is_ok() && Xxh3::of(&raw) == chunk.xxh3;
        Ok(if is_it { Ok(raw) } else { Err(stored) })
    }

    /// Goes on with the SHA-256 of the files that a chunk belongs to, as long as chunks come in
    /// order. Whatever was not hashed here is read again to seal the store.
    pub fn hash(&self, index: u32, raw: &[u8]) {
        let fillings = self.fillings.read().unwrap_or_else(PoisonError::into_inner);
        for place in self.targets.uses.get(index as usize).into_iter().flatten() {
            let (start, _) = self.targets.list[place.target].span(place.position);
            let Some(filling) = fillings.get(place.target) else {
                continue;
            };
            // Not under the lock, which those who write need.
            let mut prefix = std::mem::take(&mut lock(filling).prefix);
            if prefix.bytes() == start {
                prefix.update(raw);
            }
            lock(filling).prefix = prefix;
        }
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
