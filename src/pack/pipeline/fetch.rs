//! Feeds the files of a [`RangeSource`]: many ranges are read at once, across file boundaries.

use std::thread;

use super::intake::Intake;
use crate::bundle::CHUNK_SIZE;
use crate::error::Result;
use crate::pack::source::{RangeSource, SourceFile};
use crate::pack::stored::StoredChunks;
use crate::pack::tree::TreeId;
use crate::parallel::{Buffer, Buffers, Segment, in_order, segments};

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
        let sizes = files.iter().map(|file| file.size).collect();
        let segments = segments(sizes, from, CHUNK_SIZE);
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
