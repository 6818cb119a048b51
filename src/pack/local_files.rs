//! Files of this machine as a source.

use std::fs::File;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use walkdir::{DirEntry, WalkDir};

use super::source::{Expected, RangeSource, SourceFile};
use crate::error::{Error, Result};
use crate::path::RelPath;

/// One reader keeps ahead of the coding; a second hides the disk's latency.
const READERS: usize = 2;

/// A file that was found.
#[derive(Clone, Debug)]
pub struct LocalFile {
    /// Its path below its tree.
    pub path: RelPath,
    /// Where it is.
    pub origin: PathBuf,
    /// Bytes.
    pub size: u64,
    /// Whether its owner may execute it.
    pub executable: bool,
    /// Whether it is a link, which stands for what it points to.
    pub link: bool,
}

/// Files that are packed.
pub struct LocalFiles {
    files: Vec<SourceFile>,
    origins: Vec<PathBuf>,
    executable: Vec<RelPath>,
    remarks: Vec<String>,
}

/// Lists the regular files below `root`, sorted by path; links stand for what they point to.
/// `keep` says which files and directories count.
pub fn list(root: &Path, keep: impl FnMut(&DirEntry) -> bool) -> Result<Vec<LocalFile>> {
    let mut files = Vec::new();
    for entry in WalkDir::new(root)
        .follow_links(true)
        .into_iter()
        .filter_entry(keep)
    {
        let entry = entry
            .map_err(|error| Error::Failed(format!("cannot list {}: {error}", root.display())))?;
        if !entry.file_type().is_dir() {
            files.push(local_file(root, &entry)?);
        }
    }
    files.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(files)
}

/// A root that is a file has its own name as its path.
fn local_file(root: &Path, entry: &DirEntry) -> Result<LocalFile> {
    let origin = entry.path();
    let unusual = |what: &str| Error::Usage(format!("cannot pack {}: {what}", origin.display()));
    let below = match entry.depth() {
        0 => Path::new(entry.file_name()),
        _ => origin.strip_prefix(root).unwrap_or(origin),
    };
    let text = below
        .to_str()
        .ok_or_else(|| unusual("its name is not UTF-8"))?;
    if !entry.file_type().is_file() {
        return Err(unusual("it is no regular file"));
    }
    let metadata = origin.metadata().map_err(Error::io("read", origin))?;
    Ok(LocalFile {
        path: text.parse()?,
        origin: origin.to_owned(),
        size: metadata.len(),
        executable: metadata.permissions().mode() & 0o100 != 0,
        link: entry.path_is_symlink(),
    })
}

impl LocalFiles {
    /// These files, which are sorted by path, and what the operator should know about them.
    #[must_use]
    pub fn new(found: Vec<LocalFile>, remarks: Vec<String>) -> Self {
        let mut all = Self {
            files: Vec::new(),
            origins: Vec::new(),
            executable: Vec::new(),
            remarks,
        };
        for file in found {
            if file.executable {
                all.executable.push(file.path.clone());
            }
            all.files.push(SourceFile {
                path: file.path,
                size: file.size,
                expected: Expected::Nothing,
            });
            all.origins.push(file.origin);
        }
        all
    }

    /// Those that may be executed, sorted by path.
    #[must_use]
    pub fn executable(&self) -> &[RelPath] {
        &self.executable
    }
}

impl RangeSource for LocalFiles {
    fn files(&self) -> &[SourceFile] {
        &self.files
    }

    fn read(&self, file: usize, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let path = &self.origins[file];
        File::open(path)
            .and_then(|handle| handle.read_exact_at(buffer, offset))
            .map_err(Error::io("read", path))
    }

    fn remarks(&self) -> &[String] {
        &self.remarks
    }

    fn readers(&self) -> usize {
        READERS
    }
}
