//! Which files a chunk belongs to: needed only to name the damage, so it is worked out then.

use std::collections::HashMap;
use std::fmt;

use serde::Serialize;

use super::Manifest;
use crate::bundle::CHUNK_SIZE;

/// A place in a file where a chunk belongs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Owner {
    /// The model's repo, the image's reference or the extra directory.
    pub tree: String,
    /// The file below it.
    pub path: String,
    /// First byte of the chunk in the file.
    pub start: u64,
    /// One past its last byte.
    pub end: u64,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "bytes {}-{} of {} in {}",
            self.start,
            self.end.saturating_sub(1),
            self.path,
            self.tree
        )
    }
}

/// The owners of some chunks.
#[derive(Debug)]
pub struct Owners(HashMap<u32, Vec<Owner>>);

impl Owners {
    /// Finds all owners of the chunks with these indices in one pass over the files.
    #[must_use]
    pub fn of(manifest: &Manifest, chunks: impl IntoIterator<Item = u32>) -> Self {
        let mut found: HashMap<_, Vec<_>> = chunks
            .into_iter()
            .map(|index| (index, Vec::new()))
            .collect();
        for (tree, file) in manifest.files() {
            for (start, index) in (0..)
                .map(|position| position * CHUNK_SIZE)
                .zip(&file.chunks)
            {
                if let Some(owners) = found.get_mut(index) {
                    owners.push(Owner {
                        tree: tree.label().to_owned(),
                        path: file.path.to_string(),
                        start,
                        end: file.size.min(start + CHUNK_SIZE),
                    });
                }
            }
        }
        Self(found)
    }

    /// The places where a chunk belongs, in manifest order.
    #[must_use]
    pub fn get(&self, chunk: u32) -> &[Owner] {
        self.0.get(&chunk).map_or(&[], Vec::as_slice)
    }
}
