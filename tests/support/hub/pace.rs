//! A link of limited rate that all connections share.

use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Bytes that go at once.
const PIECE: usize = 64 << 10;

/// A thread that wakes late may make up for so much.
const SLACK: Duration = Duration::from_millis(5);

/// When the link is free again.
pub struct Pace {
    rate: u64,
    free: Mutex<Instant>,
}

impl Pace {
    /// A link of so many bytes in a second.
    pub fn new(rate: u64) -> Self {
        Self {
            rate,
            free: Mutex::new(Instant::now()),
        }
    }

    /// Takes the link for so many bytes, and waits for its turn.
    fn wait(&self, bytes: usize) {
        let takes = Duration::from_nanos(bytes as u64 * 1_000_000_000 / self.rate);
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let start = (*free).max(now.checked_sub(SLACK).unwrap_or(now));
        *free = start + takes;
        drop(free);
        thread::sleep(start.saturating_duration_since(now));
    }
}

/// Writes at the link's pace, if it has one.
pub struct Paced<'a> {
    pub out: &'a mut dyn Write,
    pub pace: Option<&'a Pace>,
}

impl Write for Paced<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(pace) = self.pace else {
            return self.out.write(bytes);
        };
        let bytes = &bytes[..bytes.len().min(PIECE)];
        pace.wait(bytes.len());
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
