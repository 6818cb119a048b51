//! The same work for many files on all cores.

use std::num::NonZero;
use std::thread;

use crate::error::Result;
use crate::parallel::in_order;

/// More threads than this only make a disk seek.
const MAX_THREADS: usize = 16;

/// Calls `work` with each index below `count`; results in order, or the error of the lowest index.
pub fn map<T: Send>(count: usize, work: impl Fn(usize) -> Result<T> + Sync) -> Result<Vec<T>> {
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    let threads = cores.min(MAX_THREADS).min(count);
    let workers = (0..threads).map(|_| &work).collect();
    thread::scope(|scope| in_order(scope, 0..count, workers, threads).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn results_are_in_order_and_the_first_error_wins() {
        assert_eq!(map(100, Ok).unwrap(), (0..100).collect::<Vec<_>>());
        assert_eq!(map(0, Ok).unwrap(), [0; 0]);
        let error = map(100, |index| match index {
            ..40 => Ok(()),
            _ => Err(Error::Failed(index.to_string())),
        });
        assert_eq!(error.unwrap_err().to_string(), "40");
    }
}
