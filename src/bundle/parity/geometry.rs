//! How many shards of which size, and where they stand.

use reed_solomon_simd::ReedSolomonEncoder;

use super::share::Share;
use crate::bundle::manifest::Parity;
use crate::bundle::volume::{BLOCK, END};
use crate::error::{Error, Result};

/// Shards are whole pages, so that rows are too.
const UNIT: u64 = 4096;

/// About so many data shards: so many scattered faults, times the share, can be outlived, while
/// a row of all of them still takes whole pages of each.
const DATA_SHARDS: u64 = 4096;

/// Memory for the shards that are worked on at a time, in bytes.
const MEMORY: usize = 64 << 20;

/// The least bytes of a shard that are coded alike wherever a row is cut.
const LEAST_ROW: usize = 64;

/// The shards of a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Data shards.
    pub data: usize,
    /// Recovery shards.
    pub recovery: usize,
    /// Bytes of each.
    pub shard: u64,
    /// Recovery shards in each recovery volume but the last, which may have fewer.
    pub per_volume: usize,
}

/// A part of every shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Where it starts in the shard.
    pub at: u64,
    /// Bytes.
    pub len: usize,
}

impl Geometry {
    /// For volumes of these sizes, so that any of them that make up no more than the share of all
    /// bytes can be rebuilt, and so can any range of that length. Recovery volumes stay below
    /// `limit` bytes.
    pub fn choose(sizes: &[u64], wanted: Share, limit: u64) -> Result<Self> {
        let total: u64 = sizes.iter().sum();
        let room = limit.saturating_sub(1 + END);
        let widest = room.saturating_sub(BLOCK) / UNIT * UNIT;
        let shard = total.div_ceil(DATA_SHARDS).next_multiple_of(UNIT);
        let shard = shard.min(widest).max(UNIT);
        let data = total.div_ceil(shard).max(1);
        // A run of bytes may touch two shards more than fit into it.
        let recovery = wanted.of(data) + 2 * whole_within(sizes, wanted.of(total)).max(1);
        let geometry = Self {
            data: usize::try_from(data).unwrap_or(usize::MAX),
            recovery: usize::try_from(recovery).unwrap_or(usize::MAX),
            shard,
            per_volume: usize::try_from(room / (BLOCK + shard)).unwrap_or(usize::MAX),
        };
        if geometry.is_possible() {
            return Ok(geometry);
        }
        Err(Error::Usage(format!(
            "recovery volumes of {limit} bytes are too small for {wanted} of {total} bytes; \
             choose a larger --volume-size"
        )))
    }

