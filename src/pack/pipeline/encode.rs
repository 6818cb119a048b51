//! The part that takes the most time, done by as many workers as there are jobs.

use super::step::{Piece, Step};
use crate::bundle::codec::Encoder;
use crate::digest::{Blake3, Sha256};
use crate::error::Result;
use crate::parallel::Buffer;

/// Encodes and hashes chunks, and hands on everything else.
pub struct EncodeWorker(Encoder);

impl EncodeWorker {
    /// A worker with its own buffers.
    pub fn new() -> Result<Self> {
        Ok(Self(Encoder::new()?))
    }

    /// Does one step.
    pub fn work(&mut self, step: Step<Buffer>) -> Result<Step<Piece>> {
        Ok(match step {
            Step::Base(chunk) => Step::Base(chunk),
            Step::Point(point) => Step::Point(point),
            Step::Chunk(raw) => Step::Chunk(self.piece(&raw)?),
            Step::Begin { tree, path, alone } => Step::Begin { tree, path, alone },
            Step::End {
                size,
                sha256,
                facts,
            } => Step::End {
                size,
                sha256,
                facts,
            },
            Step::Reject { tree } => Step::Reject { tree },
        })
    }

    fn piece(&mut self, raw: &[u8]) -> Result<Piece> {
        let encoded = self.0.encode(raw)?;
        Ok(Piece {
            blob: Sha256::of(&encoded.bytes),
            blake3: Blake3::of(raw),
            #[allow(
                clippy::cast_possible_truncation,
                reason = "a chunk has at most 16 MiB"
            )]
            raw: raw.len() as u32,
            encoded,
        })
    }
}
