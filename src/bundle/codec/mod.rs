//! How a chunk is stored: as it is, as one zstd frame, or as byte planes of its elements.
//!
//! Weights are floating-point numbers whose exponents are predictable and whose mantissas are
//! noise. Split into byte planes, the exponents stand together and shrink to a third by Huffman
//! coding alone, while the noise is copied. Each plane is a zstd frame of its own, so `zstd -d`
//! decodes every blob into its planes one after the other; see `docs/FORMAT.md`.

mod choice;
mod decode;
mod encode;
mod frame;
mod planes;

pub use decode::Decoder;
pub use encode::{Encoded, Encoder};

use crate::error::Error;

/// The only way in which setting up libzstd fails.
fn no_memory() -> Error {
    Error::Failed("not enough memory for zstd; stop other programs or use fewer jobs".into())
}

#[cfg(test)]
mod tests;