    /// That of a manifest's recovery volumes, or what is impossible about it. Nothing is allocated
    /// before this has passed.
    pub fn of(parity: &Parity, total: u64) -> std::result::Result<Self, &'static str> {
        if parity.shard == 0 || !parity.shard.is_multiple_of(UNIT) {
            return Err("has shards of an impossible size");
        }
        let entry = parity.shard.saturating_add(BLOCK);
        let first = parity.volumes.first().map_or(0, |volume| volume.size);
        let per_volume = usize::try_from(first.saturating_sub(END) / entry);
        let geometry = Self {
            data: parity.data.len(),
            recovery: parity.recovery.len(),
            shard: parity.shard,
            per_volume: per_volume.unwrap_or(0),
        };
        if geometry.data as u64 != total.div_ceil(parity.shard) || !geometry.is_possible() {
            return Err("has an impossible number of shards");
        }
        if parity.volumes.len() != geometry.volumes() {
            return Err("has an impossible number of volumes");
        }
        let sizes = (0..geometry.volumes()).map(|index| geometry.volume_size(index));
        let listed = parity.volumes.iter().map(|volume| Some(volume.size));
        if !listed.eq(sizes) {
            return Err("has a volume that does not end behind its shards");
        }
        Ok(geometry)
    }

    fn is_possible(&self) -> bool {
        self.per_volume > 0
            && self.data > 0
            && self.recovery > 0
            && self.data.saturating_add(self.recovery) <= 1 << 16
            && ReedSolomonEncoder::supports(self.data, self.recovery)
    }

    /// How many recovery volumes there are.
    #[must_use]
    pub fn volumes(&self) -> usize {
        self.recovery.div_ceil(self.per_volume)
    }

    /// The recovery shards of a recovery volume, counted from 0.
    #[must_use]
    pub fn shards_of(&self, volume: usize) -> std::ops::Range<usize> {
        let first = volume * self.per_volume;
        first..self.recovery.min(first + self.per_volume)
    }

    /// Bytes of a recovery volume; nothing when no file has so many.
    #[must_use]
    pub fn volume_size(&self, volume: usize) -> Option<u64> {
        let shards = self.shards_of(volume).len() as u64;
        shards.checked_mul(self.shard + BLOCK)?.checked_add(END)
    }

    /// The recovery volume of a recovery shard, from 0, and where the shard's bytes start there.
    #[must_use]
    pub fn place(&self, shard: usize) -> (usize, u64) {
        let before = (shard % self.per_volume) as u64;
        (
            shard / self.per_volume,
            before * (self.shard + BLOCK) + BLOCK,
        )
    }

    /// All rows when `shards` pieces of a row are in memory at once.
    pub(super) fn rows(&self, shards: usize) -> impl Iterator<Item = Row> + use<> {
        let page = usize::try_from(UNIT).unwrap_or(LEAST_ROW);
        let fair = MEMORY / shards.max(1);
        let unit = if fair < page { LEAST_ROW } else { page };
        let len = (fair / unit * unit).max(LEAST_ROW) as u64;
        let shard = self.shard;
        (0..shard.div_ceil(len)).map(move |number| Row {
            at: number * len,
            #[allow(clippy::cast_possible_truncation, reason = "a part of MEMORY")]
            len: (shard - number * len).min(len) as usize,
        })
    }
}

/// The most volumes that together make up no more than so many bytes.
fn whole_within(sizes: &[u64], bytes: u64) -> u64 {
    let mut sizes = sizes.to_vec();
    sizes.sort_unstable();
    let mut left = bytes;
    let fits = |size: &&u64| {
        let rest = left.checked_sub(**size);
        left = rest.unwrap_or(0);
        rest.is_some()
    };
    sizes.iter().take_while(fits).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const GB: u64 = 1_000_000_000;

    #[test]
    fn geometry_fits_the_bundle_and_the_volumes() {
        // sizes, volume size, share; data and recovery shards, per volume
        let cases = [
            // The reference deployment: one whole volume and 205 shards.
            (vec![4 * GB - 9000; 25], 4 * GB, "5%", (4096, 207, 163)),
            (vec![100_000], 4 * GB, "5%", (25, 4, 868_055)),
            (vec![], 4 * GB, "5%", (1, 3, 868_055)),
            // Shards are as large as small volumes allow.
            (vec![17_000_000; 6000], 17 << 20, "1%", (5724, 178, 1)),
        ];
        for (sizes, limit, share, expected) in cases {
            let geometry = Geometry::choose(&sizes, share.parse().unwrap(), limit).unwrap();
            let found = (geometry.data, geometry.recovery, geometry.per_volume);
            assert_eq!(found, expected);
            assert!(geometry.volume_size(0).unwrap() < limit);
            let last = geometry.recovery - 1;
            assert_eq!(geometry.place(last).0, geometry.volumes() - 1);
        }
        let small = Geometry::choose(&vec![17_000_000; 60_000], "100%".parse().unwrap(), 17 << 20);
        assert!(small.unwrap_err().to_string().contains("--volume-size"));
    }

    #[test]
    fn rows_cover_a_shard_within_the_memory() {
        let geometry = Geometry {
            data: 4096,
            recovery: 207,
            shard: 24_576_000,
            per_volume: 100,
        };
        for shards in [1, 12_495, 65_536, 200_000] {
            let mut end = 0;
            for row in geometry.rows(shards) {
                assert_eq!((row.at, row.len % LEAST_ROW), (end, 0));
                assert!(row.len * shards <= MEMORY);
                end += row.len as u64;
            }
            assert_eq!(end, geometry.shard);
        }
    }
}
