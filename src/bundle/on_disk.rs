//! Files outside of a bundle that should have the content of its files.

use std::fs::File;
use std::io;
use std::path::Path;

use super::CHUNK_SIZE;
use super::manifest::{FileEntry, Manifest};
use crate::digest::Blake3;

/// Whether the file at a path has the content of a file of the manifest, chunk by chunk.
pub fn has_content(manifest: &Manifest, entry: &FileEntry, path: &Path) -> io::Result<bool> {
    let file = File::open(path)?;
    if file.metadata()?.len() != entry.size {
        return Ok(false);
    }
    for (number, chunk) in (0..).zip(manifest.chunks_of(entry)) {
        if Blake3::of_range(&file, number * CHUNK_SIZE, chunk.raw.into())? != chunk.blake3 {
            return Ok(false);
        }
    }
    Ok(true)
}
