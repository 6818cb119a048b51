//! Which encoding suits a chunk: tried on a sample of its bytes, never guessed from file names
//! or headers. All arithmetic is in integers, so that every machine decides alike.

use super::planes::{plane_len, split};
use crate::bundle::manifest::Encoding;

/// The sample is this many pieces, spread evenly over the chunk.
const PIECES: usize = 8;
const PIECE: usize = 8 << 10;

/// Fractional bits of [`log2`].
const FRACTION: u32 = 12;

/// A frame header and a Huffman table, roughly, in bytes. Beside a sample that is much, and shall be:
/// a plane that is coded takes time to decode on every node, so it must gain a five-hundredth of the chunk.
const PLANE_OVERHEAD: u64 = 128;

/// A chunk is stored as it is unless coding saves more than one part in this many.
const WORTH: u64 = 64;

/// The layouts that are tried, in order of preference: bytes and rotation. Four bits bring sign and
/// the constant top of a bf16's or f32's exponent down into the noise, which then shrinks as well.
/// Two or three bits do so too, but zstd decodes a plane of 6 or 7 random bits at half the speed.
const LAYOUTS: [(u8, u8); 6] = [(2, 4), (4, 4), (2, 1), (4, 1), (2, 0), (4, 0)];

/// How to encode a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// As it is.
    Stored,
    /// One frame at a general level.
    Zstd,
    /// Byte planes.
    Planes {
        width: u8,
        rotate: u8,
        /// Which planes are noise and only copied, lowest first.
        noise: [bool; 4],
    },
}

impl Plan {
    /// How the manifest calls it.
    pub fn encoding(self) -> Encoding {
        match self {
            Self::Stored => Encoding::Stored,
            Self::Zstd => Encoding::Zstd,
            Self::Planes { width, rotate, .. } => Encoding::Planes { width, rotate },
        }
    }
}

/// A few pieces of a chunk, or all of a small one. Pieces keep the alignment of elements.
pub fn sample(raw: &[u8], out: &mut Vec<u8>) {
    out.clear();
    if raw.len() <= PIECES * PIECE {
        out.extend_from_slice(raw);
        return;
    }
    for number in 0..PIECES {
        let start = (raw.len() - PIECE) / (PIECES - 1) * number / 64 * 64;
        out.extend_from_slice(&raw[start..start + PIECE]);
    }
}

/// Decides from a sample and from what zstd made of it (in bytes). `scratch` is working space.
pub fn choose(sample: &[u8], zstd: usize, scratch: &mut Vec<u8>) -> Plan {
    let whole = sample.len() as u64;
    let mut best = (whole - whole / WORTH, Plan::Stored);
    let mut offer = |cost: u64, plan: Plan| {
        if cost < best.0 {
            best = (cost, plan);
        }
    };
    offer(zstd as u64, Plan::Zstd);
    scratch.resize(sample.len(), 0);
    for (width, rotate) in LAYOUTS {
        split(sample, width, rotate, scratch);
        let (cost, noise) = planes_cost(scratch, width);
        offer(
            cost,
            Plan::Planes {
                width,
                rotate,
                noise,
            },
        );
    }
    best.1
}

/// Estimated bytes of split planes, and which of them are noise.
fn planes_cost(planes: &[u8], width: u8) -> (u64, [bool; 4]) {
    let width = usize::from(width);
    let (mut cost, mut noise) = (0, [false; 4]);
    let mut rest = planes;
    for (index, noise) in noise.iter_mut().enumerate().take(width) {
        let (plane, others) = rest.split_at(plane_len(planes.len(), width, index));
        rest = others;
        let len = plane.len() as u64;
        let coded = huffman_cost(plane) + PLANE_OVERHEAD;
        *noise = coded + len / WORTH >= len;
        cost += if *noise { len } else { coded };
    }
    (cost, noise)
}

/// Bytes that a Huffman code would take: the entropy, but at least a bit per symbol.
fn huffman_cost(plane: &[u8]) -> u64 {
    let mut counts = [0_u32; 256];
    for &byte in plane {
        counts[usize::from(byte)] += 1;
    }
    let len = plane.len() as u64;
    if counts.iter().filter(|&&count| count > 0).count() < 2 {
        return 0;
    }
    // Entropy times length: the sum of count * (log2(len) - log2(count)).
    let spread: u64 = counts
        .iter()
        .map(|&count| u64::from(count) * log2(count.into()))
        .sum();
    let bits = (len * log2(len)).saturating_sub(spread) >> FRACTION;
    bits.max(len) / 8
}

/// Logarithm in fixed point with [`FRACTION`] fractional bits, by squaring; 0 for 0. Sample
/// sizes are far below 2^32.
fn log2(number: u64) -> u64 {
    if number == 0 {
        return 0;
    }
    let whole = u64::from(number.ilog2());
    // The mantissa in [1, 2) with 31 fractional bits.
    let mut mantissa = number << 31 >> whole;
    let mut result = whole;
    for _ in 0..FRACTION {
        mantissa = (mantissa * mantissa) >> 31;
        let carry = mantissa >> 32;
        mantissa >>= carry;
        result = (result << 1) | carry;
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "numbers are small"
    )]
    fn log2_is_a_logarithm() {
        assert_eq!(log2(0), 0);
        for number in (1..70_000_u64).step_by(7) {
            let exact = ((number as f64).log2() * f64::from(1 << FRACTION)) as u64;
            assert!(log2(number).abs_diff(exact) <= 1, "{number}");
        }
    }

    #[test]
    fn a_sample_is_bounded_and_covers_both_ends() {
        let raw: Vec<u8> = (0..1_000_003_u32)
            .map(|at| at.to_le_bytes()[1] >> 4 | at.to_le_bytes()[2] << 4)
            .collect();
        let mut out = Vec::new();
        sample(&raw, &mut out);
        assert_eq!(out.len(), PIECES * PIECE);
        assert_eq!(out[0], 0);
        assert!(*out.last().unwrap() >= 243);
        sample(&raw[..100], &mut out);
        assert_eq!(out, &raw[..100]);
    }

    #[test]
    fn the_cheapest_layout_wins() {
        let noise = |at: u32| {
            let mixed = u64::from(at).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            ((mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 56) as u8
        };
        let of = |period: u32, constant: u32| -> Vec<u8> {
            (0..1 << 16)
                .map(|at| {
                    if at % period == constant {
                        7
                    } else {
                        noise(at)
                    }
                })
                .collect()
        };
        let plan = |bytes: &[u8], zstd| choose(bytes, zstd, &mut Vec::new());
        let all_noise = of(u32::MAX, u32::MAX);
        assert_eq!(plan(&all_noise, all_noise.len()), Plan::Stored);
        assert_eq!(plan(&all_noise, 60_000), Plan::Zstd);
        assert_eq!(
            plan(&of(2, 1), 50_000),
            Plan::Planes {
                width: 2,
                rotate: 0,
                noise: [true, false, false, false]
            }
        );
        assert_eq!(
            plan(&of(4, 2), 60_000),
            Plan::Planes {
                width: 4,
                rotate: 0,
                noise: [true, true, false, true]
            }
        );
        assert_eq!(plan(&[], 9), Plan::Stored);
    }
}
