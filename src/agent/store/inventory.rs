//! What of a bundle is here already: every file is compared chunk by chunk with the manifest,
//! first in staging, then at its final place.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::io::Errno;

use super::fill::Filling;
use super::prepare::{check_space, is_ours, prepare};
use super::state::{Stamp, State};
use super::targets::{Target, Use};
use super::{Store, parallel};
use crate::agent::child::lock;
use crate::bundle::on_disk::has_chunk;
use crate::bundle::ranges::ranges;
use crate::digest::Blake3;
use crate::error::{Error, Result};
use crate::parallel::Buffers;

/// Where a target's content can come from without the network.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// It is whole where it must be, and looked like this when it was hashed.
    Whole(Stamp),
    /// So is a file at another path.
    Elsewhere(PathBuf, Stamp),
    /// By chunk position: what staging has, and what only the published file has.
    Parts { staged: Vec<bool>, old: Vec<bool> },
}

/// What earlier runs proved.
#[derive(Default)]
struct Known {
    by_stamp: HashMap<Stamp, Blake3>,
    by_content: HashMap<Blake3, (PathBuf, Stamp)>,
}

impl Store {
    /// Chunks that must come over the network, as half-open ranges of indices. The first call
    /// reads what is there; later ones know.
    pub fn inventory(&self) -> Result<Vec<(u32, u32)>> {
        if self.in_place {
            return Ok(Vec::new());
        }
        let mut fillings = self
            .fillings
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        if fillings.is_empty() {
            *fillings = self.take_stock()?;
        }
        let lacks = |uses: &Vec<Use>| {
            uses.iter()
                .any(|place| !lock(&fillings[place.target]).have[place.position])
        };
        let uses = (0..).zip(&self.targets.uses);
        let lacking = uses.filter_map(|(index, uses)| lacks(uses).then_some(index));
        Ok(ranges(lacking))
    }

    fn take_stock(&self) -> Result<Vec<Mutex<Filling>>> {
        let mut known = Known::default();
        known.add(&lock(&self.state));
        if let Some(base) = self.base_home() {
            known.add(&State::read(&base)?);
        }
        let list = &self.targets.list;
        let found = parallel::map(list.len(), |index| self.examine(&list[index], &known))?;
        check_space(list.iter().zip(&found))?;
        let fillings = parallel::map(list.len(), |index| prepare(&list[index], &found[index]))?;
        let fillings: Vec<_> = fillings.into_iter().map(Mutex::new).collect();
        self.fill_from_here(&found, &fillings)?;
        Ok(fillings)
    }

    fn examine(&self, target: &Target, known: &Known) -> Result<Found> {
        let stamp = |path| {
            let stamp = Stamp::at(path)?;
            (known.by_stamp.get(&stamp) == Some(&target.content)).then_some(stamp)
        };
        let there = stamp(&target.staged);
        let published = || target.is_blob().then(|| stamp(&target.published))?;
        if let Some(stamp) = there.or_else(published) {
            return Ok(Found::Whole(stamp));
        }
        if let Some((path, stamp)) = known.by_content.get(&target.content) {
            return Ok(Found::Elsewhere(path.clone(), *stamp));
        }
        let nothing = vec![false; target.entry.chunks.len()];
        let (staged, whole) = if is_ours(&target.staged) {
            self.compare(target, &target.staged, &nothing)?
        } else {
            (nothing, None)
        };
        if let Some(stamp) = whole {
            return Ok(Found::Whole(stamp));
        }
        let (old, whole) = self.compare(target, &target.published, &staged)?;
        Ok(match whole {
            Some(stamp) => Found::Elsewhere(target.published.clone(), stamp),
            None => Found::Parts { staged, old },
        })
    }

    /// Which chunks of a target the file at `path` has, besides those that `skip` marks; and how it
    /// looked before, when it has all of them and nothing else.
    fn compare(
        &self,
        target: &Target,
        path: &Path,
        skip: &[bool],
    ) -> Result<(Vec<bool>, Option<Stamp>)> {
        let fail = |cause| Error::io("read", path)(cause);
        let Ok(mut file) = File::open(path) else {
            return Ok((vec![false; skip.len()], None));
        };
        let metadata = file.metadata().map_err(fail)?;
        let buffers = Buffers::default();
        let mut have = Vec::with_capacity(skip.len());
        for (position, chunk) in self.manifest.chunks_of(&target.entry).enumerate() {
            let (start, length) = target.span(position);
            let readable = metadata.is_file()
                && !skip[position]
                && start + length <= metadata.len()
                && has_data(&mut file, start, length);
            have.push(readable && has_chunk(path, start, chunk, &buffers).map_err(fail)?);
        }
        let whole = metadata.is_file()
            && metadata.len() == target.entry.size
            && have.iter().all(|&has| has);
        Ok((have, whole.then(|| Stamp::of(&metadata))))
    }
}

impl Known {
    fn add(&mut self, state: &State) {
        for (path, proof) in state.proofs() {
            self.by_stamp.insert(proof.stamp, proof.content);
            if Stamp::at(path) == Some(proof.stamp) {
                let place = (path.clone(), proof.stamp);
                self.by_content.insert(proof.content, place);
            }
        }
    }
}

/// Whether anything was ever written to this range: a reserved but unwritten one reads as zeros.
fn has_data(file: &mut File, start: u64, length: u64) -> bool {
    match rustix::fs::seek(&*file, rustix::fs::SeekFrom::Data(start)) {
        Ok(data) => data < start + length,
        Err(errno) => errno != Errno::NXIO,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn a_reserved_range_has_no_data() {
        let mut file = tempfile::tempfile().unwrap();
        file.set_len(64 << 20).unwrap();
        file.write_all_at(&[1], 20 << 20).unwrap();
        assert!(!has_data(&mut file, 0, 16 << 20));
        assert!(has_data(&mut file, 16 << 20, 16 << 20));
        assert!(!has_data(&mut file, 32 << 20, 16 << 20));
    }
}
