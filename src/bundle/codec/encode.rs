//! Encoding of one chunk at a time, with reused contexts and buffers.

use std::io::Cursor;

use zstd_safe::{CCtx, CParameter, ParamSwitch, Strategy, compress_bound};

use super::choice::{Plan, choose, sample};
use super::frame::{MAGIC, append_raw, raw_frame_len};
use super::no_memory;
use super::planes::{plane_len, split};
use crate::bundle::manifest::Encoding;
use crate::error::Result;

/// For everything that is not planes: files and layers are coded once and read by many.
const GENERAL_LEVEL: i32 = 3;

/// zstd skips this many positions when it finds no match; the whole block, so none is searched.
const NO_MATCHES: u32 = 128 << 10;

/// A chunk as it goes into a volume.
#[derive(Debug)]
pub struct Encoded {
    /// The stored bytes.
    pub bytes: Vec<u8>,
    /// How they were made.
    pub encoding: Encoding,
}

/// Encodes chunks. The result depends on the raw bytes only, not on what came before, nor on the
/// machine. Holds about two chunks of memory.
pub struct Encoder {
    general: CCtx<'static>,
    entropy: CCtx<'static>,
    sample: Vec<u8>,
    /// Of the sample, and of the chunk.
    sample_planes: Vec<u8>,
    planes: Vec<u8>,
}

impl Encoder {
    /// Prepares the contexts.
    pub fn new() -> Result<Self> {
        let general = context(&[CParameter::CompressionLevel(GENERAL_LEVEL)])?;
        // Huffman tables only: on exponents that is smaller than level 1, at four times its speed.
        let entropy = context(&[
            CParameter::CompressionLevel(1),
            CParameter::Strategy(Strategy::ZSTD_fast),
            CParameter::LiteralCompressionMode(ParamSwitch::Enable),
            CParameter::TargetLength(NO_MATCHES),
        ])?;
        Ok(Self {
            general,
            entropy,
            sample: Vec::new(),
            sample_planes: Vec::new(),
            planes: Vec::new(),
        })
    }

    /// Encodes a chunk; at most [`max_stored`](crate::bundle::manifest::max_stored) bytes long.
    pub fn encode(&mut self, raw: &[u8]) -> Result<Encoded> {
        let mut bytes = Vec::new();
        let encoding = self.encode_into(raw, &mut bytes)?;
        Ok(Encoded { bytes, encoding })
    }

    /// As [`Encoder::encode`], into a vector that was used before; returns the encoding.
    pub fn encode_into(&mut self, raw: &[u8], bytes: &mut Vec<u8>) -> Result<Encoding> {
        bytes.clear();
        let plan = self.plan(raw)?;
        match plan {
            Plan::Stored => {}
            Plan::Zstd => append_frame(&mut self.general, raw, bytes)?,
            Plan::Planes {
                width,
                rotate,
                noise,
            } => self.encode_planes(raw, width, rotate, noise, bytes)?,
        }
        if plan != Plan::Stored && bytes.len() < raw.len() {
            return Ok(plan.encoding());
        }
        bytes.clear();
        Ok(as_it_is(raw, bytes))
    }

    fn plan(&mut self, raw: &[u8]) -> Result<Plan> {
        sample(raw, &mut self.sample);
        let mut trial = Vec::new();
        append_frame(&mut self.general, &self.sample, &mut trial)?;
        let scratch = &mut self.sample_planes;
        Ok(choose(&self.sample, trial.len(), scratch))
    }

    fn encode_planes(
        &mut self,
        raw: &[u8],
        width: u8,
        rotate: u8,
        noise: [bool; 4],
        bytes: &mut Vec<u8>,
    ) -> Result<()> {
        self.planes.resize(raw.len(), 0);
        split(raw, width, rotate, &mut self.planes);
        bytes.reserve(raw.len());
        let mut rest = &self.planes[..];
        for (index, noise) in (0..usize::from(width)).zip(noise) {
            let (plane, others) = rest.split_at(plane_len(raw.len(), width.into(), index));
            rest = others;
            if noise {
                bytes.reserve(raw_frame_len(plane.len()));
                append_raw(plane, bytes);
            } else {
                append_frame(&mut self.entropy, plane, bytes)?;
            }
        }
        Ok(())
    }
}

/// Stores a chunk without making it smaller. One that starts like a zstd frame is wrapped in
/// another: otherwise `x` coded and a file `x.zst` stored could be the same blob, which says
/// nothing about how to decode it.
fn as_it_is(raw: &[u8], bytes: &mut Vec<u8>) -> Encoding {
    if raw.starts_with(&MAGIC) {
        bytes.reserve(raw_frame_len(raw.len()));
        append_raw(raw, bytes);
        Encoding::Zstd
    } else {
        bytes.extend_from_slice(raw);
        Encoding::Stored
    }
}

/// Appends `bytes` as one frame.
fn append_frame(context: &mut CCtx<'static>, bytes: &[u8], out: &mut Vec<u8>) -> Result<()> {
    out.reserve(compress_bound(bytes.len()));
    let mut end = Cursor::new(&mut *out);
    end.set_position(end.get_ref().len() as u64);
    // The output has room for the worst case: only memory can be lacking.
    context
        .compress2(&mut end, bytes)
        .map_err(|_| no_memory())?;
    Ok(())
}

fn context(parameters: &[CParameter]) -> Result<CCtx<'static>> {
    let mut context = CCtx::try_create().ok_or_else(no_memory)?;
    for &parameter in parameters {
        context.set_parameter(parameter).map_err(|_| no_memory())?;
    }
    Ok(context)
}
