//! Gzip that can be gone on with in its middle. Between two blocks of deflate, a decoder needs no more than a few bits
//! and the 32 KiB before them, which stand in the volumes already.

use std::io::{self, BufRead as _, BufReader, Read};
use std::ops::Range;

use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::{
    TINFL_FLAG_HAS_MORE_INPUT, TINFL_FLAG_STOP_ON_BLOCK_BOUNDARY,
};
use miniz_oxide::inflate::core::{BlockBoundaryState, DecompressorOxide, decompress};

use crate::image::{Cut, HISTORY, Point};

/// Bytes of the ring that is decoded into: a power of two, and more than the history.
const RING: usize = 256 << 10;

/// Compressed bytes that are read at once.
const INPUT: usize = 128 << 10;

/// CRC-32 and length, which the digests of blob and layer make needless.
const TRAILER: usize = 8;

/// Decodes gzip of one or several members.
pub struct Gunzip<R> {
    input: BufReader<R>,
    /// Compressed bytes taken so far, and uncompressed ones made.
    taken: u64,
    made: u64,
    inflate: Box<DecompressorOxide>,
    ring: Vec<u8>,
    /// What of the ring was made and not yet read; the next bytes go behind it.
    ready: Range<usize>,
    part: Part,
    point: Option<Point>,
}

/// What comes next.
enum Part {
    Header,
    Blocks,
    Trailer,
}

impl<R: Read> Gunzip<R> {
    /// From the start of a stream.
    pub fn new(source: R) -> Self {
        Self {
            input: BufReader::with_capacity(INPUT, source),
            taken: 0,
            made: 0,
            inflate: Box::default(),
            ring: vec![0; RING],
            ready: 0..0,
            part: Part::Header,
            point: None,
        }
    }

    /// From a point on, where a byte is cut; `history` is what was made before it, at most the last
    /// [`HISTORY`] bytes.
    pub fn resume(source: R, point: Point, cut: Cut, history: &[u8]) -> Self {
        let history = &history[history.len().saturating_sub(HISTORY)..];
        let mut this = Self::new(source);
        this.ring[..history.len()].copy_from_slice(history);
        this.ready = history.len()..history.len();
        (this.taken, this.made) = (point.compressed, point.raw);
        this.inflate = Box::new(DecompressorOxide::from_block_boundary_state(
            &BlockBoundaryState {
                num_bits: cut.bits,
                bit_buf: cut.unused,
                ..BlockBoundaryState::default()
            },
        ));
        this.part = Part::Blocks;
        this
    }

    /// The last point before which everything was read.
    pub fn point(&self) -> Option<Point> {
        let read = self.made - self.ready.len() as u64;
        self.point.filter(|point| point.raw <= read)
    }

    /// Takes the next bytes.
    fn take(&mut self, out: &mut [u8]) -> io::Result<()> {
        self.input.read_exact(out)?;
        self.taken += out.len() as u64;
        Ok(())
    }

    /// Layout: RFC 1952, section 2.3.
    fn header(&mut self) -> io::Result<()> {
        let mut fixed = [0; 10];
        self.take(&mut fixed)?;
        let [0x1f, 0x8b, 8, flags, ..] = fixed else {
            return Err(invalid("where gzip should be, something else is"));
        };
        if flags & 4 != 0 {
            let mut length = [0; 2];
            self.take(&mut length)?;
            self.take(&mut vec![0; u16::from_le_bytes(length).into()])?;
        }
        // Name and comment, each up to a NUL.
        for _ in 0..(flags >> 3 & 1) + (flags >> 4 & 1) {
            let mut byte = [1];
            while byte != [0] {
                self.take(&mut byte)?;
            }
        }
        if flags & 2 != 0 {
            self.take(&mut [0; 2])?;
        }
        *self.inflate = DecompressorOxide::default();
        self.part = Part::Blocks;
        Ok(())
    }

    /// Decodes until a block ends, the ring wraps, or the input at hand is used up.
    fn blocks(&mut self) -> io::Result<()> {
        let start = self.ready.end % RING;
        let input = self.input.fill_buf()?;
        let more = if input.is_empty() {
            0
        } else {
            TINFL_FLAG_HAS_MORE_INPUT
        };
        let flags = TINFL_FLAG_STOP_ON_BLOCK_BOUNDARY | more;
        let (status, taken, made) =
            decompress(&mut self.inflate, input, &mut self.ring, start, flags);
        self.input.consume(taken);
        self.taken += taken as u64;
        self.made += made as u64;
        self.ready = start..start + made;
        match status {
            TINFLStatus::NeedsMoreInput | TINFLStatus::HasMoreOutput => {}
            TINFLStatus::Done => self.part = Part::Trailer,
            TINFLStatus::BlockBoundary => {
                let state = self.inflate.block_boundary_state();
                self.point = state.map(|state| Point {
                    raw: self.made,
                    compressed: self.taken,
                    gzip: Some(Cut {
                        bits: state.num_bits,
                        unused: state.bit_buf,
                    }),
                });
            }
            _ if more == 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            _ => return Err(invalid("it is no gzip that could be decoded")),
        }
        Ok(())
    }
}

