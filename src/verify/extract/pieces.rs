//! Chunks of the files to unpack, one after the other, and the work on one of them.

use std::fs::File;

use super::targets::Target;
use crate::bundle::CHUNK_SIZE;
use crate::bundle::codec::Decoder;
use crate::bundle::media::Media;
use crate::error::{Error, Result};
use crate::fs::{create_dir_all, write_direct};
use crate::parallel::{Aligned, Buffers};

/// A chunk of a file that is being unpacked; an empty file has one without a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Index of the file among the targets.
    pub target: usize,
    /// Which of its chunks.
    pub position: usize,
    /// Whether the file ends with it.
    pub last: bool,
}

/// A piece after the work.
pub struct Decoded {
    /// Which one.
    pub piece: Piece,
    /// How many raw bytes were written; or why they cannot be had.
    pub raw: Result<u64>,
}

/// All pieces in the order of the files.
pub fn pieces(targets: &[Target<'_>]) -> impl Iterator<Item = Piece> {
    targets.iter().enumerate().flat_map(|(target, item)| {
        let count = item.file.chunks.len().max(1);
        (0..count).map(move |position| Piece {
            target,
            position,
            last: position + 1 == count,
        })
    })
}

/// Creates the file of each first piece. Called in order, before any work on the piece.
pub fn prepare(targets: &[Target<'_>], piece: Piece) -> Result<Piece> {
    let target = &targets[piece.target];
    if piece.position == 0 {
        if let Some(parent) = target.path.parent() {
            create_dir_all(parent)?;
        }
        let path = target.part_path();
        File::create(&path).map_err(Error::io("create", &path))?;
    }
    Ok(piece)
}

/// Reads, decodes, checks and writes pieces.
pub struct Worker<'a> {
    media: &'a Media,
    targets: &'a [Target<'a>],
    decoder: Decoder,
    buffers: Buffers,
}

impl<'a> Worker<'a> {
    /// Prepares a decoder.
    pub fn new(media: &'a Media, targets: &'a [Target<'a>]) -> Result<Self> {
        Ok(Self {
            media,
            targets,
            decoder: Decoder::new()?,
            buffers: Buffers::default(),
        })
    }

    /// Works on a piece. Damage is part of the result; an error is one of the target directory.
    pub fn work(&mut self, piece: Piece) -> Result<Decoded> {
        let target = &self.targets[piece.target];
        let Some(&index) = target.file.chunks.get(piece.position) else {
            return Ok(Decoded { piece, raw: Ok(0) });
        };
        let chunk = &self.media.manifest().chunks[index as usize];
        let mut stored = self.buffers.aligned(chunk.stored as usize);
        let raw = match self.decode(index, &mut stored) {
            Ok(decoded) => {
                let raw = decoded.as_deref().unwrap_or(&stored);
                write(target, piece.position, raw)?;
                Ok(raw.len() as u64)
            }
            Err(error) => Err(error),
        };
        Ok(Decoded { piece, raw })
    }

    /// A chunk's raw bytes, unless they are the stored ones.
    fn decode(&mut self, index: u32, stored: &mut [u8]) -> Result<Option<Aligned>> {
        self.media.read_unchecked(index, stored)?;
        let chunk = &self.media.manifest().chunks[index as usize];
        self.decoder
            .decode_chunk(chunk, stored, &self.buffers)
            .map_err(|error| self.media.damaged(index, &error.to_string()))
    }
}

fn write(target: &Target<'_>, position: usize, raw: &[u8]) -> Result<()> {
    let path = target.part_path();
    write_direct(&path, raw, position as u64 * CHUNK_SIZE).map_err(Error::io("write", &path))
}
