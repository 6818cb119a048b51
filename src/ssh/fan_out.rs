//! The same work on many nodes at once.

use std::panic;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// How many nodes are contacted at once.
pub const MAX_PARALLEL: usize = 32;

/// Runs `work` for every item, at most [`MAX_PARALLEL`] at a time, each on a thread; results come
/// in the order of the items. A panic in `work` is passed on.
pub fn fan_out<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut done = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(index) else {
                return done;
            };
            done.push((index, work(item)));
        }
    };
    let mut results: Vec<(usize, R)> = thread::scope(|scope| {
        let threads: Vec<_> = (0..items.len().min(MAX_PARALLEL))
            .map(|_| scope.spawn(worker))
            .collect();
        threads
            .into_iter()
            .flat_map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|cause| panic::resume_unwind(cause))
            })
            .collect()
    });
    results.sort_unstable_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn results_keep_the_order_of_the_items() {
        let items: Vec<usize> = (0..100).collect();
        let doubled: Vec<usize> = items.iter().map(|item| item * 2).collect();
        assert_eq!(fan_out(&items, |item| item * 2), doubled);
        assert_eq!(fan_out(&items[..0], |item| *item), Vec::<usize>::new());
    }

    #[test]
    fn all_nodes_are_contacted_at_once() {
        // Each waits for all the others: less than full parallelism would never end.
        let barrier = Barrier::new(MAX_PARALLEL);
        fan_out(&[(); MAX_PARALLEL], |()| {
            barrier.wait();
        });
    }
}
