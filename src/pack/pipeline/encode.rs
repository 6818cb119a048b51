//! The part that takes the most time, done by as many workers as there are jobs.

use super::step::{Piece, Step};
use crate::bundle::codec::Encoder;
use crate::digest::{Blake3, Sha256};
use crate::error::Result;
use crate::parallel::{Buffer, Buffers};

/// Encodes and hashes chunks, and hands on everything else.
pub struct EncodeWorker {
    encoder: Encoder,
    /// For encoded chunks.
    buffers: Buffers,
}

impl EncodeWorker {
    /// A worker that takes its buffers from those that all share.
    pub fn new(buffers: &Buffers) -> Result<Self> {
        Ok(Self {
            encoder: Encoder::new()?,
            buffers: buffers.clone(),
        })
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
        let mut stored = self.buffers.take(0);
        let encoding = self.encoder.encode_into(raw, stored.as_vec())?;
        Ok(Piece {
            blob: Sha256::of(&stored),
            blake3: Blake3::of(raw),
            #[allow(
                clippy::cast_possible_truncation,
                reason = "a chunk has at most 16 MiB"
            )]
            raw: raw.len() as u32,
            stored,
            encoding,
        })
    }
}
