//! Fill volumes: what was lost on the way, carried across afterwards. One is laid out like a volume
//! and stands beside the others, but is in no manifest: each blob in it is checked by its name.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::manifest::Manifest;
use super::volume::{BLOCK, END, entry_header, padding};
use crate::digest::Sha256;
use crate::error::{Error, Result};

/// A fill volume that is at hand.
pub struct Fill {
    path: PathBuf,
    blobs: BTreeMap<Sha256, Blob>,
    fault: Option<String>,
}

/// An entry of it.
struct Blob {
    /// Where the stored bytes start.
    offset: u64,
    len: u32,
    /// Whether they have their SHA-256, once somebody has looked.
    intact: OnceLock<bool>,
}

impl Fill {
    /// Its file name.
    #[must_use]
    pub fn name(&self) -> String {
        let name = self.path.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    /// The blobs that it names, and their bytes; they may be damaged.
    pub fn blobs(&self) -> impl Iterator<Item = (Sha256, u64)> {
        let blobs = self.blobs.iter();
        blobs.map(|(blob, entry)| (*blob, u64::from(entry.len)))
    }

    /// Why a part of it is ignored.
    #[must_use]
    pub fn fault(&self) -> Option<&str> {
        self.fault.as_deref()
    }

    /// Whether it has this blob, and intact; reads it the first time.
    #[must_use]
    pub fn has(&self, blob: Sha256) -> bool {
        self.blobs.get(&blob).is_some_and(|entry| {
            let read = || self.read(blob, &mut vec![0; entry.len as usize]);
            *entry.intact.get_or_init(read)
        })
    }

    /// Reads a blob into memory of its length; false when it is not there or has other bytes.
    pub fn read(&self, blob: Sha256, stored: &mut [u8]) -> bool {
        let Some(entry) = self.blobs.get(&blob) else {
            return false;
        };
        let read = File::open(&self.path).and_then(|file| file.read_exact_at(stored, entry.offset));
        read.is_ok() && Sha256::of(stored) == blob
    }

    /// Reads the headers. Ends at the first entry that is not exactly one of this bundle's.
    fn open(path: PathBuf, lens: &HashMap<Sha256, u32>) -> Self {
        let mut blobs = BTreeMap::new();
        let fault = match File::open(&path).and_then(|file| Ok((file.metadata()?.len(), file))) {
            Ok((size, file)) => read_headers(&file, size, lens, &mut blobs).err(),
            Err(error) => Some(format!("it cannot be read: {error}")),
        };
        Self { path, blobs, fault }
    }
}

/// The fill volumes in these directories, sorted by name in each.
pub fn find(dirs: &[PathBuf], manifest: &Manifest) -> Result<Vec<Fill>> {
    let mut paths = Vec::new();
    for dir in dirs.iter().filter(|dir| dir.is_dir()) {
        let entries = dir.read_dir().map_err(Error::io("list", dir))?;
        let found = entries.filter_map(|entry| Some(entry.ok()?.path()));
        let mut found: Vec<PathBuf> = found.filter(|path| is_fill(path)).collect();
        found.sort();
        paths.extend(found);
    }
    if paths.is_empty() {
        return Ok(Vec::new());
    }
    let chunks = manifest.chunks.iter();
    let lens = chunks.map(|chunk| (chunk.blob, chunk.stored)).collect();
    let fills = paths.into_iter().map(|path| Fill::open(path, &lens));
    Ok(fills.collect())
}

fn is_fill(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    let inner = name.and_then(|name| name.strip_prefix("fill-")?.strip_suffix(".tar"));
    inner.is_some() && path.is_file()
}

fn read_headers(
    file: &File,
    size: u64,
    lens: &HashMap<Sha256, u32>,
    blobs: &mut BTreeMap<Sha256, Blob>,
) -> std::result::Result<(), String> {
    let mut at = 0;
    loop {
        let mut header = [0; 512];
        file.read_exact_at(&mut header, at)
            .map_err(|_| format!("it breaks off at byte {at}"))?;
        if header == [0; 512] {
            let ends = at + END == size;
            return ends
                .then_some(())
                .ok_or_else(|| format!("it does not end at byte {}", at + END));
        }
        let (blob, len) = entry_of(&header, lens)
            .ok_or_else(|| format!("the entry at byte {at} is none of this bundle"))?;
        let end = at + BLOCK + u64::from(len) + padding(u64::from(len));
        if end > size {
            return Err(format!("it breaks off in the entry at byte {at}"));
        }
        let entry = Blob {
            offset: at + BLOCK,
            len,
            intact: OnceLock::new(),
        };
        if blobs.insert(blob, entry).is_some() {
            return Err(format!("the entry at byte {at} is there twice"));
        }
        at = end;
    }
}

/// The blob that a header names, when it is of this bundle and every byte of the header is right.
fn entry_of(header: &[u8; 512], lens: &HashMap<Sha256, u32>) -> Option<(Sha256, u32)> {
    let name = std::str::from_utf8(header.get(..77)?).ok()?;
    let blob: Sha256 = name.strip_prefix("blobs/sha256/")?.parse().ok()?;
    let len = *lens.get(&blob)?;
    (entry_header(&blob, u64::from(len)).ok()? == *header).then_some((blob, len))
}
