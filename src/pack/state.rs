//! What is packed so far: the state that a journal's lines add up to.

use serde::{Deserialize, Serialize};

use super::journal::Line;
use super::tree::TreeId;
use crate::bundle::manifest::{Chunk, FileEntry, LayerFacts, Volume};
use crate::error::{Error, Result};
use crate::image::Point;
use crate::path::RelPath;

/// Everything that is packed, in the order in which it was.
#[derive(Debug, Default)]
pub struct State {
    /// Distinct chunks.
    pub chunks: Vec<Chunk>,
    /// Files that are complete.
    pub files: Vec<PackedFile>,
    /// The file at hand.
    pub open: Option<OpenFile>,
    /// Volumes that are complete.
    pub volumes: Vec<Volume>,
}

/// A file that is complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackedFile {
    /// What it belongs to.
    pub tree: TreeId,
    /// As it goes into the manifest.
    pub entry: FileEntry,
    /// What was seen inside, of an image's layer.
    pub facts: Option<LayerFacts>,
}

/// A file that is not complete yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenFile {
    /// What it belongs to.
    pub tree: TreeId,
    /// Its path below the tree.
    pub path: RelPath,
    /// Indices of its chunks so far.
    pub chunks: Vec<u32>,
    /// Where it can be gone on with, when it is an image's layer.
    pub point: Option<Point>,
}

impl State {
    /// Applies a line of the journal.
    pub fn apply(&mut self, line: Line) -> Result<()> {
        match line {
            Line::Start(_) => return Err(nonsense("begins twice")),
            Line::Begin { tree, path, .. } => {
                let file = OpenFile {
                    tree,
                    path,
                    chunks: Vec::new(),
                    point: None,
                };
                if self.open.replace(file).is_some() {
                    return Err(nonsense("begins a file inside a file"));
                }
            }
            Line::Chunk(chunk) => {
                let index = count(self.chunks.len())?;
                self.open_file()?.chunks.push(index);
                self.chunks.push(chunk);
            }
            Line::Again { chunk } if (chunk as usize) < self.chunks.len() => {
                self.open_file()?.chunks.push(chunk);
            }
            Line::Again { .. } => return Err(nonsense("repeats a chunk that is not there")),
            Line::Point(point) => self.open_file()?.point = Some(point),
            Line::End {
                size,
                sha256,
                facts,
            } => {
                let file = self.open.take().ok_or_else(|| nonsense("ends no file"))?;
                self.files.push(PackedFile {
                    tree: file.tree,
                    entry: FileEntry {
                        path: file.path,
                        size,
                        sha256,
                        chunks: file.chunks,
                    },
                    facts,
                });
            }
            Line::Closed(volume) => self.volumes.push(volume),
        }
        Ok(())
    }

    /// Raw bytes of all files so far.
    #[must_use]
    pub fn raw(&self) -> u64 {
        let complete: u64 = self.files.iter().map(|file| file.entry.size).sum();
        let open = self.open.iter().flat_map(|file| &file.chunks);
        complete
            + open
                .map(|&chunk| u64::from(self.chunks[chunk as usize].raw))
                .sum::<u64>()
    }

    /// Raw bytes of the distinct chunks that are in the volumes.
    #[must_use]
    pub fn raw_in_volumes(&self) -> u64 {
        let chunks = self.stored_chunks();
        chunks.map(|chunk| u64::from(chunk.raw)).sum()
    }

    /// Bytes of the distinct chunks that are in the volumes.
    #[must_use]
    pub fn stored(&self) -> u64 {
        let chunks = self.stored_chunks();
        chunks.map(|chunk| u64::from(chunk.stored)).sum()
    }

    /// The distinct chunks that are in the volumes, in order.
    pub fn stored_chunks(&self) -> impl Iterator<Item = &Chunk> {
        self.chunks.iter().filter(|chunk| !chunk.is_in_base())
    }

    fn open_file(&mut self) -> Result<&mut OpenFile> {
        self.open
            .as_mut()
            .ok_or_else(|| nonsense("has a chunk outside of a file"))
    }
}

/// Chunks are counted in 32 bits: 64 PiB.
fn count(chunks: usize) -> Result<u32> {
    u32::try_from(chunks).map_err(|_| Error::Usage("a bundle holds at most 2^32 chunks".into()))
}

/// The journal contradicts itself.
pub fn nonsense(what: &str) -> Error {
    Error::Damaged(format!(
        "the journal of this pack {what}; start over with --fresh"
    ))
}
