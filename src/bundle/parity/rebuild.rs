//! Working out lost data shards from the others and recovery shards.

use std::collections::BTreeSet;

use reed_solomon_simd::ReedSolomonDecoder;

use super::encode::failed;
use super::files::{Files, Volumes};
use super::geometry::{Geometry, Row};
use crate::error::{Error, Result};

/// What is lost, and what is there to make up for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loss {
    /// Data shards that are damaged or missing.
    pub data: BTreeSet<usize>,
    /// Recovery shards that are intact.
    pub recovery: Vec<usize>,
}

/// Takes a piece of a data shard that was rebuilt: the shard's number, where in the shard the piece
/// starts, and its bytes.
pub type Restored<'a> = &'a mut dyn FnMut(usize, u64, &[u8]) -> Result<()>;

impl Loss {
    /// Whether all that is lost can be rebuilt.
    #[must_use]
    pub fn can_be_rebuilt(&self) -> bool {
        self.data.len() <= self.recovery.len()
    }
}

/// Rebuilds the lost data shards, and hands them on in pieces. `step` is told the bytes of the volumes that are worked through.
pub fn rebuild(
    volumes: &mut Volumes,
    recovery: &mut Files,
    geometry: &Geometry,
    loss: &Loss,
    restored: Restored<'_>,
    step: &dyn Fn(u64),
) -> Result<()> {
    if loss.data.is_empty() {
        return Ok(());
    }
    if !loss.can_be_rebuilt() {
        return Err(Error::Damaged(format!(
            "{} shards are lost, and only {} recovery shards are intact",
            loss.data.len(),
            loss.recovery.len()
        )));
    }
    let padded = geometry.recovery.next_power_of_two() + geometry.data;
    let mut decoder: Option<(usize, ReedSolomonDecoder)> = None;
    // The decoder's own copy, and the piece at hand.
    for row in geometry.rows(padded.next_power_of_two() + 1) {
        let decoder = match &mut decoder {
            Some((len, decoder)) if *len == row.len => decoder,
            other => {
                let new = ReedSolomonDecoder::new(geometry.data, geometry.recovery, row.len);
                &mut other.insert((row.len, new.map_err(failed)?)).1
            }
        };
        load(decoder, volumes, recovery, geometry, loss, row)?;
        let made = decoder.decode().map_err(failed)?;
        for (shard, piece) in made.restored_original_iter() {
            restored(shard, row.at, piece)?;
        }
        step((row.at + row.len as u64) * geometry.data as u64);
    }
    Ok(())
}

/// Gives a decoder a row: all intact data shards, and as many recovery shards as others are lost.
fn load(
    decoder: &mut ReedSolomonDecoder,
    volumes: &mut Volumes,
    recovery: &mut Files,
    geometry: &Geometry,
    loss: &Loss,
    row: Row,
) -> Result<()> {
    let mut piece = vec![0; row.len];
    for shard in (0..geometry.data).filter(|shard| !loss.data.contains(shard)) {
        volumes.read(shard as u64 * geometry.shard + row.at, &mut piece)?;
        decoder.add_original_shard(shard, &piece).map_err(failed)?;
    }
    for &shard in loss.recovery.iter().take(loss.data.len()) {
        let (volume, start) = geometry.place(shard);
        recovery.read(volume, start + row.at, &mut piece)?;
        decoder.add_recovery_shard(shard, &piece).map_err(failed)?;
    }
    Ok(())
}
