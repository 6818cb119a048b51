//! Which file goes where, and which are there already.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::bundle::manifest::{FileEntry, Manifest};
use crate::bundle::media::Media;
use crate::bundle::on_disk::has_content;
use crate::bundle::volume_name;
use crate::error::{Error, Result};
use crate::path::AbsPath;

/// A file of a model or an extra directory, and where it is written.
#[derive(Clone, Debug)]
pub struct Target<'a> {
    /// What it is.
    pub file: &'a FileEntry,
    /// Where it goes.
    pub path: PathBuf,
    /// Whether it may be executed.
    pub executable: bool,
}

/// All files of all models and extra directories, in the order of the volumes.
pub fn all<'a>(manifest: &'a Manifest, root: &Path) -> Vec<Target<'a>> {
    let mut targets = Vec::new();
    for (tree, path) in manifest
        .trees()
        .filter_map(|tree| Some((tree, tree.path()?)))
    {
        let dir = root.join(dir_name(path, manifest));
        targets.extend(tree.files().iter().map(|file| Target {
            file,
            path: file.path.under(&dir),
            executable: tree.is_executable(&file.path),
        }));
    }
    targets
}

/// Where a directory of the nodes is unpacked: below the last part of its path, or all of it when
/// another one has the same.
fn dir_name<'a>(path: &'a AbsPath, manifest: &Manifest) -> &'a str {
    let same = |other: &&AbsPath| other.name() == path.name();
    if manifest.roots().filter(same).count() == 1 {
        path.name()
    } else {
        path.as_str().trim_start_matches('/')
    }
}

impl Target<'_> {
    /// Whether the file is there and right.
    pub fn is_there(&self, manifest: &Manifest) -> Result<bool> {
        match has_content(manifest, self.file, &self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            found => found.map_err(Error::io("read", &self.path)),
        }
    }

    /// Whether all chunks are at hand; the error names the volumes that are not.
    pub fn check_chunks(&self, media: &Media) -> Result<()> {
        let missing = self
            .file
            .chunks
            .iter()
            .filter(|&&index| !media.has_chunk(index));
        let mut missing = missing.peekable();
        if missing.peek().is_some()
            && let Some(base) = &media.manifest().base
            && missing
                .clone()
                .any(|&index| media.manifest().chunks[index as usize].is_in_base())
        {
            return Err(Error::Damaged(format!(
                "{} is left out: parts of it are only in {base}; name the directory of that bundle too",
                self.file.path
            )));
        }
        let mut volumes: Vec<u32> = missing
            .filter_map(|&index| media.manifest().chunks.get(index as usize))
            .map(|chunk| chunk.volume)
            .collect();
        volumes.dedup();
        if volumes.is_empty() {
            return Ok(());
        }
        let names: Vec<String> = volumes.into_iter().map(volume_name).collect();
        Err(Error::Damaged(format!(
            "{} is left out: {} missing",
            self.file.path,
            match &names[..] {
                [name] => format!("{name} is"),
                names => format!("{} are", names.join(", ")),
            }
        )))
    }

    /// Where the file grows until it is complete.
    pub fn part_path(&self) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(".part");
        name.into()
    }
}
