//! What can be done with a bundle that is installed, without its media: say what it is, hash it
//! again, and clean up.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::home::{Home, Slot};
use super::state::State;
use super::targets::Targets;
use super::{open_state, parallel};
use crate::bundle::manifest::{Manifest, Name};
use crate::bundle::on_disk::has_content;
use crate::digest::Sha256;
use crate::error::{Error, Result};
use crate::fs::remove_dir_all;

/// Names of the bundles that are installed on the node, sorted.
pub fn names(root: &Path) -> Result<Vec<String>> {
    let Ok(entries) = fs::read_dir(Home::all(root)) else {
        return Ok(Vec::new());
    };
    let mut names = Vec::new();
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.parse::<Name>().is_ok() && installed(root, &name)?.is_some() {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// The exact bytes of the manifest that is installed under a name, if one is.
pub fn installed(root: &Path, name: &str) -> Result<Option<String>> {
    let home = Home::new(root, name.parse()?);
    let state = State::read(&home)?;
    let current = state.in_effect().0;
    current
        .and_then(|generation| generation.manifest)
        .map(|identity| read_manifest(&home, identity))
        .transpose()
}

/// The manifest of a generation that is sealed, in place, or previous.
pub fn manifest(root: &Path, name: &str, identity: Sha256) -> Result<Manifest> {
    let home = Home::new(root, name.parse()?);
    Manifest::parse(read_manifest(&home, identity)?.as_bytes())
}

fn read_manifest(home: &Home, identity: Sha256) -> Result<String> {
    let path = home.manifest(identity);
    let text = fs::read_to_string(&path).map_err(Error::io("read", &path))?;
    if Sha256::of(text.as_bytes()) == identity {
        return Ok(text);
    }
    Err(Error::Damaged(format!(
        "{} is damaged; install again",
        path.display()
    )))
}

/// Where a proven image blob of a bundle is.
#[must_use]
pub fn blob(root: &Path, name: &Name, digest: Sha256) -> PathBuf {
    Home::new(root, name.clone()).blob(digest)
}

/// Hashes everything that is installed under a name. Returns the paths that are damaged or
/// missing; the next install repairs them, even when only the disk changed them.
pub fn verify(root: &Path, name: &str) -> Result<Vec<String>> {
    let home = Home::new(root, name.parse()?);
    let (_guard, mut state) = open_state(&home)?;
    let text = installed(root, name)?
        .ok_or_else(|| Error::Failed(format!("{name} is not installed on this node")))?;
    let manifest = Manifest::parse(text.as_bytes())?;
    let targets = Targets::of(&manifest, &home)?.list;
    let intact = parallel::map(targets.len(), |index| {
        let (entry, path) = (&targets[index].entry, &targets[index].published);
        Ok(has_content(&manifest, entry, path).unwrap_or(false))
    })?;
    let damaged: Vec<PathBuf> = targets
        .into_iter()
        .zip(intact)
        .filter(|(_, intact)| !intact)
        .map(|(target, _)| target.published)
        .collect();
    state.forget(&damaged);
    state.write(&home)?;
    Ok(damaged
        .iter()
        .map(|path| path.display().to_string())
        .collect())
}

/// Removes the previous generation, unfinished staging, and blobs that nothing needs any more.
pub fn prune(root: &Path, name: &str) -> Result<()> {
    let home = Home::new(root, name.parse()?);
    let (_guard, mut state) = open_state(&home)?;
    // What will be removed must not be offered any more, even if this ends half-way.
    let models = state.all_roots();
    state.remember_staging(models.iter());
    (state.previous, state.sealed) = (None, None);
    state.write(&home)?;
    for model in models {
        for slot in Slot::ALL {
            remove_dir_all(&home.slot(&model, slot))?;
        }
        let beside = home.beside(&model);
        for slot in Slot::ALL {
            remove_empty(home.slot(&model, slot).parent());
        }
        remove_empty(Some(&beside));
        remove_empty(beside.parent());
    }
    remove_dir_all(&home.staged_blobs())?;
    let Some(current) = state
        .current
        .take()
        .filter(|current| current.manifest.is_some())
    else {
        return remove_dir_all(&home.dir());
    };
    let keep: HashSet<PathBuf> = current
        .files
        .keys()
        .cloned()
        .chain(current.manifest.map(|identity| home.manifest(identity)))
        .collect();
    for dir in [home.blobs(), home.manifests()] {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            if !keep.contains(&entry.path()) {
                fs::remove_file(entry.path()).map_err(Error::io("remove", entry.path()))?;
            }
        }
    }
    State {
        current: Some(current),
        ..State::default()
    }
    .write(&home)
}

/// Removes a directory unless something is in it, e.g. of another bundle.
fn remove_empty(path: Option<&Path>) {
    let _ = path.map(fs::remove_dir);
}
