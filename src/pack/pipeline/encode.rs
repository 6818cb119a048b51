//! The part that takes the most time, done by as many workers as there are jobs.

use super::buffers::Buffer;
use super::step::{Piece, Step};
use crate::bundle::codec::Encoder;
use crate::digest::{Sha256, Xxh3};
use crate::error::Result;

/// Workers that encode and hash chunks and hand on everything else.
pub fn encode_workers(
    jobs: usize,
) -> Result<Vec<impl FnMut(Step<Buffer>) -> Result<Step<Piece>> + Send>> {
    (0..jobs)
        .map(|_| {
            let mut encoder = Encoder::new()?;
            Ok(move |step: Step<Buffer>| work(&mut encoder, step))
        })
        .collect()
}

fn work(encoder: &mut Encoder, step: Step<Buffer>) -> Result<Step<Piece>> {
    Ok(match step {
        Step::Chunk(raw) => Step::Chunk(encode(encoder, &raw)?),
        Step::Begin { tree, path } => Step::Begin { tree, path },
        Step::End { size, sha256 } => Step::End { size, sha256 },
        Step::Reject => Step::Reject,
    })
}

fn encode(encoder: &mut Encoder, raw: &[u8]) -> Result<Piece> {
    let encoded = encoder.encode(raw)?;
    Ok(Piece {
        blob: Sha256::of(&encoded.bytes),
        xxh3: Xxh3::of(raw),
        #[allow(
            clippy::cast_possible_truncation,
            reason = "a chunk has at most 16 MiB"
        )]
        raw: raw.len() as u32,
        encoded,
    })
}
