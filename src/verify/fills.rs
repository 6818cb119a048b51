//! Which lost chunks the fill volumes make up for.

use std::collections::{BTreeSet, HashSet};

use super::report::{FillReport, State, VolumeReport};
use crate::bundle::fill::Fill;
use crate::bundle::manifest::Chunk;
use crate::bundle::media::Media;

/// What the fill volumes have.
pub struct Filled {
    /// Each of them.
    pub reports: Vec<FillReport>,
    /// Chunks that they make up for.
    made_up: Vec<u32>,
    /// Chunks that nothing has intact, ascending.
    pub lacking: Vec<u32>,
}

/// Bytes that [`check`] reads.
pub fn bytes(media: &Media) -> u64 {
    let blobs = media.fills().iter().flat_map(Fill::blobs);
    blobs.map(|(_, len)| len).sum()
}

/// Reads every blob of the fill volumes; `damaged` are chunks whose bytes in the volumes are wrong.
/// `done` is told how many bytes were read so far.
pub fn check(media: &Media, damaged: &HashSet<u32>, done: &dyn Fn(u64)) -> Filled {
    let mut read = 0;
    let mut progress = |len| {
        read += len;
        done(read);
    };
    let fills = media.fills().iter();
    let reports = fills.map(|fill| report(fill, &mut progress)).collect();
    let chunks = (0..).zip(&media.manifest().chunks);
    let lost = chunks.filter(|(index, chunk)| {
        let absent = !chunk.is_in_base() && media.volume_path(chunk.volume).is_none();
        absent || damaged.contains(index)
    });
    let intact = |chunk: &Chunk| media.fills().iter().any(|fill| fill.has(chunk.blob));
    let (made_up, lacking): (Vec<_>, Vec<_>) = lost.partition(|(_, chunk)| intact(chunk));
    let indices = |chunks: Vec<(u32, &Chunk)>| chunks.into_iter().map(|(index, _)| index).collect();
    Filled {
        reports,
        made_up: indices(made_up),
        lacking: indices(lacking),
    }
}

fn report(fill: &Fill, read: &mut dyn FnMut(u64)) -> FillReport {
    let (mut intact, mut damaged) = (0, None);
    for (blob, len) in fill.blobs() {
        if fill.has(blob) {
            intact += 1;
        } else {
            damaged.get_or_insert_with(|| format!("chunk {blob} does not have its SHA-256"));
        }
        read(len);
    }
    FillReport {
        name: fill.name(),
        blobs: intact,
        fault: fill.fault().map(str::to_owned).or(damaged),
    }
}

/// Tells the volumes that lack nothing any more. Damage around the blobs is no matter then: a
/// reader finds them by the manifest.
pub fn mark(media: &Media, filled: &Filled, volumes: &mut [VolumeReport]) {
    let number = |index: &u32| media.manifest().chunks[*index as usize].volume as usize;
    let mut made_up: BTreeSet<usize> = filled.made_up.iter().map(number).collect();
    for index in &filled.lacking {
        made_up.remove(&number(index));
    }
    for number in made_up {
        volumes[number - 1].state = State::Filled;
    }
}
