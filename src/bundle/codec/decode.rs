//! Decoding of one chunk at a time. The stored bytes may come from an attacker: output and memory
//! are bounded by the length that the manifest promises, and nothing may be left over.

use zstd_safe::{DCtx, find_frame_compressed_size, get_error_name};

use super::frame::MAGIC;
use super::no_memory;
use super::planes::{join, plane_len};
use crate::bundle::manifest::{Chunk, Encoding};
use crate::error::{Error, Result};
use crate::parallel::{Aligned, Buffers};

/// Decodes chunks, with a reused context and buffer of one chunk.
pub struct Decoder {
    context: DCtx<'static>,
    planes: Vec<u8>,
}

impl Decoder {
    /// Prepares the context.
    pub fn new() -> Result<Self> {
        Ok(Self {
            context: DCtx::try_create().ok_or_else(no_memory)?,
            planes: Vec::new(),
        })
    }

    /// Decodes into `raw`, which then has exactly `raw_len` bytes; reuse it to save time. Any other
    /// length, or bytes left over, is [`Error::Damaged`]; `raw` is unspecified then.
    pub fn decode(
        &mut self,
        encoding: Encoding,
        stored: &[u8],
        raw_len: usize,
        raw: &mut Vec<u8>,
    ) -> Result<()> {
        raw.resize(raw_len, 0);
        self.decode_into(encoding, stored, raw)
    }

    /// A chunk's raw bytes, or that `stored` does not decode to them. `None` when they are the
    /// stored ones, which need no copy.
    pub fn decode_chunk(
        &mut self,
        chunk: &Chunk,
        stored: &[u8],
        buffers: &Buffers,
    ) -> Result<Option<Aligned>> {
        let raw = match chunk.encoding {
            Encoding::Stored => None,
            encoding => {
                let mut raw = buffers.aligned(chunk.raw as usize);
                self.decode_into(encoding, stored, &mut raw)?;
                Some(raw)
            }
        };
        if chunk.is(raw.as_deref().unwrap_or(stored)) {
            Ok(raw)
        } else {
            Err(damaged("it holds other bytes"))
        }
    }

    /// As [`Decoder::decode`], into memory of exactly the chunk's length.
    pub fn decode_into(&mut self, encoding: Encoding, stored: &[u8], raw: &mut [u8]) -> Result<()> {
        let raw_len = raw.len();
        let rest = match encoding {
            Encoding::Stored => {
                let (bytes, rest) = stored
                    .split_at_checked(raw_len)
                    .ok_or_else(|| damaged("it is too short"))?;
                raw.copy_from_slice(bytes);
                rest
            }
            Encoding::Zstd => decode_frame(&mut self.context, stored, raw)?,
            Encoding::Planes { width, rotate } => {
                self.planes.resize(raw_len, 0);
                let (mut rest, mut planes) = (stored, &mut self.planes[..]);
                for index in 0..usize::from(width) {
                    let (plane, others) =
                        planes.split_at_mut(plane_len(raw_len, width.into(), index));
                    rest = decode_frame(&mut self.context, rest, plane)?;
                    planes = others;
                }
                join(&self.planes, width, rotate, raw);
                rest
            }
        };
        if rest.is_empty() {
            Ok(())
        } else {
            Err(damaged(&format!("{} bytes are left over", rest.len())))
        }
    }
}

/// Decodes the first frame of `stored`, which must fill `out` exactly; returns what follows it.
fn decode_frame<'a>(
    context: &mut DCtx<'static>,
    stored: &'a [u8],
    out: &mut [u8],
) -> Result<&'a [u8]> {
    // Neither skippable nor legacy frames: libzstd would take them.
    if !stored.starts_with(&MAGIC) {
        return Err(damaged("no zstd frame where one must start"));
    }
    let invalid = |code| damaged(&format!("zstd says {:?}", get_error_name(code)));
    let end = find_frame_compressed_size(stored).map_err(invalid)?;
    let (frame, rest) = stored
        .split_at_checked(end)
        .ok_or_else(|| damaged("a frame reaches past the end"))?;
    let len = context.decompress(out, frame).map_err(invalid)?;
    if len == out.len() {
        Ok(rest)
    } else {
        Err(damaged(&format!(
            "a frame holds {len} bytes instead of {}",
            out.len()
        )))
    }
}

fn damaged(fault: &str) -> Error {
    Error::Damaged(format!("the stored chunk cannot be decoded: {fault}"))
}
