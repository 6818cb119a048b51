//! Worker threads that check whole chunks and hand them to the store, so that the network never
//! waits for a hash or a disk.

use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use super::{Listener, RelayEvent, Store};
use crate::bundle::manifest::Chunk;
use crate::digest::Sha256;
use crate::error::{Error, Result};

/// Threads; with one chunk in each, as many waiting and one arriving, about 100 MiB.
const WORKERS: usize = 3;

type Item = (u32, Vec<u8>);

/// Takes chunks until dropped.
pub struct Keeper {
    queue: SyncSender<Item>,
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

struct Shared {
    chunks: Arc<[Chunk]>,
    store: Arc<dyn Store>,
    listener: Listener,
    count: Mutex<Count>,
    idle: Condvar,
}

#[derive(Clone, Copy, Default)]
struct Count {
    waiting: u32,
    stored: u32,
    broken: bool,
}

impl Keeper {
    /// Starts the threads.
    pub fn start(chunks: Arc<[Chunk]>, store: Arc<dyn Store>, listener: Listener) -> Result<Self> {
        let (queue, items) = mpsc::sync_channel(WORKERS);
        let items = Arc::new(Mutex::new(items));
        let shared = Arc::new(Shared {
            chunks,
            store,
            listener,
            count: Mutex::default(),
            idle: Condvar::new(),
        });
        let start = |_| {
            let (shared, items) = (Arc::clone(&shared), Arc::clone(&items));
            thread::Builder::new()
                .name("keep".into())
                .spawn(move || shared.work(&items))
                .map_err(|error| Error::Failed(format!("cannot start a thread: {error}")))
        };
        let workers = (0..WORKERS).map(start).collect::<Result<_>>()?;
        Ok(Self {
            queue,
            shared,
            workers,
        })
    }

    /// Queues a chunk; blocks while all are busy.
    pub fn keep(&self, chunk: u32, stored: Vec<u8>) {
        self.shared.lock().waiting += 1;
        // The workers end only when this value is dropped.
        let _ = self.queue.send((chunk, stored));
    }

    /// Chunks that the store has taken.
    pub fn stored(&self) -> u32 {
        self.shared.lock().stored
    }

    /// Waits until nothing waits; returns whether the store took everything.
    pub fn finish(&self) -> bool {
        let mut count = self.shared.lock();
        while count.waiting > 0 {
            count = self
                .shared
                .idle
                .wait(count)
                .unwrap_or_else(PoisonError::into_inner);
        }
        !count.broken
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        let (closed, _) = mpsc::sync_channel(0);
        self.queue = closed;
        for worker in self.workers.drain(..) {
            // A panic there was reported by the panic hook already.
            let _ = worker.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Count> {
        self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self, items: &Mutex<Receiver<Item>>) {
        loop {
            let item = items.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok((chunk, stored)) = item else { return };
            let result = if self.lock().broken {
                Ok(false)
            } else {
                self.put(chunk, stored)
            };
            let mut count = self.lock();
            match result {
                Ok(kept) => count.stored += u32::from(kept),
                Err(error) if !count.broken => {
                    count.broken = true;
                    (self.listener)(RelayEvent::Broken { error });
                }
                Err(_) => {}
            }
            count.waiting -= 1;
            self.idle.notify_all();
        }
    }

    /// Returns false for a chunk that was damaged on its way: it is still missing here, and the
    /// next round brings it again.
    fn put(&self, chunk: u32, stored: Vec<u8>) -> Result<bool> {
        let named = self.chunks.get(chunk as usize).map(|chunk| chunk.blob);
        if named != Some(Sha256::of(&stored)) {
            return Ok(false);
        }
        self.store.put(chunk, stored).map(|()| true)
    }
}
