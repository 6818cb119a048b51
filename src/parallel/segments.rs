//! Cutting a list of files into pieces.

/// A range of a file; empty for an empty file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Position of the file in the list.
    pub file: usize,
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub len: usize,
}

/// The segments of at most `most` bytes of files of these sizes, beginning at a byte of one of
/// them.
pub fn segments(
    sizes: Vec<u64>,
    (first, from): (usize, u64),
    most: u64,
) -> impl Iterator<Item = Segment> + Send {
    let files = sizes.into_iter().enumerate().skip(first);
    files.flat_map(move |(file, size)| {
        let start = if file == first { from } else { 0 };
        let mut next = Some(start);
        std::iter::from_fn(move || {
            let offset = next?;
            let len = (size - offset).min(most);
            let end = offset + len;
            next = (end < size).then_some(end);
            let len = usize::try_from(len).unwrap_or(usize::MAX);
            Some(Segment { file, offset, len })
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_cover_every_byte_once_and_empty_files_too() {
        const C: u64 = 16;
        let cut = |from| {
            segments(vec![0, 1, C, C + 1, 2 * C], from, C)
                .map(|segment| (segment.file, segment.offset, segment.len as u64))
                .collect::<Vec<_>>()
        };
        let all = [
            (0, 0, 0),
            (1, 0, 1),
            (2, 0, C),
            (3, 0, C),
            (3, C, 1),
            (4, 0, C),
            (4, C, C),
        ];
        assert_eq!(cut((0, 0)), all);
        assert_eq!(cut((3, C)), all[4..]);
        assert_eq!(cut((5, 0)), []);
    }
}
