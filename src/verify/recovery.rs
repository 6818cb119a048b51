//! Whether the recovery volumes are intact, and which shards of the others are lost.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::report::{Fault, RecoveryReport, State, VolumeReport};
use super::scan::{Finding, on_threads};
use crate::bundle::manifest::Parity;
use crate::bundle::media::Media;
use crate::bundle::parity::{Geometry, Loss, Volumes};
use crate::bundle::volume::{BLOCK, END, entry_header};
use crate::digest::{Blake3Hasher, Sha256, sha256_of_reader};
use crate::error::{Error, Result};

/// What is known about a bundle's recovery volumes and what they must make up for.
pub struct Recovery {
    /// How the shards are laid out.
    pub geometry: Geometry,
    /// What is lost and what is there.
    pub loss: Loss,
    /// The same for people.
    pub report: RecoveryReport,
}

/// Reads all recovery volumes, and the damaged parts of the others once more; nothing for a bundle
/// without. `done` is told the bytes of the recovery volumes that were read.
pub fn check(
    media: &Media,
    found: &[Finding],
    threads: usize,
    done: &(dyn Fn(u64) + Sync),
) -> Result<Option<Recovery>> {
    let manifest = media.manifest();
    let Some(parity) = &manifest.parity else {
        return Ok(None);
    };
    let geometry = Geometry::of(parity, manifest.volume_size())
        .map_err(|fault| Error::Damaged(format!("parity {fault}")))?;
    let damaged = damaged_entries(media, parity, &geometry, threads, done)?;
    let bad = |shard: &usize| {
        damaged
            .binary_search_by_key(shard, |(shard, _)| *shard)
            .is_ok()
    };
    let loss = Loss {
        data: lost_shards(media, parity, &geometry, found),
        recovery: (0..geometry.recovery)
            .filter(|shard| media.recovery_path(geometry.place(*shard).0).is_some() && !bad(shard))
            .collect(),
    };
    let reports = (0..geometry.volumes()).map(|index| volume(media, &geometry, index, &damaged));
    let report = RecoveryReport {
        volumes: reports.collect::<Result<_>>()?,
        shard: geometry.shard,
        lost: loss.data.len(),
        intact: loss.recovery.len(),
    };
    Ok(Some(Recovery {
        geometry,
        loss,
        report,
    }))
}

/// The bundle's volumes as one row; those that are not at hand fail when they are read.
pub fn volumes(media: &Media) -> Volumes {
    let path = |number| {
        let path = media.volume_path(number).map(Path::to_owned);
        path.unwrap_or_default()
    };
    let volumes = (1..).zip(&media.manifest().volumes);
    Volumes::new(volumes.map(|(number, volume)| (path(number), volume.size)))
}

/// Recovery shards that are damaged, and what is wrong with them, in order.
fn damaged_entries(
    media: &Media,
    parity: &Parity,
    geometry: &Geometry,
    threads: usize,
    done: &(dyn Fn(u64) + Sync),
) -> Result<Vec<(usize, &'static str)>> {
    let (next, bytes) = (AtomicUsize::new(0), AtomicU64::new(0));
    let mut damaged = on_threads(threads, || {
        let mut found = Vec::new();
        loop {
            let shard = next.fetch_add(1, Ordering::Relaxed);
            let Some(digest) = parity.recovery.get(shard) else {
                return Ok(found);
            };
            let (volume, start) = geometry.place(shard);
            let Some(path) = media.recovery_path(volume) else {
                continue;
            };
            let fault = entry_fault(path, start, geometry.shard, digest);
            found.extend(fault.map(|what| (shard, what)));
            let read = BLOCK + geometry.shard;
            done(bytes.fetch_add(read, Ordering::Relaxed) + read);
        }
    })?;
    let ends = (0..geometry.volumes()).filter(|index| media.recovery_path(*index).is_some());
    done(bytes.into_inner() + ends.count() as u64 * END);
    damaged.sort_unstable();
    Ok(damaged)
}

