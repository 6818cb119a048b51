//! What of a bundle is here already: every file is compared chunk by chunk with the manifest,
//! first in staging, then at its final place.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::io::Errno;

use super::fill::Filling;
use super::prepare::{check_space, is_ours, prepare};
use super::state::{Stamp, State};
use super::targets::{Target, Use};
use super::{Store, parallel};
use crate::agent::child::lock;
use crate::bundle::ranges::ranges;
use crate::digest::{Sha256, Xxh3, xxh3_of_reader};
use crate::error::{Error, Result};

/// Where a target's content can come from without the network.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// It is complete and proven where it must be.
    Whole,
    /// The same content is at another path, `proven` by an earlier hash or seen chunk by chunk.
    Elsewhere { path: PathBuf, proven: bool },
    /// By chunk position: what staging has, and what only the published file has.
    Parts { staged: Vec<bool>, old: Vec<bool> },
}

/// What earlier runs proved.
struct Known {
    by_stamp: HashMap<Stamp, Sha256>,
    by_digest: HashMap<Sha256, PathBuf>,
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
        let mut known = Known::from(&lock(&self.state));
        if let Some(base) = self.base_home() {
            known.add(&State::read(&base)?);
        }
        let list = &self.targets.list;
        let found = parallel::map(list.len(), |index| self.examine(&list[index], &known))?;
        check_space(list.iter().zip(&found))?;
        let fillings = parallel::map(list.len(), |index| prepare(&list[index], &found[index]))?;
        let fillings: Vec<_> = fillings.into_iter().map(Mutex::new).collect();
        self.fill_from_installed(&fillings)?;
        Ok(fillings)
    }

    fn examine(&self, target: &Target, known: &Known) -> Result<Found> {
        let proven = |path| known.digest_of(path) == Some(target.entry.sha256);
        if proven(&target.staged) || (target.is_blob() && proven(&target.published)) {
            return Ok(Found::Whole);
        }
        if let Some(path) = known.by_digest.get(&target.entry.sha256) {
            return Ok(Found::Elsewhere {
                path: path.clone(),
                proven: true,
            });
        }
        let nothing = vec![false; target.entry.chunks.len()];
        let staged = if is_ours(&target.staged) {
            self.compare(target, &target.staged, &nothing)?
        } else {
            nothing
        };
        let old = self.compare(target, &target.published, &staged)?;
        let size = fs::metadata(&target.published).map(|metadata| metadata.len());
        if size.is_ok_and(|size| size == target.entry.size) && old.iter().all(|&has| has) {
            return Ok(Found::Elsewhere {
                path: target.published.clone(),
                proven: false,
            });
        }
        Ok(Found::Parts { staged, old })
    }

    /// Which chunks of a target the file at `path` has, besides those that `skip` marks.
    fn compare(&self, target: &Target, path: &Path, skip: &[bool]) -> Result<Vec<bool>> {
        let fail = |cause| Error::io("read", path)(cause);
        let Ok(mut file) = File::open(path) else {
            return Ok(vec![false; skip.len()]);
        };
        let metadata = file.metadata().map_err(fail)?;
        let mut have = Vec::with_capacity(skip.len());
        for (position, &index) in target.entry.chunks.iter().enumerate() {
            let (start, length) = target.span(position);
            let readable = metadata.is_file()
                && !skip[position]
                && start + length <= metadata.len()
                && has_data(&mut file, start, length);
            let wanted = self.manifest.chunks[index as usize].xxh3;
            have.push(readable && part_hash(&file, start, length).map_err(fail)? == wanted);
        }
        Ok(have)
    }
}

impl Known {
    fn from(state: &State) -> Self {
        let mut known = Self {
            by_stamp: HashMap::new(),
            by_digest: HashMap::new(),
        };
        known.add(state);
        known
    }

    fn add(&mut self, state: &State) {
        for (path, proof) in state.proofs() {
            self.by_stamp.insert(proof.stamp, proof.sha256);
            if Stamp::at(path) == Some(proof.stamp) {
                self.by_digest.insert(proof.sha256, path.clone());
            }
        }
    }

    fn digest_of(&self, path: &Path) -> Option<Sha256> {
        self.by_stamp.get(&Stamp::at(path)?).copied()
    }
}

/// Whether anything was ever written to this range: a reserved but unwritten one reads as zeros.
fn has_data(file: &mut File, start: u64, length: u64) -> bool {
    match rustix::fs::seek(&*file, rustix::fs::SeekFrom::Data(start)) {
        Ok(data) => data < start + length,
        Err(errno) => errno != Errno::NXIO,
    }
}

fn part_hash(mut file: &File, start: u64, length: u64) -> io::Result<Xxh3> {
    file.seek(SeekFrom::Start(start))?;
    xxh3_of_reader(file.take(length))
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
