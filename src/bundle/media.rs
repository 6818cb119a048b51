//! Reading a bundle from the directories that it was carried in: one, or one per medium.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::fill::{self, Fill};
use super::manifest::{Chunk, Manifest, Owners, Reference};
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
    /// By chunk index: volumes of the base that hold chunks of it, and where.
    of_base: HashMap<u32, (PathBuf, u64)>,
    /// Fill volumes of the bundle and its base.
    fills: Vec<Fill>,
    /// The file that was read last: kept open, so that the system sees one sequential read.
    last: Mutex<Option<(PathBuf, Arc<File>)>>,
}

impl Media {
    /// Opens a bundle. At least one directory must hold its `bundle.json`, and all that do must
    /// hold the same one, or that of the base; each volume is taken from the first directory that
    /// has it.
    pub fn open(dirs: &[PathBuf]) -> Result<Self> {
        let (bundle, base) = split(dirs)?;
        if base.is_empty() {
            return Self::open_one(&bundle);
        }
        let mut media = Self::open_one(&bundle)?;
        let base = Self::open(&base)?;
        media.add_base(base)?;
        Ok(media)
    }

    /// Takes the chunks that no volume has from the volumes of the base.
    fn add_base(&mut self, base: Self) -> Result<()> {
        let identity = Sha256::of(base.manifest_bytes());
        if (self.manifest.base.as_ref()).is_none_or(|base| base.sha256 != identity) {
            return Err(Error::Usage(format!(
                "{} and {} are different bundles; name the directories of one bundle, and of its base",
                self.dir.display(),
                base.dir.display()
            )));
        }
        let held = (0..).zip(&base.manifest.chunks);
        let held: HashMap<Sha256, (PathBuf, u64)> = held
            .filter_map(|(index, chunk)| Some((chunk.blob, base.place(index)?)))
            .collect();
        let wanted = (0..).zip(&self.manifest.chunks);
        let wanted = wanted.filter(|(_, chunk)| chunk.is_in_base());
        self.of_base = wanted
            .filter_map(|(index, chunk)| Some((index, held.get(&chunk.blob)?.clone())))
            .collect();
        self.fills.extend(base.fills);
        Ok(())
    }

