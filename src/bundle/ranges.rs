//! Sets of chunk indices as half-open ranges: most of a bundle is a few of them.

/// Half-open ranges of ascending indices.
#[must_use]
pub fn ranges(ascending: impl Iterator<Item = u32>) -> Vec<(u32, u32)> {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for index in ascending {
        match ranges.last_mut() {
            Some(last) if last.1 == index => last.1 += 1,
            _ => ranges.push((index, index + 1)),
        }
    }
    ranges
}

/// The indices that are in some ranges.
pub fn indices(ranges: &[(u32, u32)]) -> impl Iterator<Item = u32> {
    ranges.iter().flat_map(|&(from, to)| from..to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_and_indices_are_the_same_set() {
        for (set, expected) in [
            (&[][..], &[][..]),
            (&[0, 1, 3], &[(0, 2), (3, 4)]),
            (&[1], &[(1, 2)]),
        ] {
            assert_eq!(ranges(set.iter().copied()), expected);
            assert_eq!(indices(expected).collect::<Vec<_>>(), set);
        }
    }
}
