//! Which lost chunks the fill volumes make up for.

use std::collections::{BTreeSet, HashSet};

use super::report::{FillReport, State, VolumeReport};
use crate::bundle::fill::Fill;
use crate::bundle::manifest::Chunk;
use crate::bundle::media::Media;
use crate::digest::Sha256;

/// What the fill volumes have.
pub struct Filled {
    /// Each of them.
    pub reports: Vec<FillReport>,
    /// Chunks that they make up for.
    made_up: Vec<u32>,
    /// Chunks that nothing has intact, ascending.
    pub lacking: Vec<u32>,
}

/// Reads every blob of the fill volumes; `damaged` are chunks whose bytes in the volumes are wrong.
pub fn check(media: &Media, damaged: &HashSet<u32>) -> Filled {
    let chunks = (0..).zip(&media.manifest().chunks);
    let lost = chunks.filter(|(index, chunk)| {
        let absent = !chunk.is_in_base() && media.volume_path(chunk.volume).is_none();
        absent || damaged.contains(index)
    });
    let intact = |chunk: &Chunk| media.fills().iter().any(|fill| fill.has(chunk.blob));
    let (made_up, lacking): (Vec<_>, Vec<_>) = lost.partition(|(_, chunk)| intact(chunk));
    let indices = |chunks: Vec<(u32, &Chunk)>| chunks.into_iter().map(|(index, _)| index).collect();
    Filled {
        reports: media.fills().iter().map(report).collect(),
        made_up: indices(made_up),
        lacking: indices(lacking),
    }
}

fn report(fill: &Fill) -> FillReport {
    let (intact, damaged): (Vec<Sha256>, Vec<_>) = fill.blobs().partition(|blob| fill.has(*blob));
    let damaged = damaged
        .first()
        .map(|blob| format!("chunk {blob} does not have its SHA-256"));
    FillReport {
        name: fill.name(),
        blobs: intact.len(),
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
