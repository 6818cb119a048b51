//! Unpacking a bundle into a directory: models and extra files as they are, each image as an archive that
//! `docker load` takes.
//!
//! Chunks are read in order, decoded, checked and written by several threads. A file gets its name
//! when all of them are there, so that a second run goes on with what is missing.

mod pieces;
mod targets;

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use pieces::{Decoded, Worker, pieces, prepare};
use targets::Target;

use crate::bundle::media::Media;
use crate::error::{Error, Result};
use crate::fs::{free_space, sync_dir};
use crate::parallel::in_order;

/// Files that are right and wait to be synced: progress shall not run far ahead of the disk.
const UNNAMED: usize = 4;

/// What was unpacked, and what could not be.
#[derive(Debug, Default)]
pub struct Extracted {
    /// Files that were written by this run.
    pub written: usize,
    /// Files that were there and right.
    pub kept: usize,
    /// Why the others were not written: their chunks are missing or damaged.
    pub failed: Vec<Error>,
}

/// Unpacks into `root` with `threads` threads; `done` is told the raw bytes so far of those that
/// the manifest counts. Files whose chunks are missing or damaged are left out and listed; only an
/// error of the target directory ends the work.
pub fn extract(
    media: &Media,
    root: &Path,
    threads: usize,
    done: &(dyn Fn(u64) + Sync),
) -> Result<Extracted> {
    let mut result = Extracted::default();
    let mut bytes = 0;
    let mut todo = Vec::new();
    for target in targets::all(media.manifest(), root) {
        if target.is_there(media.manifest())? {
            result.kept += 1;
        } else if let Err(error) = target.check_chunks(media) {
            result.failed.push(error);
        } else {
            todo.push(target);
            continue;
        }
        bytes += target.file.size;
        done(bytes);
    }
    check_space(root, todo.iter().map(|target| target.file.size).sum())?;
    thread::scope(|scope| {
        let (right, arrived) = sync_channel(UNNAMED);
        let publisher = scope.spawn(move || arrived.into_iter().try_for_each(publish));
        let mut files = Files {
            targets: &todo,
            fault: None,
            right,
            result,
        };
        let worked = each_piece(media, &todo, threads, |piece| {
            bytes += piece.raw.as_ref().unwrap_or(&0);
            done(bytes);
            files.take(piece)
        });
        // Its end is the publisher's; whose error says why nothing more can be handed to it.
        drop(files.right);
        publisher.join().unwrap_or_else(|_| Err(publisher_died()))?;
        worked.map(|()| files.result)
    })
}

/// Decodes and writes all pieces with many threads, and hands them on in order.
fn each_piece(
    media: &Media,
    targets: &[Target<'_>],
    threads: usize,
    mut take: impl FnMut(Decoded) -> Result<()>,
) -> Result<()> {
    let workers = (0..threads.max(1))
        .map(|_| {
            let mut worker = Worker::new(media, targets)?;
            Ok(move |piece: Result<_>| worker.work(piece?))
        })
        .collect::<Result<Vec<_>>>()?;
    let prepared = pieces(targets).map(|piece| prepare(targets, piece));
    thread::scope(|scope| {
        in_order(scope, prepared, workers, threads).try_for_each(|piece| take(piece?))
    })
}

/// Sees the pieces of one file after the other, and hands on the files that are right.
struct Files<'a> {
    targets: &'a [Target<'a>],
    /// Why the file at hand cannot be had.
    fault: Option<Error>,
    /// To the thread that publishes: the disk writes a file while the next ones are unpacked.
    right: SyncSender<&'a Target<'a>>,
    result: Extracted,
}

impl<'a> Files<'a> {
    fn take(&mut self, decoded: Decoded) -> Result<()> {
        self.fault = self.fault.take().or(decoded.raw.err());
        if decoded.piece.last {
            self.end(&self.targets[decoded.piece.target])?;
        }
        Ok(())
    }

    fn end(&mut self, target: &'a Target<'a>) -> Result<()> {
        if let Some(fault) = self.fault.take() {
            self.result.failed.push(fault);
            let part = target.part_path();
            return fs::remove_file(&part).map_err(Error::io("remove", &part));
        }
        self.right.send(target).map_err(|_| publisher_died())?;
        self.result.written += 1;
        Ok(())
    }
}

/// Syncs a file and gives it its name.
fn publish(target: &Target<'_>) -> Result<()> {
    let part = target.part_path();
    File::open(&part)
        .and_then(|file| {
            if target.executable {
                file.set_permissions(Permissions::from_mode(0o755))?;
            }
            file.sync_all()
        })
        .map_err(Error::io("write", &part))?;
    fs::rename(&part, &target.path).map_err(Error::io("rename to", &target.path))?;
    target.path.parent().map_or(Ok(()), sync_dir)
}

fn publisher_died() -> Error {
    Error::Failed("the thread that names files died; this is a bug, please report it".into())
}

fn check_space(root: &Path, needed: u64) -> Result<()> {
    let free = free_space(root)?;
    if needed <= free {
        return Ok(());
    }
    Err(Error::NoSpace(format!(
        "{} has {free} bytes free, and {needed} are needed; choose another directory with -C",
        root.display()
    )))
}
