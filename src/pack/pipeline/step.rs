//! What travels through the pipeline.

use crate::bundle::manifest::{Chunk, Encoding, LayerFacts};
use crate::digest::{Blake3, Sha256};
use crate::image::Point;
use crate::pack::tree::TreeId;
use crate::parallel::Buffer;
use crate::path::RelPath;

/// A step in building the volumes. `C` is a chunk: raw on the way in, a [`Piece`] on the way out.
pub enum Step<C> {
    /// A file begins.
    Begin {
        /// What it belongs to.
        tree: TreeId,
        /// Its path below the tree.
        path: RelPath,
        /// Whether it is right or wrong on its own.
        alone: bool,
    },
    /// Its next chunk.
    Chunk(C),
    /// Its next chunk is one of the base.
    Base(Chunk),
    /// Where the file can be gone on with when this run ends.
    Point(Point),
    /// The file is complete and as its source promised.
    End {
        /// Bytes.
        size: u64,
        /// Of the whole file.
        sha256: Sha256,
        /// What was seen inside, of an image's layer.
        facts: Option<LayerFacts>,
    },
    /// What came in is not what its source promised: forget the last file if it is wrong on its
    /// own, or all of an image.
    Reject {
        /// Which one.
        tree: TreeId,
    },
}

/// An encoded chunk.
pub struct Piece {
    /// SHA-256 of the stored bytes.
    pub blob: Sha256,
    /// Of the raw bytes.
    pub blake3: Blake3,
    /// Raw bytes.
    pub raw: u32,
    /// The stored bytes.
    pub stored: Buffer,
    /// How they were made.
    pub encoding: Encoding,
}
