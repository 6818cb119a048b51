//! Reading a bundle from the directories that it was carried in: one, or one per medium.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::manifest::{Chunk, Manifest, Owners};
use super::{MANIFEST_NAME, volume_name};
use crate::digest::Sha256;
use crate::error::{Error, Result};
use crate::fs::read_limited;

/// A manifest of 100 TB has about this size; anything larger is something else.
const MAX_MANIFEST: u64 = 4 << 30;

/// A bundle's manifest and those of its volumes that are at hand. Shared by threads.
pub struct Media {
    dir: PathBuf,
    manifest: Manifest,
    manifest_bytes: Vec<u8>,
    /// By volume number from 0; `None` when no directory has it.
    volumes: Vec<Option<PathBuf>>,
    /// Likewise the recovery volumes.
    recovery: Vec<Option<PathBuf>>,
    /// The volume that was read last: kept open, so that the system sees one sequential read.
    last: Mutex<Option<(u32, Arc<File>)>>,
}

impl Media {
    /// Opens a bundle. At least one directory must hold its `bundle.json`, and all that do must
    /// hold the same one; each volume is taken from the first directory that has it.
    pub fn open(dirs: &[PathBuf]) -> Result<Self> {
        let (dir, manifest_bytes) = common_manifest(dirs)?;
        let manifest = Manifest::parse(&manifest_bytes)?;
        let find = |volume: &super::manifest::Volume| {
            let paths = dirs.iter().map(|dir| dir.join(&volume.name));
            paths.into_iter().find(|path| path.is_file())
        };
        let recovery = manifest.recovery_volumes();
        Ok(Self {
            dir,
            volumes: manifest.volumes.iter().map(find).collect(),
            recovery: recovery.iter().map(find).collect(),
            manifest,
            manifest_bytes,
            last: Mutex::new(None),
        })
    }

    /// The directory that the manifest was read from; the executable and `SHA256SUMS` are there.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What the bundle holds.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The exact bytes of `bundle.json`, which a signature covers.
    #[must_use]
    pub fn manifest_bytes(&self) -> &[u8] {
        &self.manifest_bytes
    }

    /// Where a volume is, counted from 1; `None` when it is not at hand.
    #[must_use]
    pub fn volume_path(&self, number: u32) -> Option<&Path> {
        let index = number.checked_sub(1)? as usize;
        self.volumes.get(index)?.as_deref()
    }

    /// Where a recovery volume is, counted from 0; `None` when it is not at hand.
    #[must_use]
    pub fn recovery_path(&self, index: usize) -> Option<&Path> {
        self.recovery.get(index)?.as_deref()
    }

    /// Names of the volumes that are not at hand.
    pub fn missing(&self) -> impl Iterator<Item = &str> {
        let named = self.manifest.volumes.iter().zip(&self.volumes);
        named.filter_map(|(volume, path)| path.is_none().then_some(volume.name.as_str()))
    }

    /// Whether the volume of this chunk is at hand.
    #[must_use]
    pub fn has_chunk(&self, index: u32) -> bool {
        self.chunk(index)
            .is_ok_and(|chunk| self.volume_path(chunk.volume).is_some())
    }

    /// Reads a chunk's stored bytes into `stored` and checks their SHA-256. Indices in ascending
    /// order are one sequential read of the media.
    pub fn read_chunk(&self, index: u32, stored: &mut Vec<u8>) -> Result<()> {
        self.read_unchecked(index, stored)?;
        if Sha256::of(stored) == self.chunk(index)?.blob {
            return Ok(());
        }
        Err(self.damaged(index, "does not have its SHA-256"))
    }

    /// As [`Media::read_chunk`], for callers that check what they make of the bytes.
    pub fn read_unchecked(&self, index: u32, stored: &mut Vec<u8>) -> Result<()> {
        let chunk = self.chunk(index)?;
        let (file, path) = self.volume(chunk.volume)?;
        stored.resize(chunk.stored as usize, 0);
        match file.read_exact_at(stored, chunk.offset) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                Err(self.damaged(index, "lies behind the end of the volume"))
            }
            Err(error) => Err(Error::io("read", path)(error)),
        }
    }

    /// Opens a volume, counted from 1, or says that it is missing.
    pub fn open_volume(&self, number: u32) -> Result<File> {
        let path = self.volume_path(number).ok_or_else(|| {
            Error::Damaged(format!(
                "{} is missing; insert its medium, or name its directory too",
                volume_name(number)
            ))
        })?;
        let file = File::open(path).map_err(Error::io("open", path))?;
        // Only advice: a filesystem that refuses it reads as well.
        let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::Sequential);
        Ok(file)
    }

    /// The error for a chunk that is not what the manifest says, with the files it belongs to.
    #[must_use]
    pub fn damaged(&self, index: u32, fault: &str) -> Error {
        let Some(chunk) = self.manifest.chunks.get(index as usize) else {
            return no_such_chunk(index);
        };
        let owners = Owners::of(&self.manifest, [index]);
        let owners: Vec<_> = owners.get(index).iter().map(ToString::to_string).collect();
        Error::Damaged(format!(
            "{} is damaged: chunk {} at byte {} {fault} ({}); copy this volume again",
            volume_name(chunk.volume),
            chunk.blob,
            chunk.offset,
            owners.join(", ")
        ))
    }

    fn chunk(&self, index: u32) -> Result<&Chunk> {
        let chunk = self.manifest.chunks.get(index as usize);
        chunk.ok_or_else(|| no_such_chunk(index))
    }

    /// The open volume, and its path for messages.
    fn volume(&self, number: u32) -> Result<(Arc<File>, &Path)> {
        let path = self.volume_path(number).unwrap_or(&self.dir);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((open, file)) = &*last
            && *open == number
        {
            return Ok((Arc::clone(file), path));
        }
        let file = Arc::new(self.open_volume(number)?);
        *last = Some((number, Arc::clone(&file)));
        Ok((file, path))
    }
}

fn no_such_chunk(index: u32) -> Error {
    Error::Failed(format!("the bundle has no chunk number {index}"))
}

/// The manifest and the first directory that has it.
fn common_manifest(dirs: &[PathBuf]) -> Result<(PathBuf, Vec<u8>)> {
    let mut found: Option<(PathBuf, Vec<u8>)> = None;
    for dir in dirs {
        let path = dir.join(MANIFEST_NAME);
        if !path.exists() {
            continue;
        }
        let bytes = read_limited(&path, MAX_MANIFEST)?;
        match &found {
            None => found = Some((dir.clone(), bytes)),
            Some((_, first)) if *first == bytes => {}
            Some((first, _)) => {
                return Err(Error::Usage(format!(
                    "{} and {} are different bundles; name the directories of one bundle only",
                    first.display(),
                    dir.display()
                )));
            }
        }
    }
    found.ok_or_else(|| {
        let names: Vec<_> = dirs.iter().map(|dir| dir.display().to_string()).collect();
        Error::Usage(format!(
            "there is no {MANIFEST_NAME} in {}",
            names.join(", ")
        ))
    })
}
