//! Signs of life over a control channel. A link that drops packets silently ends no connection for
//! a quarter of an hour; both ends notice it by this within half a minute.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};

/// How often the origin gives one.
pub const INTERVAL: Duration = Duration::from_secs(5);

/// After so long without one the other end counts as gone.
pub const LIMIT: Duration = Duration::from_secs(30);

/// When the other end was last heard. Shared by threads.
#[derive(Clone)]
pub struct Heard(Arc<Mutex<Instant>>);

impl Default for Heard {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }
}

impl Heard {
    /// It was heard just now.
    pub fn now(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Whether it counts as gone.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .elapsed()
            > LIMIT
    }
}

/// Starts a thread that calls `beat` every [`INTERVAL`] until it returns false.
pub fn every_interval(mut beat: impl FnMut() -> bool + Send + 'static) -> Result<()> {
    thread::Builder::new()
        .name("pulse".into())
        .spawn(move || {
            loop {
                thread::sleep(INTERVAL);
                if !beat() {
                    return;
                }
            }
        })
        .map(drop)
        .map_err(|error| Error::Failed(format!("cannot start a thread: {error}")))
}
