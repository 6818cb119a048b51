//! A model in a local directory, e.g. a snapshot of the hub's cache, whose files are links.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use walkdir::{DirEntry, WalkDir};

use super::selection::Selection;
use super::source::{Expected, RangeSource, SourceFile};
use crate::error::{Error, Result};

/// What download tools leave in a model's directory, and is no part of the model.
const NOT_CONTENT: [&str; 2] = [".git", ".cache"];

/// One reader keeps ahead of the coding; a second hides the disk's latency.
const READERS: usize = 2;

/// A directory whose files are packed.
pub struct ModelDir {
    root: PathBuf,
    files: Vec<SourceFile>,
    remarks: Vec<String>,
}

impl ModelDir {
    /// Lists the wanted files below `root`; links stand for what they point to.
    pub fn open(root: &Path, selection: &Selection) -> Result<Self> {
        let mut files = Vec::new();
        let walk = WalkDir::new(root).follow_links(true).sort_by_file_name();
        for entry in walk.into_iter().filter_entry(is_content) {
            let entry = entry.map_err(|error| {
                Error::Failed(format!("cannot list {}: {error}", root.display()))
            })?;
            if entry.depth() == 0 && !entry.file_type().is_dir() {
                return Err(Error::Usage(format!(
                    "{} is no directory; --model-dir takes the directory that holds config.json",
                    root.display()
                )));
            }
            if !entry.file_type().is_dir() {
                files.push(source_file(root, &entry)?);
            }
        }
        files.sort_by(|one: &SourceFile, other| one.path.cmp(&other.path));
        let paths: Vec<_> = files.iter().map(|file| file.path.as_str()).collect();
        let choice = selection.choose(&paths);
        if choice.wanted.is_empty() {
            return Err(Error::Usage(format!(
                "{} holds no file that the spec wants",
                root.display()
            )));
        }
        let wanted = choice.wanted.iter().map(|&index| files[index].clone());
        Ok(Self {
            root: root.to_owned(),
            files: wanted.collect(),
            remarks: choice.remarks,
        })
    }
}

fn is_content(entry: &DirEntry) -> bool {
    !(entry.depth() == 1 && NOT_CONTENT.iter().any(|name| entry.file_name() == *name))
}

fn source_file(root: &Path, entry: &DirEntry) -> Result<SourceFile> {
    let path = entry.path();
    let unusual = |what: &str| Error::Usage(format!("cannot pack {}: {what}", path.display()));
    let below = path.strip_prefix(root).unwrap_or(path);
    let text = below
        .to_str()
        .ok_or_else(|| unusual("its name is not UTF-8"))?;
    if !entry.file_type().is_file() {
        return Err(unusual("it is no regular file"));
    }
    let metadata = path.metadata().map_err(Error::io("read", path))?;
    Ok(SourceFile {
        path: text.parse()?,
        size: metadata.len(),
        expected: Expected::Nothing,
    })
}

impl RangeSource for ModelDir {
    fn files(&self) -> &[SourceFile] {
        &self.files
    }

    fn read(&self, file: usize, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let path = self.files[file].path.under(&self.root);
        File::open(&path)
            .and_then(|handle| handle.read_exact_at(buffer, offset))
            .map_err(Error::io("read", &path))
    }

    fn remarks(&self) -> &[String] {
        &self.remarks
    }

    fn readers(&self) -> usize {
        READERS
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn open(root: &Path, keys: &str) -> Result<ModelDir> {
        let spec = toml::from_str(&format!("repo = \"o/m\"\npath = \"/m\"\n{keys}"));
        ModelDir::open(root, &Selection::of(&spec.unwrap()).unwrap())
    }

    #[test]
    fn a_snapshot_of_the_hubs_cache_is_read_through_its_links() {
        let dir = tempfile::tempdir().unwrap();
        let snapshot = dir.path().join("snapshots/abc");
        fs::create_dir_all(dir.path().join("blobs")).unwrap();
        fs::create_dir_all(snapshot.join("original")).unwrap();
        fs::create_dir_all(snapshot.join(".cache/huggingface")).unwrap();
        fs::write(dir.path().join("blobs/1"), "0123456789").unwrap();
        symlink("../../blobs/1", snapshot.join("model.safetensors")).unwrap();
        fs::write(snapshot.join("config.json"), "{}").unwrap();
        fs::write(snapshot.join("original/x.pth"), "").unwrap();
        fs::write(snapshot.join(".cache/huggingface/x"), "").unwrap();

        let source = open(&snapshot, "exclude = ['original/*']").unwrap();
        let names: Vec<_> = source
            .files()
            .iter()
            .map(|file| (file.path.as_str(), file.size))
            .collect();
        assert_eq!(names, [("config.json", 2), ("model.safetensors", 10)]);
        let mut buffer = [0; 3];
        source.read(1, 4, &mut buffer).unwrap();
        assert_eq!(&buffer, b"456");
        assert!(source.read(1, 8, &mut buffer).is_err());
    }

    #[test]
    fn files_come_sorted_by_their_whole_path() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("a")).unwrap();
        for name in ["a/z", "a.b", "a-b", "B"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        let source = open(dir.path(), "").unwrap();
        let names: Vec<_> = source
            .files()
            .iter()
            .map(|file| file.path.as_str())
            .collect();
        assert_eq!(names, ["B", "a-b", "a.b", "a/z"]);
    }

    #[test]
    fn what_cannot_be_packed_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let refusal = |root: &Path| open(root, "").err().unwrap().to_string();
        assert!(refusal(dir.path()).contains("no file"));
        symlink("nowhere", dir.path().join("dangling")).unwrap();
        assert!(refusal(dir.path()).contains("dangling"));
        fs::remove_file(dir.path().join("dangling")).unwrap();
        fs::write(dir.path().join("x"), "").unwrap();
        assert!(refusal(&dir.path().join("x")).contains("no directory"));
    }
}
