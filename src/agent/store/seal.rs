//! The proof: every file's SHA-256 equals the manifest, everything is on the disk, and nothing
//! else stands in the staging directories.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File, Permissions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::fill::Filling;
use super::home::Slot;
use super::state::{Generation, Proof, Stamp};
use super::targets::Target;
use super::{Store, parallel};
use crate::agent::child::lock;
use crate::error::{Error, Result};
use crate::fs::{create_dir_all, sync_dir, write_atomic};

impl Store {
    /// Proves that all content is here and intact, and makes it durable. [`Error::Damaged`]
    /// names a file that is not; it is discarded, so that it comes again in the next round.
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
        let proofs = parallel::map(list.len(), |index| prove(&list[index], &fillings[index]))?;
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

/// Hashes what was not hashed on the way, and syncs.
fn prove(target: &Target, filling: &Mutex<Filling>) -> Result<Proof> {
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
    let fail = |cause| Error::io("prove", path)(cause);
    let mut file = File::open(path).map_err(fail)?;
    if !filling.proven {
        let mut hasher = std::mem::take(&mut filling.prefix);
        file.seek(SeekFrom::Start(hasher.bytes())).map_err(fail)?;
        io::copy(&mut file, &mut hasher).map_err(fail)?;
        if hasher.finish() != target.entry.sha256 {
            discard(target, &mut filling)?;
            return Err(Error::Damaged(format!(
                "{} does not have the SHA-256 of the manifest although all of its chunks came; it was discarded: run `bundle verify` on the bundle, then the same command again",
                target.published.display()
            )));
        }
        filling.proven = true;
    }
    file.set_permissions(Permissions::from_mode(target.mode()))
        .and_then(|()| file.sync_all())
        .map_err(fail)?;
    Ok(Proof {
        sha256: target.entry.sha256,
        stamp: Stamp::of(&file.metadata().map_err(fail)?),
    })
}

/// Replaces a damaged file by an empty one of its size. A new one: the old may have other names.
fn discard(target: &Target, filling: &mut Filling) -> Result<()> {
    fs::remove_file(&target.staged)
        .and_then(|()| File::create_new(&target.staged))
        .and_then(|file| file.set_len(target.entry.size))
        .map_err(Error::io("replace", &target.staged))?;
    *filling = Filling::new(vec![false; filling.have.len()], false);
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
