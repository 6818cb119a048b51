//! Images in a directory: an OCI layout as skopeo and buildah write it, or an archive that was
//! unpacked.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};

use walkdir::WalkDir;

use super::archive::{ImageWish, Nowhere, Seen};
use super::{ImageSource, Sink};
use crate::bundle::manifest::Image;
use crate::error::{Error, Result};

/// A directory on disk.
pub struct DirectorySource {
    root: PathBuf,
    wish: ImageWish,
}

impl DirectorySource {
    /// Looks at nothing yet.
    #[must_use]
    pub fn new(root: &Path, wish: ImageWish) -> Self {
        Self {
            root: root.to_owned(),
            wish,
        }
    }
}

/// All but the layers.
pub(super) fn index(root: &Path) -> Result<Seen> {
    take(root, &BTreeSet::new(), &mut Nowhere)
}

/// Takes all files by name, the same as an archive's entries.
fn take(root: &Path, wanted: &BTreeSet<String>, sink: &mut dyn Sink) -> Result<Seen> {
    let mut seen = Seen::default();
    for entry in WalkDir::new(root).sort_by_file_name() {
        let entry = entry
            .map_err(|error| Error::Failed(format!("cannot list {}: {error}", root.display())))?;
        if !entry.file_type().is_file() {
            continue;
        }
        let path = entry.path();
        let file = File::open(path).map_err(Error::io("open", path))?;
        let size = file.metadata().map_err(Error::io("read", path))?.len();
        let name = path.strip_prefix(root).unwrap_or(path);
        let name = name.to_string_lossy().into_owned();
        seen.take_file(name, file, size, Some(wanted), sink)?;
    }
    Ok(seen)
}

impl ImageSource for DirectorySource {
    fn size(&self) -> u64 {
        let files = WalkDir::new(&self.root)
            .into_iter()
            .filter_map(std::result::Result::ok);
        let sizes = files.filter_map(|entry| entry.metadata().ok());
        sizes
            .filter(std::fs::Metadata::is_file)
            .map(|metadata| metadata.len())
            .sum()
    }

    /// Looks at the start of all files first, so that of several images only the wished one is
    /// packed.
    fn stream(&mut self, sink: &mut dyn Sink) -> Result<Image> {
        let at = |error: Error| error.at(self.root.display());
        let first = index(&self.root).map_err(at)?;
        let wanted = first.wanted(&self.wish).map_err(at)?;
        let seen = take(&self.root, &wanted, sink).map_err(at)?;
        seen.image(&self.wish, sink).map_err(at)
    }
}
