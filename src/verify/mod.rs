//! Proving that a bundle is intact, and unpacking it without a cluster.
//!
//! A volume is proved blob by blob: each blob has the SHA-256 that the manifest names, and every
//! byte between blobs is the one that the layout demands. That covers the same bytes as the hash
//! of the whole volume, but uses all cores on a single volume, and says where the damage is.
//! `SHA256SUMS` must then agree with the manifest about the volumes.

mod beside;
mod extract;
mod fills;
pub mod installed;
mod recovery;
mod repair;
mod report;
mod scan;

pub use extract::{Extracted, extract};
pub use repair::{Repaired, repair};
pub use report::{
    BaseReport, BesideFault, Fault, FillReport, RecoveryReport, Report, State, VolumeReport,
};

use std::collections::HashSet;

use crate::bundle::manifest::{Manifest, Owners};
use crate::bundle::media::Media;
use crate::error::Result;

/// Reads every byte that is at hand with `threads` threads. `done` is told how many bytes were
/// read so far, of those that [`bytes_at_hand`] counts.
pub fn verify(media: &Media, threads: usize, done: &(dyn Fn(u64) + Sync)) -> Result<Report> {
    let manifest = media.manifest();
    let found = scan::scan(media, threads, done)?;
    let before = volume_bytes(media);
    let recovery = recovery::check(media, &found, threads, &|read| done(before + read))?;
    let before = before + recovery_bytes(media);
    let damaged = found.iter().filter_map(|finding| finding.chunk);
    let owners = Owners::of(manifest, damaged);
    let mut volumes: Vec<VolumeReport> = (1..)
        .zip(&manifest.volumes)
        .map(|(number, volume)| VolumeReport {
            name: volume.name.clone(),
            state: match media.volume_path(number) {
                Some(_) => State::Intact,
                None => State::Missing,
            },
            faults: Vec::new(),
        })
        .collect();
    for finding in &found {
        let volume = &mut volumes[finding.volume as usize - 1];
        volume.state = State::Damaged;
        volume.faults.push(Fault {
            offset: finding.offset,
            what: finding.what.clone(),
            chunk: finding
                .chunk
                .map(|index| manifest.chunks[index as usize].blob),
            owners: finding
                .chunk
                .map_or_else(Vec::new, |index| owners.get(index).to_vec()),
        });
    }
    let damaged: HashSet<u32> = found.iter().filter_map(|finding| finding.chunk).collect();
    let filled = fills::check(media, &damaged, &|read| done(before + read));
    fills::mark(media, &filled, &mut volumes);
    let lacking: HashSet<u32> = filled.lacking.iter().copied().collect();
    Ok(Report {
        name: manifest.name.to_string(),
        bytes: bytes_at_hand(media),
        volumes,
        recovery: recovery.map(|recovery| recovery.report),
        beside: beside::check(media)?,
        base: base(media),
        fills: filled.reports,
        lacking: filled.lacking,
        incomplete: incomplete(manifest, |index| lacking.contains(&index)),
    })
}

/// What the bundle leaves to its base.
fn base(media: &Media) -> Option<BaseReport> {
    let manifest = media.manifest();
    let left_out = manifest.chunks.iter().filter(|chunk| chunk.is_in_base());
    Some(BaseReport {
        bundle: manifest.base.as_ref()?.to_string(),
        chunks: left_out.clone().count(),
        bytes: left_out.map(|chunk| u64::from(chunk.raw)).sum(),
    })
}

/// Bytes of the volumes that are at hand, recovery volumes too, and of the blobs of fill volumes.
#[must_use]
pub fn bytes_at_hand(media: &Media) -> u64 {
    volume_bytes(media) + recovery_bytes(media) + fills::bytes(media)
}

fn recovery_bytes(media: &Media) -> u64 {
    let recovery = media.manifest().recovery_volumes().iter().enumerate();
    let at_hand = recovery.filter(|(index, _)| media.recovery_path(*index).is_some());
    at_hand.map(|(_, volume)| volume.size).sum()
}

fn volume_bytes(media: &Media) -> u64 {
    let sizes = (1..).zip(&media.manifest().volumes);
    sizes
        .filter(|(number, _)| media.volume_path(*number).is_some())
        .map(|(_, volume)| volume.size)
        .sum()
}

/// Files that lack a chunk, as `TREE: PATH`.
fn incomplete(manifest: &Manifest, lacks: impl Fn(u32) -> bool) -> Vec<String> {
    manifest
        .files()
        .filter(|(_, file)| file.chunks.iter().any(|&index| lacks(index)))
        .map(|(tree, file)| format!("{}: {}", tree.label(), file.path))
        .collect()
}
