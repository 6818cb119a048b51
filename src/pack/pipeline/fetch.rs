//! Feeds the files of a [`RangeSource`]: many ranges are read at once, across file boundaries.

use std::thread;

use super::intake::Intake;
use crate::bundle::CHUNK_SIZE;
use crate::error::Result;
use crate::pack::source::RangeSource;
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
    if let Some(file) = files.get(first)
        && intake.of_base(file.expected).is_none()
    {
        let part = (source, first);
        from = feed_known_chunks(intake, tree, part, stored)?;
    }
    if from > 0 && from >= files[first].size {
        intake.end(None)?;
        (first, from) = (first + 1, 0);
    }
    feed_segments(intake, tree, source, (first, from))
}

/// Feeds the chunks of a file that an earlier run has stored, those of the base from the source;
/// returns the bytes that they hold.
fn feed_known_chunks(
    intake: &mut Intake<'_>,
    tree: TreeId,
    (source, number): (&dyn RangeSource, usize),
    stored: &StoredChunks,
) -> Result<u64> {
    let file = &source.files()[number];
    let chunks = match intake.known(tree, &file.path)? {
        Some(known) if !known.chunks.is_empty() => known.chunks.clone(),
        _ => return Ok(0),
    };
    intake.begin(tree, &file.path, file.size, file.expected)?;
    let mut reader = stored.reader()?;
    let mut bytes = 0;
    for chunk in &chunks {
        let mut raw = intake.buffers.take(chunk.raw as usize);
        if chunk.is_in_base() {
            source.read(number, bytes, &mut raw)?;
        } else {
            reader.read(chunk, raw.as_vec())?;
        }
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
    let adopted: Vec<bool> = files
        .iter()
        .map(|file| intake.of_base(file.expected).is_some())
        .collect();
    thread::scope(|scope| {
        let workers = (0..readers)
            .map(|_| {
                let buffers = intake.buffers.clone();
                move |segment| read(source, &buffers, segment)
            })
            .collect();
        let sizes = files.iter().zip(&adopted);
        let sizes = sizes.map(|(file, adopted)| if *adopted { 0 } else { file.size });
        let segments = segments(sizes.collect(), from, CHUNK_SIZE);
        for result in in_order(scope, segments, workers, readers) {
            let (segment, raw) = result?;
            let file = &files[segment.file];
            if let Some(base) = intake.of_base(file.expected) {
                intake.adopt(tree, &file.path, base, None)?;
                continue;
            }
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
