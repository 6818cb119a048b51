//! Makes a target ready to be filled: an equal old file is hard-linked into staging, or room is made.

use std::collections::HashMap;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use super::fill::{Filling, cannot_write, full};
use super::inventory::Found;
use super::targets::{Kind, Target};
use crate::error::{Error, Result};
use crate::fs::{create_dir_all, device, free_space};

/// Does with a target what was found to be possible. What is elsewhere and cannot be linked is
/// left to be copied.
pub fn prepare(target: &Target, found: &Found) -> Result<Filling> {
    let chunks = target.entry.chunks.len();
    let (have, stamp) = match found {
        Found::Whole(stamp) => (vec![true; chunks], Some(*stamp)),
        Found::Elsewhere(path, stamp) => {
            make_way(&target.staged)?;
            if may_share(path, target)? && link(path, &target.staged)? {
                (vec![true; chunks], Some(*stamp))
            } else {
                reserve(target)?;
                (vec![false; chunks], None)
            }
        }
        Found::Parts { staged, .. } => {
            if !is_ours(&target.staged) {
                make_way(&target.staged)?;
            }
            reserve(target)?;
            (staged.clone(), None)
        }
    };
    Ok(Filling { have, stamp })
}

/// Whether a staged file may be written to: it is there, and no other name shares its content.
pub fn is_ours(staged: &Path) -> bool {
    fs::symlink_metadata(staged).is_ok_and(|metadata| metadata.is_file() && metadata.nlink() == 1)
}

/// Removes whatever stands where a file must be, and makes its directory.
pub fn make_way(path: &Path) -> Result<()> {
    let remove = |path: &Path| match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(_) => Ok(()),
    };
    let is_file = |part: &&Path| fs::symlink_metadata(part).is_ok_and(|m| m.is_file());
    if let Some(file) = path.ancestors().skip(1).find(is_file) {
        remove(file).map_err(Error::io("remove", file))?;
    }
    remove(path).map_err(Error::io("remove", path))?;
    path.parent().map_or(Ok(()), create_dir_all)
}

/// Whether a target may be another name of the file at `path`: names share the mode, and an extra
/// file of an older generation must stay executable or not.
fn may_share(path: &Path, target: &Target) -> Result<bool> {
    let mode = fs::metadata(path)
        .map_err(Error::io("look at", path))?
        .mode();
    let same = (mode & 0o111 == 0) == (target.mode() & 0o111 == 0);
    Ok(same || !matches!(target.kind, Kind::Extra { .. }))
}

/// Gives a file a second name; false where the filesystem or its owner does not allow it.
fn link(from: &Path, to: &Path) -> Result<bool> {
    // A model directory of the hub's cache holds symbolic links; their targets are meant.
    let from = fs::canonicalize(from).map_err(Error::io("find", from))?;
    Ok(fs::hard_link(&from, to).is_ok())
}

/// Makes a staged file of its final size and with all of its blocks, so that a full disk shows now.
fn reserve(target: &Target) -> Result<()> {
    if let Some(parent) = target.staged.parent() {
        create_dir_all(parent)?;
    }
    let fail = |cause| cannot_write(target, cause);
    let file = File::options()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(&target.staged)
        .map_err(fail)?;
    let size = target.entry.size;
    file.set_len(size).map_err(fail)?;
    if size > 0 {
        match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, size) {
            // Some network filesystems cannot; then a full disk shows later.
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
            Err(errno) => return Err(fail(errno.into())),
        }
    }
    Ok(())
}

/// Refuses early when a filesystem cannot take what will be written to it.
pub fn check_space<'a>(targets: impl Iterator<Item = (&'a Target, &'a Found)>) -> Result<()> {
    let mut needs: HashMap<u64, (u64, &Path)> = HashMap::new();
    for (target, found) in targets {
        if matches!(found, Found::Parts { .. }) {
            let allocated = fs::symlink_metadata(&target.staged)
                .ok()
                .filter(|metadata| metadata.nlink() == 1)
                .map_or(0, |metadata| metadata.blocks() * 512);
            let need = needs
                .entry(device(&target.staged)?)
                .or_insert((0, &target.published));
            need.0 += target.entry.size.saturating_sub(allocated);
        }
    }
    for (bytes, path) in needs.into_values() {
        let free = free_space(path)?;
        if bytes > free {
            let details =
                format!(" and the files with it: {bytes} bytes are needed, {free} are free");
            return Err(full(path, &details));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_in_the_way_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a/b");
        fs::write(dir.path().join("a"), "a file where a directory must be").unwrap();
        make_way(&file).unwrap();
        fs::create_dir_all(file.join("a directory where a file must be")).unwrap();
        make_way(&file).unwrap();
        fs::write(&file, "").unwrap();
    }
}
