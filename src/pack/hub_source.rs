//! A model on the hub.

use super::selection::Selection;
use super::source::{Expected, RangeSource, SourceFile};
use crate::error::{Error, Result};
use crate::hub::{self, RemoteFile, Repository};

/// Requests in flight: hides 50 ms of latency on any link up to 20 Gbit/s, in 128 MiB of memory.
const READERS: usize = 8;

/// The wanted files of a repository.
pub struct HubSource {
    repository: Repository,
    files: Vec<SourceFile>,
    /// Number of each file in the repository.
    numbers: Vec<usize>,
    remarks: Vec<String>,
}

impl HubSource {
    /// Chooses the files of a listed repository.
    pub fn new(repository: Repository, selection: &Selection) -> Result<Self> {
        let listed = repository.files();
        let paths: Vec<_> = listed.iter().map(|file| file.path.as_str()).collect();
        let choice = selection.choose(&paths);
        if choice.wanted.is_empty() {
            return Err(Error::Usage(format!(
                "the repository has {} files at commit {}, but none that the spec wants",
                repository.files().len(),
                repository.commit()
            )));
        }
        let files = choice
            .wanted
            .iter()
            .map(|&number| source_file(&listed[number]));
        Ok(Self {
            files: files.collect(),
            repository,
            numbers: choice.wanted,
            remarks: choice.remarks,
        })
    }

    /// The commit that is packed.
    #[must_use]
    pub fn commit(&self) -> &str {
        self.repository.commit()
    }
}

fn source_file(file: &RemoteFile) -> SourceFile {
    SourceFile {
        path: file.path.clone(),
        size: file.size,
        expected: match file.expected {
            hub::Expected::Sha256(digest) => Expected::Sha256(digest),
            hub::Expected::GitBlob(id) => Expected::GitBlob(id),
        },
    }
}

impl RangeSource for HubSource {
    fn files(&self) -> &[SourceFile] {
        &self.files
    }

    fn read(&self, file: usize, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.repository.read(self.numbers[file], offset, buffer)
    }

    fn remarks(&self) -> &[String] {
        &self.remarks
    }

    fn readers(&self) -> usize {
        READERS
    }
}
