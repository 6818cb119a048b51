//! The same work for many files on all cores.

use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::error::Result;

/// More threads than this only make a disk seek.
const MAX_THREADS: usize = 16;

/// Calls `work` with each index below `count`; results in order, or the error of the lowest index.
pub fn map<T: Send>(count: usize, work: impl Fn(usize) -> Result<T> + Sync) -> Result<Vec<T>> {
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    let next = AtomicUsize::new(0);
    let one_thread = || {
        let mut done = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= count {
                return done;
            }
            done.push((index, work(index)));
        }
    };
    let mut results = thread::scope(|scope| {
        let threads: Vec<_> = (1..cores.min(MAX_THREADS).min(count))
            .map(|_| scope.spawn(one_thread))
            .collect();
        let mut results = one_thread();
        for thread in threads {
            match thread.join() {
                Ok(more) => results.extend(more),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        results
    });
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn results_are_in_order_and_the_first_error_wins() {
        assert_eq!(map(100, Ok).unwrap(), (0..100).collect::<Vec<_>>());
        let error = map(100, |index| match index {
            ..40 => Ok(()),
            _ => Err(Error::Failed(index.to_string())),
        });
        assert_eq!(error.unwrap_err().to_string(), "40");
    }
}
