//! Reading and writing many large files at many places.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Advice, fadvise};

use crate::error::{Error, Result};

/// Files that are open at once; a process may often have 1024.
const OPEN: usize = 128;

/// Files that are opened when needed, and closed when there are too many.
pub struct Files {
    paths: Vec<PathBuf>,
    writable: bool,
    open: HashMap<usize, File>,
}

impl Files {
    /// Files to read; one that is missing is an error when it is read.
    #[must_use]
    pub fn to_read(paths: Vec<PathBuf>) -> Self {
        Self {
            paths,
            writable: false,
            open: HashMap::new(),
        }
    }

    /// Files to write, which are made empty now.
    pub fn create(paths: Vec<PathBuf>) -> Result<Self> {
        for path in &paths {
            File::create(path).map_err(Error::io("create", path))?;
        }
        Ok(Self {
            paths,
            writable: true,
            open: HashMap::new(),
        })
    }

    /// Path of a file.
    #[must_use]
    pub fn path(&self, index: usize) -> &Path {
        &self.paths[index]
    }

    /// Fills the buffer from a place of a file.
    pub fn read(&mut self, index: usize, at: u64, buffer: &mut [u8]) -> Result<()> {
        let result = self.file(index)?.read_exact_at(buffer, at);
        result.map_err(Error::io("read", &self.paths[index]))
    }

    /// Writes at a place of a file.
    pub fn write(&mut self, index: usize, at: u64, bytes: &[u8]) -> Result<()> {
        let result = self.file(index)?.write_all_at(bytes, at);
        result.map_err(Error::io("write", &self.paths[index]))
    }

    /// Makes the file survive a power loss.
    pub fn sync(&mut self, index: usize) -> Result<()> {
        let result = self.file(index)?.sync_all();
        result.map_err(Error::io("write", &self.paths[index]))
    }

    fn file(&mut self, index: usize) -> Result<&File> {
        if !self.open.contains_key(&index) {
            if self.open.len() >= OPEN {
                self.open.clear();
            }
            let path = &self.paths[index];
            let file = OpenOptions::new()
                .read(true)
                .write(self.writable)
                .open(path)
                .map_err(Error::io("open", path))?;
            self.open.insert(index, file);
        }
        Ok(&self.open[&index])
    }
}

/// All volumes of a bundle as one row of bytes, with zeros behind.
pub struct Volumes {
    files: Files,
    /// Where each ends in the row.
    ends: Vec<u64>,
}

/// A part of one volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Which volume, from 0.
    pub volume: usize,
    /// Where the part starts in the volume.
    pub at: u64,
    /// Where it starts in the range that was asked for.
    pub from: usize,
    /// Bytes.
    pub len: usize,
}

impl Volumes {
    /// The volumes of these paths and sizes.
    #[must_use]
    pub fn new(volumes: impl IntoIterator<Item = (PathBuf, u64)>) -> Self {
        let (mut paths, mut ends, mut end) = (Vec::new(), Vec::new(), 0);
        for (path, size) in volumes {
            end += size;
            paths.push(path);
            ends.push(end);
        }
        Self {
            files: Files::to_read(paths),
            ends,
        }
    }

    /// Where a volume stands in the row.
    #[must_use]
    pub fn range(&self, volume: usize) -> std::ops::Range<u64> {
        let start = volume.checked_sub(1).map_or(0, |before| self.ends[before]);
        start..self.ends[volume]
    }

    /// The parts of volumes that a range of the row consists of; none behind the last.
    pub fn parts(&self, from: u64, len: usize) -> impl Iterator<Item = Part> + '_ {
        let first = self.ends.partition_point(|&end| end <= from);
        let end = from + len as u64;
        (first..self.ends.len())
            .map(move |volume| {
                let place = self.range(volume);
                let start = place.start.max(from);
                #[allow(clippy::cast_possible_truncation, reason = "below len")]
                Part {
                    volume,
                    at: start - place.start,
                    from: start.saturating_sub(from) as usize,
                    len: place.end.min(end).saturating_sub(start) as usize,
                }
            })
            .take_while(|part| part.len > 0)
    }

    /// Fills the buffer with bytes of the row.
    pub fn read(&mut self, from: u64, buffer: &mut [u8]) -> Result<()> {
        let parts: Vec<Part> = self.parts(from, buffer.len()).collect();
        let mut end = 0;
        for part in parts {
            end = part.from + part.len;
            self.files
                .read(part.volume, part.at, &mut buffer[part.from..end])?;
        }
        buffer[end..].fill(0);
        Ok(())
    }

    /// Tells the system what will be read soon, so that disks seek less. Only advice.
    pub fn announce(&mut self, from: u64, len: usize) {
        let parts: Vec<Part> = self.parts(from, len).collect();
        for part in parts {
            if let Ok(file) = self.files.file(part.volume) {
                let len = std::num::NonZero::new(part.len as u64);
                let _ = fadvise(file, part.at, len, Advice::WillNeed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_are_one_row_with_zeros_behind() {
        let dir = tempfile::tempdir().unwrap();
        let contents = [&b"abc"[..], b"d", b"efghij"];
        let files = contents.iter().enumerate().map(|(number, bytes)| {
            let path = dir.path().join(number.to_string());
            std::fs::write(&path, bytes).unwrap();
            (path, bytes.len() as u64)
        });
        let mut volumes = Volumes::new(files.collect::<Vec<_>>());
        let row = b"abcdefghij\0\0\0\0";
        for from in 0..12 {
            for len in 0..=(14 - from) {
                let mut buffer = vec![1; len];
                volumes.read(from as u64, &mut buffer).unwrap();
                assert_eq!(buffer, row[from..from + len], "{from} {len}");
            }
        }
        assert_eq!(volumes.range(1), 3..4);
    }
}
