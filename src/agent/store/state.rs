//! What a node remembers of a bundle between runs: the generations, and the proof of each file,
//! so that unchanged files need not be hashed again. One file, replaced atomically.

use std::collections::{BTreeMap, HashSet};
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::home::Home;
use super::switch::Switch;
use super::targets::Targets;
use crate::agent::protocol::Version;
use crate::bundle::manifest::Manifest;
use crate::digest::{Blake3, Sha256};
use crate::error::{Error, Result};
use crate::fs::{read_limited, write_atomic};
use crate::path::AbsPath;

/// Far above the state of a bundle with 100,000 files.
const MAX_STATE: u64 = 256 << 20;

/// All that is remembered of a bundle.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct State {
    /// What is in place.
    pub current: Option<Generation>,
    /// What was in place before.
    pub previous: Option<Generation>,
    /// What is complete and proven but not in place yet.
    pub sealed: Option<Generation>,
    /// Models whose staging directories may hold something.
    pub staging: Vec<AbsPath>,
    /// What shall be in place, from the moment when all nodes are asked whether they can until
    /// this one has switched.
    #[serde(default)]
    pub prepared: Option<Version>,
    /// A switch that was begun; it is always finished.
    pub switch: Option<Switch>,
}

/// The content of a bundle at one time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generation {
    /// SHA-256 of its `bundle.json`; absent for what was there before the first install.
    pub manifest: Option<Sha256>,
    /// The directories of models and extras.
    pub roots: Vec<AbsPath>,
    /// Files that were hashed, by the path at which they are published.
    pub files: BTreeMap<PathBuf, Proof>,
}

/// That a file had this content when it looked like this.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// See [`Manifest::content`].
    pub content: Blake3,
    /// How it looked.
    pub stamp: Stamp,
}

/// How a file looks from outside: any write changes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Stamp {
    inode: u64,
    size: u64,
    /// Seconds and nanoseconds of the last write.
    modified: (i64, i64),
}

impl Stamp {
    /// From a file's metadata.
    pub fn of(metadata: &Metadata) -> Self {
        Self {
            inode: metadata.ino(),
            size: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }

    /// Of the file at a path, if it is one.
    pub fn at(path: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(path).ok()?;
        metadata.is_file().then(|| Self::of(&metadata))
    }
}

impl State {
    /// Reads it; a bundle that was never here has an empty one.
    pub fn read(home: &Home) -> Result<Self> {
        let path = home.state_file();
        if !path.exists() {
            return Ok(Self::default());
        }
        serde_json::from_slice(&read_limited(&path, MAX_STATE)?).map_err(|error| {
            Error::Damaged(format!(
                "{} is damaged ({error}); remove it and install again: intact files are found by their content",
                path.display()
            ))
        })
    }

    /// Writes it, durably and atomically.
    pub fn write(&self, home: &Home) -> Result<()> {
        let bytes = serde_json::to_vec(self)
            .map_err(|error| Error::Failed(format!("cannot write the node's state: {error}")))?;
        write_atomic(&home.state_file(), &bytes)
    }

    /// The manifest of what is in place, unless there is none or it is damaged.
    pub fn current_manifest(&self, home: &Home) -> Option<Manifest> {
        let identity = self.current.as_ref()?.manifest?;
        let bytes = std::fs::read(home.manifest(identity)).ok()?;
        (Sha256::of(&bytes) == identity).then(|| Manifest::parse(&bytes).ok())?
    }

    /// What is in place and what was before, once a switch that was begun is finished.
    pub fn in_effect(&self) -> (Option<&Generation>, Option<&Generation>) {
        match &self.switch {
            Some(switch) => switch.outcome(),
            None => (self.current.as_ref(), self.previous.as_ref()),
        }
    }

    /// Whether this very manifest is in place and no file looks changed.
    pub fn holds(&self, identity: Sha256, targets: &Targets) -> bool {
        let Some(current) = &self.current else {
            return false;
        };
        current.manifest == Some(identity)
            && targets.list.iter().all(|target| {
                current.files.get(&target.published).is_some_and(|proof| {
                    proof.content == target.content
                        && Stamp::at(&target.published) == Some(proof.stamp)
                })
            })
    }

    /// Notes which staging directories will exist, so that prune finds them.
    pub fn remember_staging<'a>(&mut self, models: impl Iterator<Item = &'a AbsPath>) {
        self.staging.extend(models.cloned());
        self.staging.sort();
        self.staging.dedup();
    }

    /// Every model directory that any generation or staging ever used, without repeats.
    pub fn all_roots(&self) -> Vec<AbsPath> {
        let mut roots: Vec<AbsPath> = [&self.current, &self.previous, &self.sealed]
            .into_iter()
            .flatten()
            .flat_map(|generation| &generation.roots)
            .chain(&self.staging)
            .cloned()
            .collect();
        roots.sort();
        roots.dedup();
        roots
    }

    /// Drops all proofs of files that look like these, which were found damaged.
    pub fn forget(&mut self, damaged: &[PathBuf]) {
        let stamps: HashSet<Stamp> = damaged.iter().filter_map(|path| Stamp::at(path)).collect();
        [&mut self.current, &mut self.sealed, &mut self.previous]
            .into_iter()
            .flatten()
            .for_each(|generation| {
                generation
                    .files
                    .retain(|_, proof| !stamps.contains(&proof.stamp));
            });
    }

    /// Proofs of all generations.
    pub fn proofs(&self) -> impl Iterator<Item = (&PathBuf, &Proof)> {
        [&self.current, &self.sealed, &self.previous]
            .into_iter()
            .flatten()
            .flat_map(|generation| &generation.files)
    }
}
