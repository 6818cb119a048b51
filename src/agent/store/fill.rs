//! Chunks come in: each is decoded once and written to every place that still lacks it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use super::Store;
use super::targets::{Target, Use};
use crate::agent::child::lock;
use crate::bundle::codec::Decoder;
use crate::bundle::manifest::Chunk;
use crate::digest::{Hasher, Xxh3};
use crate::error::{Error, Result};

/// How far a target is.
pub struct Filling {
    /// By chunk position: whether it is there.
    pub have: Vec<bool>,
    /// Whether the whole file was hashed before and is unchanged since.
    pub proven: bool,
    /// SHA-256 of the leading chunks, as far as they came in order in this session.
    pub prefix: Hasher,
}

/// What one decoding thread needs; kept for the next chunk.
pub struct Worker {
    decoder: Decoder,
    raw: Vec<u8>,
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
    /// Takes a chunk's stored bytes, which hash to its blob name. Known chunks are ignored.
    pub fn keep(&self, index: u32, stored: &[u8]) -> Result<()> {
        let chunk = self.manifest.chunks.get(index as usize).ok_or_else(|| {
            Error::Damaged(format!(
                "chunk {index} came, which the manifest does not know"
            ))
        })?;
        let wanted = self.still_wanted(index)?;
        if wanted.is_empty() {
            return Ok(());
        }
        let mut worker = self.worker()?;
        decode(&mut worker, chunk, stored)?;
        let fillings = self.fillings.read().unwrap_or_else(PoisonError::into_inner);
        for place in wanted {
            self.write(place, &worker.raw, &fillings)?;
        }
        lock(&self.workers).push(worker);
        Ok(())
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

    fn worker(&self) -> Result<Worker> {
        let idle = lock(&self.workers).pop();
        idle.map_or_else(
            || {
                Ok(Worker {
                    decoder: Decoder::new()?,
                    raw: Vec::new(),
                })
            },
            Ok,
        )
    }

    /// Writes a chunk's raw bytes where they are lacking.
    pub(super) fn write(&self, place: Use, raw: &[u8], fillings: &[Mutex<Filling>]) -> Result<()> {
        let target = &self.targets.list[place.target];
        let (start, _) = target.span(place.position);
        File::options()
            .write(true)
            .open(&target.staged)
            .and_then(|file| file.write_all_at(raw, start))
            .map_err(|cause| cannot_write(target, cause))?;
        if let Some(filling) = fillings.get(place.target) {
            let mut filling = lock(filling);
            if filling.prefix.bytes() == start && !filling.have[place.position] {
                filling.prefix.update(raw);
            }
            filling.have[place.position] = true;
        }
        Ok(())
    }
}

fn decode(worker: &mut Worker, chunk: &Chunk, stored: &[u8]) -> Result<()> {
    let raw_len = chunk.raw as usize;
    let Worker { decoder, raw } = worker;
    decoder
        .decode(chunk.encoding, stored, raw_len, raw)
        .map_err(|error| error.at(format!("chunk {}", chunk.blob)))?;
    if Xxh3::of(raw) == chunk.xxh3 {
        return Ok(());
    }
    Err(Error::Damaged(format!(
        "chunk {} does not decode to what the manifest promises; run `bundle verify` on the bundle",
        chunk.blob
    )))
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
