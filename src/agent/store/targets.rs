//! The files that a manifest wants on a node, and which chunk goes where.

use std::collections::HashSet;
use std::path::PathBuf;

use super::home::{Home, Slot};
use crate::bundle::CHUNK_SIZE;
use crate::bundle::manifest::{FileEntry, Manifest};
use crate::error::{Error, Result};
use crate::path::AbsPath;

/// A file to have.
pub struct Target {
    /// Where it will be seen from outside; also how messages call it.
    pub published: PathBuf,
    /// Where it is put together.
    pub staged: PathBuf,
    /// Whether it is an image blob, named by its content, or stands in a model's directory.
    pub is_blob: bool,
    /// Size, digest and chunks.
    pub entry: FileEntry,
}

/// Where a chunk's raw bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Use {
    /// Index of the target.
    pub target: usize,
    /// Which of its chunks.
    pub position: usize,
}

/// All files, and the uses of each chunk.
pub struct Targets {
    /// In the order of the manifest.
    pub list: Vec<Target>,
    /// By chunk index.
    pub uses: Vec<Vec<Use>>,
    /// The models' directories.
    pub roots: Vec<AbsPath>,
}

impl Target {
    /// Byte range of one of its chunks.
    pub fn span(&self, position: usize) -> (u64, u64) {
        let start = position as u64 * CHUNK_SIZE;
        (start, CHUNK_SIZE.min(self.entry.size.saturating_sub(start)))
    }
}

impl Targets {
    /// What a manifest wants. A blob that several images share is one target.
    pub fn of(manifest: &Manifest, home: &Home) -> Result<Self> {
        let mut list = Vec::new();
        for model in &manifest.models {
            let (place, staging) = (
                home.place(&model.path),
                home.slot(&model.path, Slot::Staging),
            );
            list.extend(model.files.iter().map(|entry| Target {
                published: entry.path.under(&place),
                staged: entry.path.under(&staging),
                is_blob: false,
                entry: entry.clone(),
            }));
        }
        let mut blobs = HashSet::new();
        for entry in manifest.images.iter().flat_map(|image| &image.files) {
            if blobs.insert(entry.sha256) {
                list.push(Target {
                    published: home.blob(entry.sha256),
                    staged: home.staged_blobs().join(entry.sha256.to_string()),
                    is_blob: true,
                    entry: entry.clone(),
                });
            }
        }
        let uses = uses_of(&list, manifest.chunks.len())?;
        let roots = manifest.models.iter().map(|model| model.path.clone());
        Ok(Self {
            list,
            uses,
            roots: roots.collect(),
        })
    }
}

fn uses_of(list: &[Target], chunks: usize) -> Result<Vec<Vec<Use>>> {
    let mut uses = vec![Vec::new(); chunks];
    for (target, file) in list.iter().enumerate() {
        for (position, &chunk) in file.entry.chunks.iter().enumerate() {
            uses.get_mut(chunk as usize)
                .ok_or_else(|| Error::Damaged(format!("chunk {chunk} does not exist")))?
                .push(Use { target, position });
        }
    }
    Ok(uses)
}