    fn open_one(dirs: &[PathBuf]) -> Result<Self> {
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
            fills: fill::find(dirs, &manifest)?,
            manifest,
            manifest_bytes,
            of_base: HashMap::new(),
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

    /// The fill volumes at hand.
    #[must_use]
    pub fn fills(&self) -> &[Fill] {
        &self.fills
    }

    /// Whether a volume with this chunk is at hand, of the bundle or its base, or a fill volume
    /// that has it intact.
    #[must_use]
    pub fn has_chunk(&self, index: u32) -> bool {
        let filled = |chunk: &Chunk| self.fills.iter().any(|fill| fill.has(chunk.blob));
        self.place(index).is_some() || self.chunk(index).is_ok_and(filled)
    }

    /// The file that holds a chunk, and where its stored bytes start there.
    fn place(&self, index: u32) -> Option<(PathBuf, u64)> {
        let chunk = self.chunk(index).ok()?;
        match self.volume_path(chunk.volume) {
            Some(path) => Some((path.to_owned(), chunk.offset)),
            None => self.of_base.get(&index).cloned(),
        }
    }

    /// Reads a chunk's stored bytes into `stored` and checks their SHA-256. Indices in ascending
    /// order are one sequential read of the media. A fill volume makes up for what is missing or
    /// damaged.
    pub fn read_chunk(&self, index: u32, stored: &mut Vec<u8>) -> Result<()> {
        stored.resize(self.chunk(index)?.stored as usize, 0);
        self.read_checked(index, stored)
    }

    fn read_checked(&self, index: u32, stored: &mut [u8]) -> Result<()> {
        let blob = self.chunk(index)?.blob;
        let error = match self.read_volume(index, stored) {
            Ok(()) if Sha256::of(stored) == blob => return Ok(()),
            Ok(()) => self.damaged(index, "does not have its SHA-256"),
            Err(error) => error,
        };
        if self.fills.iter().any(|fill| fill.read(blob, stored)) {
            return Ok(());
        }
        Err(error)
    }

    /// Reads a chunk into memory of the length that it has stored, for callers that check what they
    /// make of the bytes.
    pub fn read_unchecked(&self, index: u32, stored: &mut [u8]) -> Result<()> {
        if self.fills.is_empty() {
            return self.read_volume(index, stored);
        }
        self.read_checked(index, stored)
    }

    fn read_volume(&self, index: u32, stored: &mut [u8]) -> Result<()> {
        let chunk = self.chunk(index)?;
        let Some((path, offset)) = self.place(index) else {
            return Err(self.absent(chunk));
        };
        let file = self.file(&path)?;
        match file.read_exact_at(stored, offset) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                Err(self.damaged(index, "lies behind the end of the volume"))
            }
            Err(error) => Err(Error::io("read", path)(error)),
        }
    }

    /// The error for a chunk that is on none of the media.
    fn absent(&self, chunk: &Chunk) -> Error {
        Error::Damaged(match &self.manifest.base {
            Some(base) if chunk.is_in_base() => {
                format!("the bundle leaves out what {base} has; name the directory of that one too")
            }
            _ => format!(
                "{} is missing; insert its medium, or name its directory too",
                volume_name(chunk.volume)
            ),
        })
    }

    /// Opens a volume, counted from 1, or says that it is missing.
    pub fn open_volume(&self, number: u32) -> Result<File> {
        let path = self.volume_path(number).ok_or_else(|| {
            Error::Damaged(format!(
                "{} is missing; insert its medium, or name its directory too",
                volume_name(number)
            ))
        })?;
        open(path)
    }

    /// The error for a chunk that is not what the manifest says, with the files it belongs to.
    #[must_use]
    pub fn damaged(&self, index: u32, fault: &str) -> Error {
        let Some(chunk) = self.manifest.chunks.get(index as usize) else {
            return no_such_chunk(index);
        };
        let owners = Owners::of(&self.manifest, [index]);
        let (path, offset) = self.place(index).unwrap_or_default();
        let name = path.file_name().unwrap_or_default();
        let owners: Vec<_> = owners.get(index).iter().map(ToString::to_string).collect();
        Error::Damaged(format!(
            "{} is damaged: chunk {} at byte {offset} {fault} ({}); copy this volume again",
            name.to_string_lossy(),
            chunk.blob,
            owners.join(", ")
        ))
    }

    fn chunk(&self, index: u32) -> Result<&Chunk> {
        let chunk = self.manifest.chunks.get(index as usize);
        chunk.ok_or_else(|| no_such_chunk(index))
    }

    fn file(&self, path: &Path) -> Result<Arc<File>> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((open, file)) = &*last
            && open == path
        {
            return Ok(Arc::clone(file));
        }
        let file = Arc::new(open(path)?);
        *last = Some((path.to_owned(), Arc::clone(&file)));
        Ok(file)
    }
}

fn open(path: &Path) -> Result<File> {
    let file = File::open(path).map_err(Error::io("open", path))?;
    // Only advice: a filesystem that refuses it reads as well.
    let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::Sequential);
    Ok(file)
}

/// Tells the directories of a bundle from those of the bundles that it builds on. Without a
/// manifest a directory is the bundle's.
fn split(dirs: &[PathBuf]) -> Result<(Vec<PathBuf>, Vec<PathBuf>)> {
    let identities = dirs.iter().map(|dir| identity(dir));
    let identities: Vec<Option<(Sha256, Option<Sha256>)>> = identities.collect::<Result<_>>()?;
    let bases: HashSet<Sha256> = identities.iter().filter_map(|found| (*found)?.1).collect();
    let is_base = |found: &Option<(Sha256, _)>| found.is_some_and(|(own, _)| bases.contains(&own));
    let (base, bundle): (Vec<_>, Vec<_>) =
        (dirs.iter().cloned().zip(identities)).partition(|(_, found)| is_base(found));
    let paths = |list: Vec<(PathBuf, _)>| list.into_iter().map(|(dir, _)| dir).collect();
    Ok((paths(bundle), paths(base)))
}

/// What a directory's manifest is, and what it names as its base.
fn identity(dir: &Path) -> Result<Option<(Sha256, Option<Sha256>)>> {
    #[derive(serde::Deserialize)]
    struct Base {
        base: Option<Reference>,
    }
    let path = dir.join(MANIFEST_NAME);
    if !path.exists() {
        return Ok(None);
    }
    let bytes = read_limited(&path, MAX_MANIFEST)?;
    let base = serde_json::from_slice::<Base>(&bytes).ok();
    let base = base.and_then(|found| found.base);
    Ok(Some((Sha256::of(&bytes), base.map(|base| base.sha256))))
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
