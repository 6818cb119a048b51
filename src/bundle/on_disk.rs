//! Files outside of a bundle that should have the content of its files.

use std::fs;
use std::io;
use std::path::Path;

use super::CHUNK_SIZE;
use super::manifest::{Chunk, FileEntry, Manifest};
use crate::fs::read_direct;
use crate::parallel::Buffers;

/// Whether the file at a path has the content of a file of the manifest, chunk by chunk.
pub fn has_content(manifest: &Manifest, entry: &FileEntry, path: &Path) -> io::Result<bool> {
    if fs::metadata(path)?.len() != entry.size {
        return Ok(false);
    }
    let buffers = Buffers::default();
    for (number, chunk) in (0..).zip(manifest.chunks_of(entry)) {
        if !has_chunk(path, number * CHUNK_SIZE, chunk, &buffers)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether a file has a chunk's raw bytes at a place.
pub fn has_chunk(path: &Path, at: u64, chunk: &Chunk, buffers: &Buffers) -> io::Result<bool> {
    let mut raw = buffers.aligned(chunk.raw as usize);
    read_direct(path, &mut raw, at)?;
    Ok(chunk.is(&raw))
}
