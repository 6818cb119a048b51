//! A zstd frame of raw blocks, for bytes that no coding makes smaller. It is written by hand
//! because libzstd would first try to compress them. Layout: RFC 8878, section 3.1.1.

/// What every zstd frame starts with.
pub const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Single segment, content size in four bytes, no checksum, no dictionary.
const DESCRIPTOR: u8 = 0b1010_0000;

/// The most that a block may hold.
const BLOCK: usize = 128 << 10;

/// Appends `bytes`, at most 4 GiB, as one frame.
pub fn append_raw(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&MAGIC);
    out.push(DESCRIPTOR);
    out.extend_from_slice(&low32(bytes.len()).to_le_bytes());
    let last = bytes.len().div_ceil(BLOCK).max(1) - 1;
    for number in 0..=last {
        let start = number * BLOCK;
        let block = &bytes[start..bytes.len().min(start + BLOCK)];
        // 3 bytes: bit 0 says that it is the last block, bits 1-2 (0) that it is raw.
        let header = (low32(block.len()) << 3) | u32::from(number == last);
        out.extend_from_slice(&header.to_le_bytes()[..3]);
        out.extend_from_slice(block);
    }
}

/// What [`append_raw`] adds for this many bytes.
pub fn raw_frame_len(bytes: usize) -> usize {
    MAGIC.len() + 1 + 4 + 3 * bytes.div_ceil(BLOCK).max(1) + bytes
}

#[allow(
    clippy::cast_possible_truncation,
    reason = "a chunk has at most 16 MiB"
)]
fn low32(len: usize) -> u32 {
    len as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libzstd_reads_it() {
        for len in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK] {
            let bytes: Vec<u8> = (0..=250).cycle().take(len).collect();
            let mut frame = Vec::new();
            append_raw(&bytes, &mut frame);
            assert_eq!(frame.len(), raw_frame_len(len));
            assert_eq!(
                zstd_safe::find_frame_compressed_size(&frame),
                Ok(frame.len())
            );
            let mut back = Vec::with_capacity(len);
            zstd_safe::decompress(&mut back, &frame).unwrap();
            assert_eq!(back, bytes);
        }
    }
}
