//! Feeds the files of a [`RangeSource`]: many ranges are read at once, across file boundaries.

use std::thread;

use super::intake::Intake;
use crate::bundle::CHUNK_SIZE;
use crate::error::Result;
use crate::pack::source::{RangeSource, SourceFile};
use crate::pack::stored::StoredChunks;
use crate::pack::tree::TreeId;
use crate::parallel::in_order;
use crate::parallel::{Buffer, Buffers};

/// A range of a file that becomes one chunk; empty for an empty file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Segment {
    file: usize,
    offset: u64,
    len: usize,
}

/// Feeds all files as those of `tree`. What an earlier run has packed is not read from
/// the source again; the state of a half-packed file's hash comes from its chunks in `stored`.
pub fn feed_files(
    intake: &mut Intake<'_>,
    tree: TreeId,
    source: &dyn RangeSource,
    stored: &StoredChunks,
) -> Result<()> {
    let files = source.files();
    let mut first = 0;
    while let Some(file) = files.get(first)
        && let Some(known) = intake.known(tree, &file.path)?
        && known.complete.is_some()
    {
        intake.skip_known();
        first += 1;
    }
    let mut from = 0;
    if let Some(file) = files.get(first) {
        from = feed_known_chunks(intake, tree, file, stored)?;
    }
    if from > 0 && from >= files[first].size {
        intake.end(None)?;
        (first, from) = (first + 1, 0);
    }
    feed_segments(intake, tree, source, (first, from))
}

/// Feeds the chunks of a file that an earlier run has stored; returns the bytes that they hold.
fn feed_known_chunks(
    intake: &mut Intake<'_>,
    tree: TreeId,
    file: &SourceFile,
    stored: &StoredChunks,
) -> Result<u64> {
    let chunks = match intake.known(tree, &file.path)? {
        Some(known) if !known.chunks.is_empty() => known.chunks.clone(),
        _ => return Ok(0),
    };
    intake.begin(tree, &file.path, file.size, file.expected)?;
    let mut reader = stored.reader()?;
    let mut bytes = 0;
    for chunk in &chunks {
        let mut raw = intake.buffers.take(0);
        reader.read(chunk, raw.as_vec())?;
        bytes += raw.len() as u64;
        intake.chunk(raw)?;
    }
    Ok(bytes)
}

/// Feeds everything from a byte of a file on.
fn feed_segments(
    intake: &mut Intake<'_>,
    tree: TreeId,
    source: &dyn RangeSource,
    from: (usize, u64),
) -> Result<()> {
    let files = source.files();
    let readers = source.readers();
    thread::scope(|scope| {
        let workers = (0..readers)
            .map(|_| {
                let buffers = intake.buffers.clone();
                move |segment| read(source, &buffers, segment)
            })
            .collect();
        let segments = segments(files, from);
        for result in in_order(scope, segments, workers, readers) {
            let (segment, raw) = result?;
            let file = &files[segment.file];
            if segment.offset == 0 {
                intake.begin(tree, &file.path, file.size, file.expected)?;
            }
            let end = segment.offset + raw.len() as u64;
            if !raw.is_empty() {
                intake.chunk(raw)?;
            }
            if end == file.size {
                intake.end(None)?;
            }
        }
        Ok(())
    })
}

fn read(
    source: &dyn RangeSource,
    buffers: &Buffers,
    segment: Segment,
) -> Result<(Segment, Buffer)> {
    let mut raw = buffers.take(segment.len);
    if segment.len > 0 {
        source.read(segment.file, segment.offset, &mut raw)?;
    }
    Ok((segment, raw))
}

/// The segments of all files, beginning at a byte of one of them.
fn segments(
    files: &[SourceFile],
    (first, from): (usize, u64),
) -> impl Iterator<Item = Segment> + Send + '_ {
    (first..files.len()).flat_map(move |file| {
        let size = files[file].size;
        let start = if file == first { from } else { 0 };
        let mut next = Some(start);
        std::iter::from_fn(move || {
            let offset = next?;
            let len = (size - offset).min(CHUNK_SIZE);
            let end = offset + len;
            next = (end < size).then_some(end);
            #[allow(clippy::cast_possible_truncation, reason = "at most 16 MiB")]
            let len = len as usize;
            Some(Segment { file, offset, len })
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pack::source::Expected;

    #[test]
    fn segments_cover_every_byte_once_and_empty_files_too() {
        const C: u64 = CHUNK_SIZE;
        let files: Vec<SourceFile> = [0, 1, C, C + 1, 2 * C]
            .into_iter()
            .enumerate()
            .map(|(index, size)| SourceFile {
                path: format!("f{index}").parse().unwrap(),
                size,
                expected: Expected::Nothing,
            })
            .collect();
        let cut = |from| {
            segments(&files, from)
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
