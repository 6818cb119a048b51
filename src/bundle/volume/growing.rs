//! A volume that grows past the page cache.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use crate::digest::{Hasher, Sha256};
use crate::fs::{PAGE, write_direct};
use crate::parallel::{Aligned, Buffers};

/// Bytes that are written at once; so few stay in the core's cache from the copy to the hash.
const STAGE: usize = 1 << 20;

/// A file that is appended to and hashed. Whole pages are written past the page cache where that is
/// possible; the part of a page at its end is kept, and written again with what follows.
pub struct Growing {
    path: PathBuf,
    file: File,
    /// The end of the file, from a whole page on.
    stage: Aligned,
    /// Bytes in the stage.
    staged: usize,
    hasher: Hasher,
}

impl Growing {
    /// Creates an empty file.
    pub fn create(path: PathBuf) -> io::Result<Self> {
        let file = File::create(&path)?;
        Self::behind(path, file, Hasher::default())
    }

    /// Goes on behind the first bytes of a file, which `hasher` has taken; the others are cut off.
    pub fn reopen(path: PathBuf, hasher: Hasher) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        file.set_len(hasher.bytes())?;
        Self::behind(path, file, hasher)
    }

    fn behind(path: PathBuf, file: File, hasher: Hasher) -> io::Result<Self> {
        let mut growing = Self {
            path,
            file,
            stage: Buffers::default().aligned(STAGE),
            #[allow(clippy::cast_possible_truncation, reason = "less than a page")]
            staged: (hasher.bytes() % PAGE as u64) as usize,
            hasher,
        };
        let (start, staged) = (growing.start(), growing.staged);
        (growing.file).read_exact_at(&mut growing.stage[..staged], start)?;
        Ok(growing)
    }

    /// Its bytes so far.
    pub fn len(&self) -> u64 {
        self.hasher.bytes()
    }

    /// Where it is.
    pub fn path(&self) -> &PathBuf {
        &self.path
    }

    /// Appends; see [`Growing::flush`].
    pub fn append(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(STAGE - self.staged));
            let place = &mut self.stage[self.staged..][..now.len()];
            place.copy_from_slice(now);
            self.hasher.update(place);
            self.staged += now.len();
            bytes = later;
            if self.staged == STAGE {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Writes what was appended: it survives the death of the process, though not a power loss.
    pub fn flush(&mut self) -> io::Result<()> {
        write_direct(&self.path, &self.stage[..self.staged], self.start())?;
        let whole = self.staged - self.staged % PAGE;
        self.stage.copy_within(whole..self.staged, 0);
        self.staged -= whole;
        Ok(())
    }

    /// Brings it to the disk; returns length and digest.
    pub fn finish(mut self) -> io::Result<(u64, Sha256)> {
        self.flush()?;
        self.file.sync_all()?;
        Ok((self.len(), self.hasher.finish()))
    }

    /// Where the stage begins in the file.
    fn start(&self) -> u64 {
        self.len() - self.staged as u64
    }
}
