//! Where files come from when any range of them can be read at any time: a hub or a directory.

use crate::digest::{GitBlobId, Sha256};
use crate::error::Result;
use crate::path::RelPath;

/// A list of files and random access to their bytes, from many threads at once.
pub trait RangeSource: Sync {
    /// The files, sorted by path.
    fn files(&self) -> &[SourceFile];

    /// Fills `buffer` with the bytes of a file from `offset` on. The error names the file.
    fn read(&self, file: usize, offset: u64, buffer: &mut [u8]) -> Result<()>;

    /// What the operator should know about the choice of files.
    fn remarks(&self) -> &[String];

    /// How many reads at once are worth it.
    fn readers(&self) -> usize;
}

/// A file that a source offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFile {
    /// Where it stands below its model.
    pub path: RelPath,
    /// Bytes.
    pub size: u64,
    /// What the source promises about the content.
    pub expected: Expected,
}

/// What a source promises about a file's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// An LFS file of the hub.
    Sha256(Sha256),
    /// Any other file of the hub.
    GitBlob(GitBlobId),
    /// A local file promises nothing.
    Nothing,
}
