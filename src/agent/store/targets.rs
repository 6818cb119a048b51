//! The files that a manifest wants on a node, and which chunk goes where.

use std::collections::HashSet;
use std::path::PathBuf;

use super::home::{Home, Slot};
use crate::bundle::CHUNK_SIZE;
use crate::bundle::manifest::{FileEntry, Manifest, Tree};
use crate::digest::Blake3;
use crate::error::{Error, Result};
use crate::path::AbsPath;

/// A file to have.
pub struct Target {
    /// Where it will be seen from outside; also how messages call it.
    pub published: PathBuf,
    /// Where it is put together.
    pub staged: PathBuf,
    /// What it is a part of.
    pub kind: Kind,
    /// Size, digest and chunks.
    pub entry: FileEntry,
    /// See [`Manifest::content`].
    pub content: Blake3,
}

/// What a target is a part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A model's directory.
    Model,
    /// Images: it is named by its content.
    Blob,
    /// An extra directory.
    Extra {
        /// Whether it may be executed.
        executable: bool,
    },
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
    /// The directories of models and extras.
    pub roots: Vec<AbsPath>,
}

impl Target {
    /// Whether it is an image blob.
    pub fn is_blob(&self) -> bool {
        self.kind == Kind::Blob
    }

    /// Its permission bits.
    pub fn mode(&self) -> u32 {
        match self.kind {
            Kind::Extra { executable: true } => 0o755,
            _ => 0o644,
        }
    }

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
        let mut blobs = HashSet::new();
        for (tree, entry) in manifest.files() {
            if tree.path().is_some() || blobs.insert(entry.sha256) {
                list.push(target(manifest, tree, entry, home));
            }
        }
        let uses = uses_of(&list, manifest.chunks.len())?;
        Ok(Self {
            list,
            uses,
            roots: manifest.roots().cloned().collect(),
        })
    }
}

fn target(manifest: &Manifest, tree: Tree<'_>, entry: &FileEntry, home: &Home) -> Target {
    let (published, staged) = match tree.path() {
        Some(root) => (
            entry.path.under(&home.place(root)),
            entry.path.under(&home.slot(root, Slot::Staging)),
        ),
        None => (
            home.blob(entry.sha256),
            home.staged_blobs().join(entry.sha256.to_string()),
        ),
    };
    let kind = match tree {
        Tree::Model(_) => Kind::Model,
        Tree::Image(_) => Kind::Blob,
        Tree::Extra(_) => Kind::Extra {
            executable: tree.is_executable(&entry.path),
        },
    };
    Target {
        published,
        staged,
        kind,
        content: manifest.content(entry),
        entry: entry.clone(),
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
