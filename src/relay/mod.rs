//! The relay chain: chunks from node to node over pinned TLS, checked before they are kept.
//!
//! The origin [`feed`]s the first node through a [`forward::Forward`]; each node runs a
//! [`hop::Hop`], which passes the bytes on while they arrive and hands whole, checked chunks to
//! its [`Store`]. Who is next can change at any time; what a node misses by that comes in a later
//! round. `docs/RELAY.md` says why.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::digest::Sha256;
use crate::error::{Error, Result};

mod feed;
pub mod forward;
pub mod frame;
pub mod hop;
mod keeper;
pub mod tls;

pub use feed::feed;

/// Where a node's chunks go.
pub trait Store: Send + Sync {
    /// Checks and keeps a chunk of these stored bytes. Called by several threads at once.
    fn put(&self, chunk: u32, stored: &[u8]) -> Result<Put>;
}

/// What became of a chunk.
pub enum Put {
    /// It is here, since now or before.
    Kept,
    /// It is not what the manifest says, so it changed on its way. It is still missing here.
    Changed,
}

/// A node's data port, and the certificate that must answer there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Where it listens.
    pub address: SocketAddr,
    /// SHA-256 of its certificate.
    pub fingerprint: Sha256,
}

/// What happens in a hop, for the control channel.
#[derive(Debug)]
pub enum RelayEvent {
    /// Totals of this round, some times a second while data flows.
    Progress {
        /// Chunks that the store has taken.
        stored_chunks: u32,
        /// Bytes that came in.
        received: u64,
        /// For how long the next node made this one wait.
        held: Duration,
    },
    /// A chunk came that is not what the manifest says: it changed on its way, and is not kept.
    Changed {
        /// Index in the manifest.
        chunk: u32,
    },
    /// The end of the round came, and everything before it is stored.
    RoundDone,
    /// The next node takes no more; nothing is passed on until another is set.
    NextFailed {
        /// Its data address.
        next: SocketAddr,
        /// Why, as a sentence.
        message: String,
    },
    /// The connection to the feeder ended before the round did; another is waited for.
    FeederLost {
        /// Why, as a sentence.
        message: String,
    },
    /// The store takes no more here; chunks are still passed on.
    Broken {
        /// What it said.
        error: Error,
    },
}

/// Hears events, on the threads where they happen.
pub type Listener = Arc<dyn Fn(RelayEvent) + Send + Sync>;

/// Bytes that are passed on at once.
const PIECE: usize = 256 << 10;

#[cfg(test)]
mod tests;