impl<R: Read> Read for Gunzip<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.ready.is_empty() {
            match self.part {
                Part::Header if self.taken > 0 && self.input.fill_buf()?.is_empty() => {
                    return Ok(0);
                }
                Part::Header => self.header()?,
                Part::Blocks => self.blocks()?,
                Part::Trailer => {
                    self.take(&mut [0; TRAILER])?;
                    self.part = Part::Header;
                }
            }
        }
        let length = self.ready.len().min(out.len());
        out[..length].copy_from_slice(&self.ring[self.ready.start..][..length]);
        self.ready.start += length;
        Ok(length)
    }
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::{Compression, GzBuilder};

    use super::*;
    use crate::weights::Random;

    /// Bytes that deflate makes smaller in blocks of every kind.
    fn content() -> Vec<u8> {
        let mut bytes = Vec::new();
        for seed in 0..8 {
            bytes.extend(Random(seed).bytes(50_000));
            let few = Random(seed).bytes(90_000);
            bytes.extend(few.iter().map(|byte| byte & 0x13));
        }
        bytes
    }

    /// One member, with all that a header can have.
    fn member(bytes: &[u8], level: u32) -> Vec<u8> {
        let header = GzBuilder::new().filename("a").comment("b").extra("cde");
        let mut encoder = header.write(Vec::new(), Compression::new(level));
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    /// What is decoded with reads of this size, and the points on the way.
    fn decode(gzip: &mut Gunzip<impl Read>, size: usize) -> io::Result<(Vec<u8>, Vec<Point>)> {
        let (mut bytes, mut points, mut buffer) = (Vec::new(), Vec::new(), vec![0; size]);
        loop {
            let length = gzip.read(&mut buffer)?;
            if length == 0 {
                return Ok((bytes, points));
            }
            bytes.extend_from_slice(&buffer[..length]);
            if let Some(point) = gzip.point().filter(|point| points.last() != Some(point)) {
                points.push(point);
            }
        }
    }

    #[test]
    fn decoding_goes_on_at_every_point() {
        let whole = content();
        for level in [0, 1, 6, 9] {
            let (one, other) = whole.split_at(whole.len() / 3);
            let packed = [member(one, level), member(other, level)].concat();
            let (bytes, points) = decode(&mut Gunzip::new(&packed[..]), 1 << 20).unwrap();
            assert!(bytes == whole);
            assert!(points.len() > 10, "{}", points.len());
            assert!(points.windows(2).all(|pair| pair[0].raw <= pair[1].raw));
            for point in points.into_iter().step_by(3) {
                let (before, after) = whole.split_at(usize::try_from(point.raw).unwrap());
                let rest = &packed[usize::try_from(point.compressed).unwrap()..];
                let mut gzip = Gunzip::resume(rest, point, point.gzip.unwrap(), before);
                assert!(decode(&mut gzip, 1 << 20).unwrap().0 == after, "{point:?}");
            }
        }
    }

    #[test]
    fn points_are_never_ahead_of_what_was_read() {
        let packed = member(&content(), 6);
        let mut gzip = Gunzip::new(&packed[..]);
        let (mut read, mut buffer) = (0, [0; 777]);
        loop {
            let length = gzip.read(&mut buffer).unwrap();
            read += length as u64;
            assert!(gzip.point().is_none_or(|point| point.raw <= read));
            if length == 0 {
                break;
            }
        }
    }

    #[test]
    fn what_is_torn_or_wrong_is_refused() {
        let whole = content();
        let packed = member(&whole[..200_000], 6);
        for len in [0, 5, 12, 100, packed.len() / 2, packed.len() - 1] {
            assert!(
                decode(&mut Gunzip::new(&packed[..len]), 4096).is_err(),
                "{len}"
            );
        }
        let trailing = [&packed[..], b"more than a header"].concat();
        assert!(decode(&mut Gunzip::new(&trailing[..]), 4096).is_err());
        for at in (0..packed.len()).step_by(997) {
            let mut wrong = packed.clone();
            wrong[at] ^= 0x55;
            // Its CRC is not looked at: the digests tell.
            let _ = decode(&mut Gunzip::new(&wrong[..]), 4096);
        }
    }
}
