//! Making recovery volumes: one thread reads rows and hashes the data shards, another codes them
//! and writes the recovery shards.

use std::fs::{self, File};
use std::path::Path;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use reed_solomon_simd::ReedSolomonEncoder;

use super::files::{Files, Volumes};
use super::geometry::{Geometry, Row};
use super::recovery_name;
use crate::bundle::manifest::{Parity, Volume};
use crate::bundle::volume::{END, entry_header, part_path};
use crate::digest::{Blake3, Blake3Hasher, Hasher, Sha256, sha256_of_reader};
use crate::error::{Error, Result};
use crate::fs::sync_dir;
use crate::parallel::{Buffer, Buffers};

/// What is announced of each shard at once: a disk that seeks then reads so much in one go.
const AHEAD: usize = 256 << 10;

/// Writes the recovery volumes of `volumes` into `dir`, as `par-NNNN.tar.part`; [`publish`] then
/// gives them their names. `step` is told the bytes of the volumes that are coded by now; its
/// error ends the work.
pub fn encode(
    volumes: Volumes,
    geometry: &Geometry,
    dir: &Path,
    step: &mut dyn FnMut(u64) -> Result<()>,
) -> Result<Parity> {
    let names: Vec<String> = (1..).take(geometry.volumes()).map(recovery_name).collect();
    let paths = names.iter().map(|name| part_path(dir, name)).collect();
    let mut files = Files::create(paths)?;
    let (data, recovery) = code(volumes, geometry, &mut files, step)?;
    let frame = |(index, name)| frame(&mut files, geometry, index, name, &recovery);
    let volumes = names.into_iter().enumerate().map(frame);
    Ok(Parity {
        shard: geometry.shard,
        volumes: volumes.collect::<Result<_>>()?,
        data,
        recovery,
    })
}

/// Gives recovery volumes in `dir` their names.
pub fn publish(parity: &Parity, dir: &Path) -> Result<()> {
    for volume in &parity.volumes {
        let path = dir.join(&volume.name);
        fs::rename(part_path(dir, &volume.name), &path).map_err(Error::io("rename to", &path))?;
    }
    sync_dir(dir)
}

/// Writes the bytes of all recovery shards; returns the digests of all shards.
fn code(
    volumes: Volumes,
    geometry: &Geometry,
    files: &mut Files,
    step: &mut dyn FnMut(u64) -> Result<()>,
) -> Result<(Vec<Blake3>, Vec<Sha256>)> {
    // Two rows of data, the encoder's own copy, and what it makes.
    let padded = geometry
        .data
        .next_multiple_of(geometry.recovery.next_power_of_two());
    let in_memory = 2 * geometry.data + padded + geometry.recovery;
    let rows = || geometry.rows(in_memory);
    let mut hashers = vec![Hasher::default(); geometry.recovery];
    let mut encoder: Option<(usize, ReedSolomonEncoder)> = None;
    let data = thread::scope(|scope| {
        let (sender, buffers) = sync_channel(0);
        let reader = scope.spawn(move || read_rows(volumes, *geometry, rows(), &sender));
        for (row, data) in rows().zip(buffers) {
            let encoder = match &mut encoder {
                Some((len, encoder)) if *len == row.len => encoder,
                other => {
                    let new = ReedSolomonEncoder::new(geometry.data, geometry.recovery, row.len);
                    &mut other.insert((row.len, new.map_err(failed)?)).1
                }
            };
            code_row(encoder, geometry, row, &data, files, &mut hashers)?;
            step((row.at + row.len as u64) * geometry.data as u64)?;
        }
        reader.join().map_err(|_| {
            Error::Failed("a reading thread died; this is a bug, please report it".into())
        })?
    })?;
    let recovery = hashers.into_iter().map(Hasher::finish).collect();
    Ok((data, recovery))
}

fn code_row(
    encoder: &mut ReedSolomonEncoder,
    geometry: &Geometry,
    row: Row,
    data: &[u8],
    files: &mut Files,
    hashers: &mut [Hasher],
) -> Result<()> {
    for piece in data.chunks_exact(row.len) {
        encoder.add_original_shard(piece).map_err(failed)?;
    }
    let made = encoder.encode().map_err(failed)?;
    for ((shard, hasher), piece) in hashers.iter_mut().enumerate().zip(made.recovery_iter()) {
        hasher.update(piece);
        let (volume, start) = geometry.place(shard);
        files.write(volume, start + row.at, piece)?;
    }
    Ok(())
}

/// Reads all rows and sends each, shard after shard; returns the digests of the shards.
fn read_rows(
    mut volumes: Volumes,
    geometry: Geometry,
    rows: impl Iterator<Item = Row>,
    sender: &SyncSender<Buffer>,
) -> Result<Vec<Blake3>> {
    let buffers = Buffers::default();
    let mut hashers = vec![Blake3Hasher::default(); geometry.data];
    let mut announced = 0;
    for row in rows {
        while announced <= row.at + AHEAD as u64 && announced < geometry.shard {
            announce(&mut volumes, &geometry, announced);
            announced += AHEAD as u64;
        }
        let mut data = buffers.take(row.len * geometry.data);
        let pieces = data.chunks_exact_mut(row.len);
        for ((number, hasher), piece) in (0..).zip(&mut hashers).zip(pieces) {
            volumes.read(number * geometry.shard + row.at, piece)?;
            hasher.update(piece);
        }
        if sender.send(data).is_err() {
            break; // The other side says why.
        }
    }
    Ok(hashers.iter().map(Blake3Hasher::finish).collect())
}

/// Announces a part of every shard.
fn announce(volumes: &mut Volumes, geometry: &Geometry, at: u64) {
    let len = (geometry.shard - at).min(AHEAD as u64);
    for shard in 0..geometry.data as u64 {
        #[allow(clippy::cast_possible_truncation, reason = "at most AHEAD")]
        volumes.announce(shard * geometry.shard + at, len as usize);
    }
}

/// Writes a recovery volume's headers and end, and hashes the whole of it.
fn frame(
    files: &mut Files,
    geometry: &Geometry,
    index: usize,
    name: String,
    recovery: &[Sha256],
) -> Result<Volume> {
    for shard in geometry.shards_of(index) {
        let header = entry_header(&recovery[shard], geometry.shard)?;
        let (_, start) = geometry.place(shard);
        files.write(index, start - header.len() as u64, &header)?;
    }
    let size = geometry.volume_size(index).unwrap_or(u64::MAX);
    let zeros = [0; 1024];
    files.write(index, size - END, &zeros)?;
    files.sync(index)?;
    let path = files.path(index);
    let (sha256, size) = File::open(path)
        .and_then(sha256_of_reader)
        .map_err(Error::io("read", path))?;
    Ok(Volume { name, size, sha256 })
}

/// The geometry was checked, so this does not happen.
pub(super) fn failed(error: reed_solomon_simd::Error) -> Error {
    Error::Failed(format!(
        "cannot work with recovery shards: {error}; this is a bug, please report it"
    ))
}
