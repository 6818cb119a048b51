//! Makes a target ready to be filled: an equal old file is hard-linked into staging, equal parts
//! of another one are copied, and room is made for the rest.

use std::collections::HashMap;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use super::fill::{Filling, cannot_write, full};
use super::inventory::Found;
use super::targets::{Kind, Target};
use crate::error::{Error, Result};
use crate::fs::{create_dir_all, device, free_space};

/// Does with a target what was found to be possible.
pub fn prepare(target: &Target, found: &Found) -> Result<Filling> {
    let all = vec![true; target.entry.chunks.len()];
    match found {
        Found::Whole => Ok(Filling::new(all, true)),
        Found::Elsewhere { path, proven } => {
            make_way(&target.staged)?;
            let linked = may_share(path, target)? && link(path, &target.staged)?;
            if !linked {
                let copied = fs::copy(path, &target.staged);
                copied.map_err(|cause| cannot_write(target, cause))?;
            }
            Ok(Filling::new(all, *proven && linked))
        }
        Found::Parts { staged, old } => {
            if !is_ours(&target.staged) {
                make_way(&target.staged)?;
            }
            let file = reserve(target)?;
            copy_parts(target, &file, old)?;
            let have = staged.iter().zip(old).map(|(a, b)| *a || *b).collect();
            Ok(Filling::new(have, false))
        }
    }
}

/// Copies the marked chunks from the published file.
fn copy_parts(target: &Target, file: &File, marked: &[bool]) -> Result<()> {
    if !marked.contains(&true) {
        return Ok(());
    }
    let fail = |cause| Error::io("read", &target.published)(cause);
    let old = File::open(&target.published).map_err(fail)?;
    let mut buffer = vec![0; 1 << 20];
    for position in (0..marked.len()).filter(|&position| marked[position]) {
        let (start, length) = target.span(position);
        let mut at = start;
        while at < start + length {
            let count = buffer
                .len()
                .min(usize::try_from(start + length - at).unwrap_or(usize::MAX));
            old.read_exact_at(&mut buffer[..count], at).map_err(fail)?;
            file.write_all_at(&buffer[..count], at)
                .map_err(|cause| cannot_write(target, cause))?;
            at += count as u64;
        }
    }
    Ok(())
}

/// Whether a staged file may be written to: it is there, and no other name shares its content.
pub fn is_ours(staged: &Path) -> bool {
    fs::symlink_metadata(staged).is_ok_and(|metadata| metadata.is_file() && metadata.nlink() == 1)
}

/// Removes whatever stands where a file must be, and makes its directory.
fn make_way(path: &Path) -> Result<()> {
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

/// Opens a staged file with its final size and all of its blocks, so that a full disk shows now.
fn reserve(target: &Target) -> Result<File> {
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
    Ok(file)
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
