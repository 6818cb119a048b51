//! The ordered pipeline: whoever feeds it cuts files into raw chunks, a pool of workers encodes
//! them, and one thread appends them to the volumes, all in the order of the files.
//!
//! ```text
//! fetch (reads ranges) -> intake (hashes files) -> encode (codes, hashes blobs)
//!   -> ledger (drops equal chunks, appends to volumes, keeps the journal)
//! ```
//!
//! Every queue is bounded; an error anywhere ends all threads. What was fed before an error is
//! still written and journaled, so that the next run need not do it again.

mod encode;
pub mod fetch;
pub mod intake;
pub mod ledger;
mod step;
pub mod stream;

use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use self::encode::EncodeWorker;
use self::ledger::Ledger;
use self::step::Step;
use super::state::State;
use crate::error::{Error, Result};
use crate::parallel::{Buffer, Buffers, in_order};

/// Encoded chunks that may wait for their turn to be appended, besides one per worker.
const ENCODED_AHEAD: usize = 2;

/// Runs `feed` with a pipeline behind it; returns what is packed when all of it is written, and
/// what `feed` returned.
pub fn run<T>(
    ledger: Ledger<'_>,
    jobs: usize,
    feed: impl FnOnce(SyncSender<Step<Buffer>>) -> Result<T>,
) -> Result<(State, T)> {
    thread::scope(|scope| {
        let (steps, items) = sync_channel(1);
        let buffers = Buffers::default();
        let workers = (0..jobs)
            .map(|_| {
                let mut worker = EncodeWorker::new(&buffers)?;
                Ok(move |step| worker.work(step))
            })
            .collect::<Result<_>>()?;
        let encoded = in_order(scope, items.into_iter(), workers, jobs + ENCODED_AHEAD);
        let writer = scope.spawn(move || ledger.drain(encoded));
        let result = feed(steps);
        let written = writer.join().map_err(|_| {
            Error::Failed("the writing thread died; this is a bug, please report it".into())
        })??;
        let result = result?;
        Ok((written.finish()?, result))
    })
}
