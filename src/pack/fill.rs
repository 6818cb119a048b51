//! Fill volumes: what a request of the far side asks for, from a bundle that is still here.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::preflight::check_volume_size;
use crate::bundle::manifest::Volume;
use crate::bundle::media::Media;
use crate::bundle::request;
use crate::bundle::volume::{VolumeWriter, part_path};
use crate::error::{Error, Result};
use crate::fs::{Lock, create_dir_all};

/// What became of a request.
#[derive(Debug)]
pub struct Filled {
    /// The fill volumes.
    pub volumes: Vec<Volume>,
    /// How many chunks are in them.
    pub chunks: usize,
    /// How many cannot be had here either.
    pub lacking: usize,
    /// Why, for each volume by its number.
    pub faults: BTreeMap<u32, String>,
}

/// Writes fill volumes for the request in `file` into `out`, each below `limit` bytes, with all
/// that is intact in the bundle at hand.
pub fn write(media: &Media, file: &Path, out: &Path, limit: u64) -> Result<Filled> {
    let asked = request::read(file, media)?;
    create_dir_all(out)?;
    let lock_path = part_path(out, &asked.volumes);
    let lock = Lock::take(&lock_path, "packing this here")?;
    check_volume_size(out, limit)?;
    let mut writer = VolumeWriter::named(out, limit, asked.volumes);
    let (mut chunks, mut faults) = (0, BTreeMap::new());
    let mut stored = Vec::new();
    for &index in &asked.chunks {
        let chunk = &media.manifest().chunks[index as usize];
        match media.read_chunk(index, &mut stored) {
            Ok(()) => {
                writer.append(&chunk.blob, &stored)?;
                chunks += 1;
            }
            Err(error @ Error::Damaged(_)) => {
                faults.entry(chunk.volume).or_insert(error.to_string());
            }
            Err(error) => return Err(error),
        }
    }
    let volumes = writer.finish()?;
    fs::remove_file(&lock_path).map_err(Error::io("remove", &lock_path))?;
    drop(lock);
    Ok(Filled {
        volumes,
        lacking: asked.chunks.len() - chunks,
        chunks,
        faults,
    })
}