/// What is wrong with a recovery shard or its header.
fn entry_fault(path: &Path, start: u64, len: u64, digest: &Sha256) -> Option<&'static str> {
    let read = || -> io::Result<_> {
        let mut file = File::open(path)?;
        let mut header = [0; 512];
        file.read_exact_at(&mut header, start - BLOCK)?;
        file.seek(SeekFrom::Start(start))?;
        Ok((header, sha256_of_reader(file.take(len))?.0))
    };
    match read() {
        Err(_) => Some("it cannot be read"),
        Ok((_, found)) if found != *digest => Some("its SHA-256 is another"),
        Ok((header, _)) => match entry_header(digest, len) {
            Ok(expected) if expected == header => None,
            _ => Some("the tar header is not the one that belongs here"),
        },
    }
}

fn volume(
    media: &Media,
    geometry: &Geometry,
    index: usize,
    damaged: &[(usize, &'static str)],
) -> Result<VolumeReport> {
    let listed = &media.manifest().recovery_volumes()[index];
    let fault = |offset, what: String| Fault {
        offset,
        what,
        chunk: None,
        owners: Vec::new(),
    };
    let mut faults = Vec::new();
    let path = media.recovery_path(index);
    if let Some(path) = path {
        let shards = geometry.shards_of(index);
        let inside = damaged.iter().filter(|(shard, _)| shards.contains(shard));
        faults.extend(inside.map(|(shard, what)| fault(geometry.place(*shard).1, (*what).into())));
        faults.extend(end_fault(path, listed.size)?.map(|what| fault(listed.size - END, what)));
    }
    Ok(VolumeReport {
        name: listed.name.clone(),
        state: match path {
            None => State::Missing,
            Some(_) if faults.is_empty() => State::Intact,
            Some(_) => State::Damaged,
        },
        faults,
    })
}

/// What is wrong with the end of a recovery volume.
fn end_fault(path: &Path, size: u64) -> Result<Option<String>> {
    let file = File::open(path).map_err(Error::io("open", path))?;
    let found = file.metadata().map_err(Error::io("read", path))?.len();
    let mut end = [1; 1024];
    Ok(if found != size {
        Some(format!("it has {found} bytes instead of {size}"))
    } else if file.read_exact_at(&mut end, size - END).is_err() || end != [0; 1024] {
        Some("its end is not the end of a tar file".into())
    } else {
        None
    })
}

/// The data shards that are not as they were: those of missing volumes, and of the damaged places
/// those whose digest is another.
fn lost_shards(
    media: &Media,
    parity: &Parity,
    geometry: &Geometry,
    found: &[Finding],
) -> BTreeSet<usize> {
    let mut row = volumes(media);
    let shards = |range: std::ops::Range<u64>| -> std::ops::Range<usize> {
        let shard = |at: u64| usize::try_from(at / geometry.shard).unwrap_or(usize::MAX);
        shard(range.start)..shard(range.end.saturating_sub(1).max(range.start)) + 1
    };
    let mut lost = BTreeSet::new();
    for number in (1..).take(media.manifest().volumes.len()) {
        if media.volume_path(number).is_none() {
            lost.extend(shards(row.range(number as usize - 1)));
        }
    }
    let mut suspects = BTreeSet::new();
    for finding in found.iter().filter(|finding| !finding.span.is_empty()) {
        let start = row.range(finding.volume as usize - 1).start;
        suspects.extend(shards(start + finding.span.start..start + finding.span.end));
    }
    for shard in suspects.difference(&lost.clone()) {
        if !is_intact(&mut row, parity, *shard) {
            lost.insert(*shard);
        }
    }
    lost
}

fn is_intact(row: &mut Volumes, parity: &Parity, shard: usize) -> bool {
    let mut hasher = Blake3Hasher::default();
    let mut buffer = vec![0; 1 << 20];
    let (mut at, end) = (
        shard as u64 * parity.shard,
        (shard as u64 + 1) * parity.shard,
    );
    while at < end {
        let len = usize::try_from(end - at).map_or(buffer.len(), |left| left.min(buffer.len()));
        if row.read(at, &mut buffer[..len]).is_err() {
            return false;
        }
        hasher.update(&buffer[..len]);
        at += len as u64;
    }
    parity.data.get(shard) == Some(&hasher.finish())
}
