//! Byte planes: plane `i` of elements of `width` bytes is bytes `i`, `i + width`, ... of the
//! chunk. Rotation moves every whole little-endian element left by one bit first, which brings
//! the sign to the bottom and the whole exponent of bf16 and f32 into the last plane.
//!
//! The loops are plain so that the compiler vectorises them.

/// Bytes in plane `index` of a chunk of `raw` bytes.
pub fn plane_len(raw: usize, width: usize, index: usize) -> usize {
    (raw + width - 1 - index) / width
}

/// Splits `raw` into its planes, one after the other in `planes`, which has the same length.
pub fn split(raw: &[u8], width: u8, rotate: bool, planes: &mut [u8]) {
    match (width, rotate) {
        (2, false) => split2::<0>(raw, planes),
        (2, true) => split2::<1>(raw, planes),
        (_, false) => split4::<0>(raw, planes),
        (_, true) => split4::<1>(raw, planes),
    }
}

/// Undoes [`split`].
pub fn join(planes: &[u8], width: u8, rotate: bool, raw: &mut [u8]) {
    match (width, rotate) {
        (2, false) => join2::<0>(planes, raw),
        (2, true) => join2::<1>(planes, raw),
        (_, false) => join4::<0>(planes, raw),
        (_, true) => join4::<1>(planes, raw),
    }
}

fn split2<const ROTATE: u32>(raw: &[u8], planes: &mut [u8]) {
    let (low, high) = planes.split_at_mut(plane_len(raw.len(), 2, 0));
    let (elements, tail) = raw.as_chunks::<2>();
    for ((element, low), high) in elements.iter().zip(low.iter_mut()).zip(high.iter_mut()) {
        [*low, *high] = u16::from_le_bytes(*element)
            .rotate_left(ROTATE)
            .to_le_bytes();
    }
    if let (Some(last), [byte]) = (low.last_mut(), tail) {
        *last = *byte;
    }
}

fn join2<const ROTATE: u32>(planes: &[u8], raw: &mut [u8]) {
    let (low, high) = planes.split_at(plane_len(raw.len(), 2, 0));
    let (elements, tail) = raw.as_chunks_mut::<2>();
    for ((element, &low), &high) in elements.iter_mut().zip(low).zip(high) {
        *element = u16::from_le_bytes([low, high])
            .rotate_right(ROTATE)
            .to_le_bytes();
    }
    if let (Some(last), [byte]) = (low.last(), tail) {
        *byte = *last;
    }
}

fn split4<const ROTATE: u32>(raw: &[u8], planes: &mut [u8]) {
    let (a, rest) = planes.split_at_mut(plane_len(raw.len(), 4, 0));
    let (b, rest) = rest.split_at_mut(plane_len(raw.len(), 4, 1));
    let (c, d) = rest.split_at_mut(plane_len(raw.len(), 4, 2));
    let (elements, tail) = raw.as_chunks::<4>();
    let outputs = (a.iter_mut().zip(b.iter_mut())).zip(c.iter_mut().zip(d.iter_mut()));
    for (element, ((a, b), (c, d))) in elements.iter().zip(outputs) {
        [*a, *b, *c, *d] = u32::from_le_bytes(*element)
            .rotate_left(ROTATE)
            .to_le_bytes();
    }
    for (plane, byte) in [a, b, c].into_iter().zip(tail) {
        if let Some(last) = plane.last_mut() {
            *last = *byte;
        }
    }
}

fn join4<const ROTATE: u32>(planes: &[u8], raw: &mut [u8]) {
    let (a, rest) = planes.split_at(plane_len(raw.len(), 4, 0));
    let (b, rest) = rest.split_at(plane_len(raw.len(), 4, 1));
    let (c, d) = rest.split_at(plane_len(raw.len(), 4, 2));
    let (elements, tail) = raw.as_chunks_mut::<4>();
    let inputs = (a.iter().zip(b)).zip(c.iter().zip(d));
    for (element, ((&a, &b), (&c, &d))) in elements.iter_mut().zip(inputs) {
        *element = u32::from_le_bytes([a, b, c, d])
            .rotate_right(ROTATE)
            .to_le_bytes();
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
        // 0x8001 rotated is 0x0003, 0x7f80 rotated is 0xff00; the odd byte is left alone.
        let raw = [0x01, 0x80, 0x80, 0x7f, 0x81];
        assert_eq!(split_of(&raw, 2, false), [0x01, 0x80, 0x81, 0x80, 0x7f]);
        assert_eq!(split_of(&raw, 2, true), [0x03, 0x00, 0x81, 0x00, 0xff]);
        let raw = [1, 2, 3, 0x80, 5, 6, 7];
        assert_eq!(split_of(&raw, 4, false), [1, 5, 2, 6, 3, 7, 0x80]);
        assert_eq!(split_of(&raw, 4, true), [3, 5, 4, 6, 6, 7, 0]);
    }

    #[test]
    fn join_undoes_split_at_every_length() {
        for len in 0..70 {
            let raw: Vec<u8> = (0..len).map(|at: u8| at.wrapping_mul(151)).collect();
            for (width, rotate) in [(2, false), (2, true), (4, false), (4, true)] {
                let mut planes = vec![0; raw.len()];
                let mut back = vec![0; raw.len()];
                split(&raw, width, rotate, &mut planes);
                join(&planes, width, rotate, &mut back);
                assert_eq!(back, raw, "{len} bytes, width {width}, rotate {rotate}");
            }
        }
    }
}
