//! Work on many items at once, results in the order of the items.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Scope;

use crate::error::{Error, Result};

/// Results in the order of their items. Dropping it stops the workers.
pub struct Ordered<T> {
    slots: Receiver<Receiver<Result<T>>>,
}

/// What the workers share: the items to come, and where the place of each result is queued.
struct Queue<I, T> {
    items: I,
    slots: SyncSender<Receiver<Result<T>>>,
}

/// Starts a thread for each worker; each takes the next item when it is free. At most `window`
/// results wait to be consumed, besides those that are being made.
pub fn in_order<'scope, I, T, W>(
    scope: &'scope Scope<'scope, '_>,
    items: I,
    workers: Vec<W>,
    window: usize,
) -> Ordered<T>
where
    I: Iterator + Send + 'scope,
    W: FnMut(I::Item) -> Result<T> + Send + 'scope,
    T: Send + 'scope,
{
    let (slots, results) = sync_channel(window);
    let queue = Arc::new(Mutex::new(Some(Queue { items, slots })));
    for mut work in workers {
        let queue = Arc::clone(&queue);
        scope.spawn(move || {
            while let Some((item, slot)) = next(&queue) {
                // The consumer may be gone; then `next` ends the loop.
                let _ = slot.send(work(item));
            }
        });
    }
    Ordered { slots: results }
}

/// The next item and the place of its result. Taking both under one lock keeps them in order.
fn next<I: Iterator, T>(
    queue: &Mutex<Option<Queue<I, T>>>,
) -> Option<(I::Item, SyncSender<Result<T>>)> {
    let mut guard = queue.lock().unwrap_or_else(PoisonError::into_inner);
    let queue = guard.as_mut()?;
    let place = queue.items.next().and_then(|item| {
        let (slot, result) = sync_channel(1);
        queue.slots.send(result).ok()?;
        Some((item, slot))
    });
    if place.is_none() {
        *guard = None;
    }
    place
}

impl<T> Iterator for Ordered<T> {
    type Item = Result<T>;

    fn next(&mut self) -> Option<Result<T>> {
        let slot = self.slots.recv().ok()?;
        Some(slot.recv().unwrap_or_else(|_| {
            Err(Error::Failed(
                "a worker thread died; this is a bug, please report it".into(),
            ))
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;
    use std::time::Duration;

    use super::*;

    #[test]
    fn results_keep_the_order_of_their_items() {
        let work = |item: u64| {
            thread::sleep(Duration::from_micros((item * 7919) % 500));
            Ok(item * 2)
        };
        let doubled: Vec<u64> = thread::scope(|scope| {
            in_order(scope, 0..200, vec![work; 5], 3)
                .map(Result::unwrap)
                .collect()
        });
        assert_eq!(doubled, (0..200).map(|item| item * 2).collect::<Vec<_>>());
    }

    #[test]
    fn no_more_than_the_window_is_made_ahead() {
        let started = AtomicUsize::new(0);
        let started = &started;
        let work = |item: usize| {
            started.fetch_add(1, Ordering::SeqCst);
            Ok(item)
        };
        thread::scope(|scope| {
            let results = in_order(scope, 0..100, vec![work, work], 4);
            for (consumed, result) in (1..).zip(results) {
                result.unwrap();
                // Consumed ones, the window, and one per worker that waits to queue its place.
                assert!(started.load(Ordering::SeqCst) <= consumed + 4 + 2);
            }
        });
        assert_eq!(started.load(Ordering::SeqCst), 100);
    }

    #[test]
    fn an_error_comes_in_its_place_and_dropping_stops_the_work() {
        let started = AtomicUsize::new(0);
        let started = &started;
        let work = |item: usize| {
            started.fetch_add(1, Ordering::SeqCst);
            if item == 5 {
                Err(Error::Failed("five".into()))
            } else {
                Ok(item)
            }
        };
        thread::scope(|scope| {
            let mut results = in_order(scope, 0.., vec![work, work], 2);
            for expected in 0..5 {
                assert_eq!(results.next().unwrap().unwrap(), expected);
            }
            assert_eq!(results.next().unwrap().unwrap_err().to_string(), "five");
        });
        assert!(started.load(Ordering::SeqCst) < 20);
    }
}
