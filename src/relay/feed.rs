//! What the origin does: reads chunks in order and sends them down the chain.

use super::PIECE;
use super::forward::Forward;
use super::frame::Frame;
use crate::error::Result;

/// Sends chunks in this order, and the end of the round. `read` fetches a chunk's stored bytes,
/// checked against its name. A chunk that cannot be read is left out, so that one damaged place
/// does not hold up the rest; such errors are returned.
pub fn feed(
    forward: &Forward,
    chunks: impl Iterator<Item = u32>,
    mut read: impl FnMut(u32, &mut Vec<u8>) -> Result<()>,
) -> Vec<(u32, crate::error::Error)> {
    let mut left_out = Vec::new();
    let mut bytes = Vec::new();
    for index in chunks {
        if let Err(error) = read(index, &mut bytes) {
            left_out.push((index, error));
            continue;
        }
        // A chunk's length is a u32 in the manifest.
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        forward.frame(Frame::Chunk { index, length });
        for piece in bytes.chunks(PIECE) {
            forward.piece(piece);
        }
    }
    forward.frame(Frame::End);
    left_out
}
