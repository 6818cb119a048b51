//! Writing volumes one after the other.

use std::fs;
use std::path::{Path, PathBuf};

use super::growing::Growing;
use super::layout::{BLOCK, END, entry_header, fits, padding};
use crate::bundle::CHUNK_SIZE;
use crate::bundle::manifest::Volume;
use crate::digest::Sha256;
use crate::error::{Error, Result};
use crate::fs::sync_dir;

/// A volume must be able to hold any chunk.
pub const MIN_VOLUME_SIZE: u64 = CHUNK_SIZE + BLOCK + END + 1;

/// Appends blobs to volumes `vol-0001.tar`, `vol-0002.tar`, ... of a directory and hashes each
/// while it is written. A volume is called `vol-NNNN.tar.part` until it is complete and on the
/// disk, so that an unfinished one is never mistaken for a volume.
pub struct VolumeWriter {
    dir: PathBuf,
    limit: u64,
    /// What the volumes are called before their number.
    name: String,
    closed: Vec<Volume>,
    /// The volume at hand.
    open: Option<Growing>,
}

impl VolumeWriter {
    /// Starts with the first volume in `dir`, which holds none; each volume stays below `limit`
    /// bytes.
    #[must_use]
    pub fn create(dir: &Path, limit: u64) -> Self {
        Self::resumed(dir, limit, Vec::new(), None)
    }

    /// As [`VolumeWriter::create`], for volumes `NAME-0001.tar`, ...
    #[must_use]
    pub fn named(dir: &Path, limit: u64, name: String) -> Self {
        Self {
            name,
            ..Self::create(dir, limit)
        }
    }

    pub(super) fn resumed(
        dir: &Path,
        limit: u64,
        closed: Vec<Volume>,
        open: Option<Growing>,
    ) -> Self {
        Self {
            dir: dir.to_owned(),
            limit,
            name: "vol".into(),
            closed,
            open,
        }
    }

    /// Appends a blob and returns its volume, counted from 1, and where its bytes start there.
    /// The bytes survive the death of the process, though not yet a power loss.
    pub fn append(&mut self, blob: &Sha256, stored: &[u8]) -> Result<(u32, u64)> {
        let len = stored.len() as u64;
        if self
            .open
            .as_ref()
            .is_some_and(|open| !fits(open.len(), len, self.limit))
        {
            self.close()?;
        }
        if !fits(0, len, self.limit) {
            return Err(Error::Usage(format!(
                "a volume of {} bytes cannot hold a chunk; make volumes larger than {MIN_VOLUME_SIZE} bytes",
                self.limit
            )));
        }
        let number = self.number()?;
        let path = part_path(&self.dir, &self.file_name(number));
        let open = if let Some(open) = &mut self.open {
            open
        } else {
            let created = Growing::create(path.clone());
            (self.open).insert(created.map_err(Error::io("create", &path))?)
        };
        let header = entry_header(blob, len)?;
        let offset = open.len() + header.len() as u64;
        [&header, stored, zeros(padding(len))]
            .into_iter()
            .try_for_each(|part| open.append(part))
            .and_then(|()| open.flush())
            .map_err(Error::io("write", &path))?;
        Ok((number, offset))
    }

    /// The volumes that are complete, first to last.
    #[must_use]
    pub fn closed(&self) -> &[Volume] {
        &self.closed
    }

    /// Closes the last volume and returns all of them.
    pub fn finish(mut self) -> Result<Vec<Volume>> {
        self.close()?;
        Ok(self.closed)
    }

    fn file_name(&self, number: u32) -> String {
        format!("{}-{number:04}.tar", self.name)
    }

    /// Number of the volume at hand.
    fn number(&self) -> Result<u32> {
        u32::try_from(self.closed.len() + 1)
            .map_err(|_| Error::Usage("too many volumes; make them larger".into()))
    }

    /// Ends the volume at hand, if there is one, and gives it its name.
    fn close(&mut self) -> Result<()> {
        let Some(mut open) = self.open.take() else {
            return Ok(());
        };
        let part = open.path().clone();
        let (size, sha256) = open
            .append(zeros(END))
            .and_then(|()| open.finish())
            .map_err(Error::io("write", &part))?;
        let name = self.file_name(self.number()?);
        let path = self.dir.join(&name);
        fs::rename(&part, &path).map_err(Error::io("rename to", &path))?;
        sync_dir(&self.dir)?;
        self.closed.push(Volume { name, size, sha256 });
        Ok(())
    }
}

/// Where a volume of this name grows.
#[must_use]
pub fn part_path(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}.part"))
}

/// Up to [`END`] zeros.
fn zeros(len: u64) -> &'static [u8] {
    static ZEROS: [u8; 1024] = [0; 1024];
    let len = usize::try_from(len).map_or(ZEROS.len(), |len| len.min(ZEROS.len()));
    &ZEROS[..len]
}
