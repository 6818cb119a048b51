//! A model in a local directory, e.g. a snapshot of the hub's cache, whose files are links.

use std::path::Path;

use walkdir::DirEntry;

use super::local_files::{LocalFiles, list};
use super::selection::Selection;
use crate::error::{Error, Result};

/// What download tools leave in a model's directory, and is no part of the model.
const NOT_CONTENT: [&str; 2] = [".git", ".cache"];

/// The wanted files below `root`; links stand for what they point to.
pub fn open(root: &Path, selection: &Selection) -> Result<LocalFiles> {
    if root.is_file() {
        return Err(Error::Usage(format!(
            "{} is no directory; --model-dir takes the directory that holds config.json",
            root.display()
        )));
    }
    let files = list(root, is_content)?;
    let paths: Vec<_> = files.iter().map(|file| file.path.as_str()).collect();
    let choice = selection.choose(&paths);
    if choice.wanted.is_empty() {
        return Err(Error::Usage(format!(
            "{} holds no file that the spec wants",
            root.display()
        )));
    }
    let wanted = choice.wanted.iter().map(|&index| files[index].clone());
    Ok(LocalFiles::new(wanted.collect(), choice.remarks))
}

fn is_content(entry: &DirEntry) -> bool {
    !(entry.depth() == 1 && NOT_CONTENT.iter().any(|name| entry.file_name() == *name))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::bundle::cluster_spec::ClusterSpec;
    use crate::pack::source::RangeSource as _;

    fn open(root: &Path, keys: &str) -> Result<LocalFiles> {
        let spec = toml::from_str(&format!("repo = \"o/m\"\npath = \"/m\"\n{keys}"));
        super::open(
            root,
            &Selection::of(&spec.unwrap(), &ClusterSpec::default()).unwrap(),
        )
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
