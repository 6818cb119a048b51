//! Syncing a file while it grows.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

/// How much may be written between two syncs, in bytes.
const STRETCH: u64 = 64 << 20;

/// Brings what was written to the disk while more is written, so that the sync at the end has
/// little left to do: otherwise the disk would idle until then.
pub struct WriteBehind {
    paths: SyncSender<PathBuf>,
    written: u64,
}

impl WriteBehind {
    /// Starts the thread that syncs; it ends when this is dropped.
    pub fn start() -> Self {
        let (paths, asked) = sync_channel::<PathBuf>(0);
        thread::spawn(move || {
            for path in asked {
                // An error comes back from the writer's own sync: each open file is told of it.
                let _ = File::open(path).and_then(|file| file.sync_data());
            }
        });
        Self { paths, written: 0 }
    }

    /// Notes that so many bytes were written to a file.
    pub fn wrote(&mut self, path: &Path, bytes: usize) {
        self.written += bytes as u64;
        // A sync that is still going on is waited for by nobody.
        if self.written >= STRETCH && self.paths.try_send(path.to_owned()).is_ok() {
            self.written = 0;
        }
    }
}
