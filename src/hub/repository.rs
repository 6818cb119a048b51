//! A model at a commit: its files, what the hub promises about them, and their bytes.

use std::sync::Mutex;

use super::client::Client;
use super::read::Seen;
use crate::digest::{GitBlobId, Sha256};
use crate::error::Result;
use crate::http::Span;
use crate::path::RelPath;

/// A model, pinned to a commit. Many threads may read at once.
#[derive(Debug)]
pub struct Repository {
    pub(super) client: Client,
    pub(super) name: String,
    pub(super) commit: String,
    pub(super) files: Vec<RemoteFile>,
    /// What earlier reads learned about each file.
    pub(super) seen: Vec<Mutex<Seen>>,
}

/// A file as the hub lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteFile {
    /// Its path in the repository.
    pub path: RelPath,
    /// Bytes.
    pub size: u64,
    /// What its content must hash to; the caller checks it over the whole file.
    pub expected: Expected,
}

/// The hash that a hub publishes for a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// Of an LFS file, which all large files are.
    Sha256(Sha256),
    /// Of any other file.
    GitBlob(GitBlobId),
}

impl Repository {
    pub(super) fn new(client: Client, name: &str, commit: String, files: Vec<RemoteFile>) -> Self {
        Self {
            client,
            name: name.to_owned(),
            commit,
            seen: files.iter().map(|_| Mutex::default()).collect(),
            files,
        }
    }

    /// The commit, in hex.
    #[must_use]
    pub fn commit(&self) -> &str {
        &self.commit
    }

    /// The files, sorted by path.
    #[must_use]
    pub fn files(&self) -> &[RemoteFile] {
        &self.files
    }

    /// Fills `buffer` with the bytes of file number `file` from `offset` on, which must lie inside
    /// the file. Retries; the error names file, host and cause.
    pub fn read(&self, file: usize, offset: u64, buffer: &mut [u8]) -> Result<()> {
        if buffer.is_empty() {
            return Ok(());
        }
        let span = Span {
            offset,
            len: buffer.len() as u64,
            size: self.files[file].size,
        };
        let what = format!("{} of {}", self.files[file].path, self.name);
        self.client
            .http()
            .patiently(&what, || self.try_read(file, span, buffer))
    }
}
