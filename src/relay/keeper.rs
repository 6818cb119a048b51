//! Worker threads that hand whole chunks to the store, so that the network never waits for a hash
//! or a disk.

use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use super::{Listener, Put, RelayEvent, Store};
use crate::error::{Error, Result};
use crate::parallel::Aligned;

/// Threads.
const WORKERS: usize = 3;

/// Chunks that wait for one of them.
const QUEUE: usize = 2;

/// A chunk and its stored bytes.
type Item = (u32, Aligned);

/// Takes chunks until dropped.
pub struct Keeper {
    queue: SyncSender<Item>,
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

struct Shared {
    store: Arc<dyn Store>,
    listener: Listener,
    count: Mutex<Count>,
    moved: Condvar,
}

#[derive(Clone, Copy, Default)]
struct Count {
    came: u32,
    /// How many the store has dealt with.
    over: u32,
    stored: u32,
    broken: bool,
}

impl Keeper {
    /// Starts the threads.
    pub fn start(store: Arc<dyn Store>, listener: Listener) -> Result<Self> {
        let (queue, items) = mpsc::sync_channel(QUEUE);
        let items = Arc::new(Mutex::new(items));
        let shared = Arc::new(Shared {
            store,
            listener,
            count: Mutex::default(),
            moved: Condvar::new(),
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
    pub fn keep(&self, chunk: u32, stored: Aligned) {
        self.shared.lock().came += 1;
        // The workers end only when this value is dropped.
        let _ = self.queue.send((chunk, stored));
    }

    /// Chunks that the store has taken.
    pub fn stored(&self) -> u32 {
        self.shared.lock().stored
    }

    /// Waits until nothing waits; returns whether the store took everything.
    pub fn finish(&self) -> bool {
        let waits = |count: &mut Count| count.over < count.came;
        let count = self.shared.moved.wait_while(self.shared.lock(), waits);
        !count.unwrap_or_else(PoisonError::into_inner).broken
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
            let broken = self.lock().broken;
            let result = if broken {
                Ok(Put::Kept)
            } else {
                self.store.put(chunk, &stored)
            };
            self.note(chunk, result);
        }
    }

    fn note(&self, chunk: u32, result: Result<Put>) {
        let mut count = self.lock();
        match result {
            Ok(Put::Kept) => count.stored += u32::from(!count.broken),
            Err(error) if !count.broken => {
                count.broken = true;
                (self.listener)(RelayEvent::Broken { error });
            }
            Ok(Put::Changed) => (self.listener)(RelayEvent::Changed { chunk }),
            Err(_) => {}
        }
        count.over += 1;
        self.moved.notify_all();
    }
}
