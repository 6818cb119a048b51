//! Byte planes: plane `i` of elements of `width` bytes is bytes `i`, `i + width`, ... of the
//! chunk. Every whole little-endian element is rotated left by a few bits first: by one, the sign of
//! bf16 and f32 goes to the bottom and the exponent fills the last plane; by more, the top bits of
//! the exponent, which hardly change, go to the bottom as well.
//!
//! The loops are so plain that the compiler vectorises them.

/// Bytes in plane `index` of a chunk of `raw` bytes.
pub fn plane_len(raw: usize, width: usize, index: usize) -> usize {
    (raw + width - 1 - index) / width
}

/// Splits `raw` into its planes, one after the other in `planes`, which has the same length.
pub fn split(raw: &[u8], width: u8, rotate: u8, planes: &mut [u8]) {
    match width {
        2 => split2(raw, rotate.into(), planes),
        _ => split4(raw, rotate.into(), planes),
    }
}

/// Undoes [`split`].
pub fn join(planes: &[u8], width: u8, rotate: u8, raw: &mut [u8]) {
    match width {
        2 => join2(planes, rotate.into(), raw),
        _ => join4(planes, rotate.into(), raw),
    }
}

fn split2(raw: &[u8], rotate: u32, planes: &mut [u8]) {
    let (low, high) = planes.split_at_mut(plane_len(raw.len(), 2, 0));
    let (elements, tail) = raw.as_chunks::<2>();
    for ((element, low), high) in elements.iter().zip(low.iter_mut()).zip(high.iter_mut()) {
        let value = u16::from_le_bytes(*element);
        // `rotate_left` is slower by a variable number of bits: it is not vectorised as well.
        [*low, *high] = ((value << rotate) | (value >> 1 >> (15 - rotate))).to_le_bytes();
    }
    if let (Some(last), [byte]) = (low.last_mut(), tail) {
        *last = *byte;
    }
}

fn join2(planes: &[u8], rotate: u32, raw: &mut [u8]) {
    let (low, high) = planes.split_at(plane_len(raw.len(), 2, 0));
    let (elements, tail) = raw.as_chunks_mut::<2>();
    for ((element, &low), &high) in elements.iter_mut().zip(low).zip(high) {
        let value = u16::from_le_bytes([low, high]);
        *element = ((value >> rotate) | (value << 1 << (15 - rotate))).to_le_bytes();
    }
    if let (Some(last), [byte]) = (low.last(), tail) {
        *byte = *last;
    }
}

/// Elements that [`split4`] takes at once: their halves stay in the first-level cache.
const TILE: usize = 1024;

/// First into halves, then each into bytes: the compiler does not vectorise it in one step.
fn split4(raw: &[u8], rotate: u32, planes: &mut [u8]) {
    let (a, rest) = planes.split_at_mut(plane_len(raw.len(), 4, 0));
    let (b, rest) = rest.split_at_mut(plane_len(raw.len(), 4, 1));
    let (c, d) = rest.split_at_mut(plane_len(raw.len(), 4, 2));
    let (elements, tail) = raw.as_chunks::<4>();
    let (mut lower, mut upper) = ([0_u16; TILE], [0_u16; TILE]);
    for (number, elements) in elements.chunks(TILE).enumerate() {
        let halves = lower.iter_mut().zip(&mut upper);
        for (element, (lower, upper)) in elements.iter().zip(halves) {
            let value = u32::from_le_bytes(*element);
            let [a, b, c, d] = ((value << rotate) | (value >> 1 >> (31 - rotate))).to_le_bytes();
            (*lower, *upper) = (u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]));
        }
        let start = number * TILE;
        for (halves, low, high) in [(&lower, &mut *a, &mut *b), (&upper, &mut *c, &mut *d)] {
            let bytes = low[start..].iter_mut().zip(&mut high[start..]);
            for (half, (low, high)) in halves[..elements.len()].iter().zip(bytes) {
                [*low, *high] = half.to_le_bytes();
            }
        }
    }
    for (plane, byte) in [a, b, c].into_iter().zip(tail) {
        if let Some(last) = plane.last_mut() {
            *last = *byte;
        }
    }
}

fn join4(planes: &[u8], rotate: u32, raw: &mut [u8]) {
    let (a, rest) = planes.split_at(plane_len(raw.len(), 4, 0));
    let (b, rest) = rest.split_at(plane_len(raw.len(), 4, 1));
    let (c, d) = rest.split_at(plane_len(raw.len(), 4, 2));
    let (elements, tail) = raw.as_chunks_mut::<4>();
    let inputs = (a.iter().zip(b)).zip(c.iter().zip(d));
    for (element, ((&a, &b), (&c, &d))) in elements.iter_mut().zip(inputs) {
        let value = u32::from_le_bytes([a, b, c, d]);
        *element = ((value >> rotate) | (value << 1 << (31 - rotate))).to_le_bytes();
    }
    for (plane, byte) in [a, b, c].into_iter().zip(tail) {
        if let Some(last) = plane.last() {
            *byte = *last;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planes_are_what_the_format_says() {
        let split_of = |raw: &[u8], width, rotate| {
            let mut planes = vec![0; raw.len()];
            split(raw, width, rotate, &mut planes);
            planes
        };
        // 0x8001 rotated by one is 0x0003, by four 0x0018; 0x7f80 becomes 0xff00 and 0xf807. The
        // odd byte is left alone.
        let raw = [0x01, 0x80, 0x80, 0x7f, 0x81];
        assert_eq!(split_of(&raw, 2, 0), [0x01, 0x80, 0x81, 0x80, 0x7f]);
        assert_eq!(split_of(&raw, 2, 1), [0x03, 0x00, 0x81, 0x00, 0xff]);
        assert_eq!(split_of(&raw, 2, 4), [0x18, 0x07, 0x81, 0x00, 0xf8]);
        let raw = [1, 2, 3, 0x80, 5, 6, 7];
        assert_eq!(split_of(&raw, 4, 0), [1, 5, 2, 6, 3, 7, 0x80]);
        assert_eq!(split_of(&raw, 4, 1), [3, 5, 4, 6, 6, 7, 0]);
        assert_eq!(split_of(&raw, 4, 4), [0x18, 5, 0x20, 6, 0x30, 7, 0]);
    }

    #[test]
    fn join_undoes_split_at_every_length() {
        let lengths = (0..70).chain(4 * TILE - 5..4 * TILE + 6);
        for len in lengths {
            let raw: Vec<u8> = (0..=250).cycle().take(len).collect();
            for (width, rotate) in (0..8).flat_map(|rotate| [(2, rotate), (4, rotate)]) {
                let mut planes = vec![0; raw.len()];
                let mut back = vec![0; raw.len()];
                split(&raw, width, rotate, &mut planes);
                join(&planes, width, rotate, &mut back);
                assert_eq!(back, raw, "{len} bytes, width {width}, rotate {rotate}");
            }
        }
    }
}
