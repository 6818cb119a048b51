//! Small filesystem pieces: atomic files, durable directories, free space, locks.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use crate::error::{Error, Result};

/// What memory and offsets of [`write_direct`] and [`read_direct`] must be multiples of.
pub const PAGE: usize = 4096;

/// Writes a file so that a reader or a crash sees the old content or the new, never a mix.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    let parent = parent_of(path);
    let fail = |cause| Error::io("write", path)(cause);
    let mut file = tempfile::Builder::new()
        .prefix(".bundle-")
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .tempfile_in(&parent)
        .map_err(fail)?;
    file.write_all(bytes).map_err(fail)?;
    file.as_file().sync_all().map_err(fail)?;
    file.persist(path)
        .map_err(|error| Error::io("write", path)(error.error))?;
    sync_dir(&parent)
}

/// Writes to a file at an offset, past the page cache where that is possible: a copy of everything
/// there costs more time than hashing it, and what is written is not read again soon.
pub fn write_direct(path: &Path, bytes: &[u8], offset: u64) -> io::Result<()> {
    past_cache(
        path,
        File::options().write(true),
        bytes.len(),
        |file, part| {
            let at = offset + part.start as u64;
            file.write_all_at(&bytes[part], at)
        },
    )
}

/// Fills memory from a file at an offset, past the page cache where that is possible: what is read
/// once to be hashed shall not push out what others need, and is what the disk holds.
pub fn read_direct(path: &Path, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    past_cache(
        path,
        File::options().read(true),
        bytes.len(),
        |file, part| {
            let at = offset + part.start as u64;
            file.read_exact_at(&mut bytes[part], at)
        },
    )
}

/// Moves the whole pages of so many bytes past the page cache, and the rest through it.
fn past_cache(
    path: &Path,
    options: &OpenOptions,
    len: usize,
    mut move_part: impl FnMut(&File, Range<usize>) -> io::Result<()>,
) -> io::Result<()> {
    let pages = len - len % PAGE;
    let direct = (options.clone())
        .custom_flags(OFlags::DIRECT.bits().cast_signed())
        .open(path)
        .and_then(|file| move_part(&file, 0..pages));
    // Filesystems in memory, in user space or with larger pages refuse this in words of their own;
    // what is really wrong comes up again.
    let done = match direct {
        Ok(()) if pages == len => return Ok(()),
        Ok(()) => pages,
        Err(_) => 0,
    };
    move_part(&options.open(path)?, done..len)
}

/// Makes renames and new names inside a directory survive a power loss.
pub fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir)
        .and_then(|handle| handle.sync_all())
        .map_err(Error::io("sync", dir))
}

/// Creates a directory and its parents.
pub fn create_dir_all(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).map_err(Error::io("create directory", dir))
}

/// Removes a directory with all that is in it, unless it is gone already.
pub fn remove_dir_all(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
            Err(Error::io("remove", dir)(cause))
        }
        _ => Ok(()),
    }
}

/// Reads a whole file of at most `limit` bytes, so that a swapped file cannot fill the memory.
pub fn read_limited(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let size = fs::metadata(path).map_err(Error::io("read", path))?.len();
    if size > limit {
        return Err(Error::Damaged(format!(
            "{} has {size} bytes, more than the {limit} that are possible; it is not what its name says",
            path.display()
        )));
    }
    fs::read(path).map_err(Error::io("read", path))
}

/// Bytes that an unprivileged writer can still use on the filesystem that holds `path`, which
/// need not exist yet.
pub fn free_space(path: &Path) -> Result<u64> {
    let existing = existing_part(path);
    let stat = rustix::fs::statvfs(existing)
        .map_err(|errno| Error::io("measure free space of", existing)(errno.into()))?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Number of the filesystem that holds `path`, which need not exist yet.
pub fn device(path: &Path) -> Result<u64> {
    let existing = existing_part(path);
    let metadata = fs::metadata(existing).map_err(Error::io("look at", existing))?;
    Ok(metadata.dev())
}

/// The longest leading part of a path that is there.
fn existing_part(path: &Path) -> &Path {
    path.ancestors()
        .find(|part| part.exists())
        .unwrap_or(Path::new("/"))
}

/// An exclusive lock, held until dropped or until the process ends, however it ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock, or says who keeps us out: `what` completes "another `bundle` is ...".
    pub fn take(path: &Path, what: &str) -> Result<Self> {
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)
            .map_err(Error::io("open lock", path))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(Error::Locked(format!(
                "another bundle process is {what} (lock {}); wait for it or stop it",
                path.display()
            ))),
            Err(TryLockError::Error(cause)) => Err(Error::io("lock", path)(cause)),
        }
    }
}

/// The directory that holds a path; `.` for a bare name.
fn parent_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parallel::Buffers;

    #[test]
    fn an_atomic_write_replaces_and_leaves_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        write_atomic(&path, b"one").unwrap();
        write_atomic(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn direct_writes_of_any_length_arrive_and_can_be_read() {
        let (dir, buffers) = (tempfile::tempdir().unwrap(), Buffers::default());
        let path = dir.path().join("x");
        for len in [0, 1, PAGE, 2 * PAGE + 7] {
            let mut bytes = buffers.aligned(len);
            bytes.fill(7);
            fs::write(&path, vec![1; PAGE]).unwrap();
            write_direct(&path, &bytes, PAGE as u64).unwrap();
            let expected = [vec![1; PAGE], bytes.to_vec()].concat();
            assert_eq!(fs::read(&path).unwrap(), expected);
            bytes.fill(0);
            read_direct(&path, &mut bytes, PAGE as u64).unwrap();
            assert_eq!(*bytes, expected[PAGE..]);
            assert!(read_direct(&path, &mut bytes, expected.len() as u64).is_err() || len == 0);
        }
    }

    #[test]
    fn a_second_lock_is_refused_until_the_first_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let first = Lock::take(&path, "packing here").unwrap();
        assert_eq!(
            Lock::take(&path, "packing here").unwrap_err().exit_code(),
            15
        );
        drop(first);
        Lock::take(&path, "packing here").unwrap();
    }

    #[test]
    fn an_oversized_file_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("big");
        fs::write(&path, [0; 11]).unwrap();
        assert_eq!(read_limited(&path, 10).unwrap_err().exit_code(), 10);
        assert_eq!(read_limited(&path, 11).unwrap().len(), 11);
    }

    #[test]
    fn free_space_of_a_path_to_come_is_its_parents() {
        assert!(free_space(Path::new("/nonexistent/a/b")).unwrap() > 0);
    }
}
