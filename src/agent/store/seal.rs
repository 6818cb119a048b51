//! The end of filling: every file has all of its chunks, everything is on the disk, and nothing else
//! stands in the staging directories.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::fill::Filling;
use super::home::Slot;
use super::prepare::make_way;
use super::state::{Generation, Proof, Stamp};
use super::targets::Target;
use super::{Store, parallel};
use crate::agent::child::lock;
use crate::error::{Error, Result};
use crate::fs::{create_dir_all, sync_dir, write_atomic};

impl Store {
    /// Makes sure that all content is here, and makes it durable. [`Error::Damaged`] names a file
    /// that somebody changed; it is discarded, so that it comes again in the next round.
    pub fn seal(&self) -> Result<()> {
        if self.in_place {
            return Ok(());
        }
        let list = &self.targets.list;
        let fillings = self.fillings.read().unwrap_or_else(PoisonError::into_inner);
        if fillings.len() != list.len() {
            return Err(Error::Failed(
                "the node's inventory was not taken before sealing".into(),
            ));
        }
        let proofs = parallel::map(list.len(), |index| settle(&list[index], &fillings[index]))?;
        let published = list.iter().map(|target| target.published.clone());
        let files: BTreeMap<PathBuf, Proof> = published.zip(proofs).collect();
        self.tidy_staging()?;
        self.keep_blobs()?;
        create_dir_all(&self.home.manifests())?;
        write_atomic(
            &self.home.manifest(self.identity),
            self.manifest_text.as_bytes(),
        )?;
        let mut state = lock(&self.state);
        state.sealed = Some(Generation {
            manifest: Some(self.identity),
            roots: self.targets.roots.clone(),
            files,
        });
        state.write(&self.home)
    }

    fn tidy_staging(&self) -> Result<()> {
        let wanted: HashSet<&Path> = self
            .targets
            .list
            .iter()
            .map(|target| target.staged.as_path())
            .collect();
        for root in &self.targets.roots {
            let staging = self.home.slot(root, Slot::Staging);
            create_dir_all(&staging)?;
            tidy(&staging, &wanted)?;
        }
        Ok(())
    }

    /// Moves proven image blobs to where all generations keep them: their names are their content.
    fn keep_blobs(&self) -> Result<()> {
        let blobs = self.home.blobs();
        create_dir_all(&blobs)?;
        for target in self.targets.list.iter().filter(|target| target.is_blob()) {
            if target.staged.exists() {
                fs::rename(&target.staged, &target.published)
                    .map_err(Error::io("rename", &target.staged))?;
            }
        }
        sync_dir(&blobs)
    }
}

/// Syncs a file whose chunks were all hashed, when they came or where they are.
fn settle(target: &Target, filling: &Mutex<Filling>) -> Result<Proof> {
    let mut filling = lock(filling);
    let missing = filling.have.iter().filter(|&&has| !has).count();
    if missing > 0 {
        return Err(Error::Failed(format!(
            "{} is not complete: {missing} of its {} chunks are missing",
            target.published.display(),
            filling.have.len()
        )));
    }
    let kept = target.is_blob() && !target.staged.exists();
    let path = if kept {
        &target.published
    } else {
        &target.staged
    };
    let fail = |cause| Error::io("sync", path)(cause);
    let file = File::open(path).map_err(fail)?;
    file.set_permissions(Permissions::from_mode(target.mode()))
        .and_then(|()| file.sync_all())
        .map_err(fail)?;
    let stamp = Stamp::of(&file.metadata().map_err(fail)?);
    if filling.stamp.is_some_and(|hashed| hashed != stamp) {
        discard(target, &mut filling)?;
        return Err(Error::Damaged(format!(
            "somebody wrote to {} after it was found intact; it was discarded: run the same command again",
            target.published.display()
        )));
    }
    Ok(Proof {
        content: target.content,
        stamp,
    })
}

/// Replaces a file by an empty one of its size. A new one: the old may have other names.
fn discard(target: &Target, filling: &mut Filling) -> Result<()> {
    make_way(&target.staged)?;
    File::create_new(&target.staged)
        .and_then(|file| file.set_len(target.entry.size))
        .map_err(Error::io("replace", &target.staged))?;
    *filling = Filling {
        have: vec![false; filling.have.len()],
        stamp: None,
    };
    Ok(())
}

/// Removes what is not wanted below a directory, sets modes, and makes names durable. Says
/// whether anything is left in it.
fn tidy(dir: &Path, wanted: &HashSet<&Path>) -> Result<bool> {
    let fail = |cause| Error::io("tidy", dir)(cause);
    let mut kept = false;
    for entry in fs::read_dir(dir).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let path = entry.path();
        if !entry.file_type().map_err(fail)?.is_dir() {
            if wanted.contains(path.as_path()) {
                kept = true;
            } else {
                fs::remove_file(&path).map_err(Error::io("remove", &path))?;
            }
        } else if tidy(&path, wanted)? {
            kept = true;
        } else {
            fs::remove_dir(&path).map_err(Error::io("remove", &path))?;
        }
    }
    fs::set_permissions(dir, Permissions::from_mode(0o755)).map_err(fail)?;
    sync_dir(dir)?;
    Ok(kept)
}
