//! A progress bar with rate and time left on a terminal, a plain line now and then otherwise.

use std::io::{self, IsTerminal as _};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::output::{note, size};

/// How often a log file gets a line.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Shows how many bytes of a known total are done. Shared by threads.
pub struct Meter {
    what: String,
    total: AtomicU64,
    started: Instant,
    bar: Option<ProgressBar>,
    last_line: Mutex<Instant>,
}

impl Meter {
    /// Begins; `what` is a verb in the present: `verifying`.
    #[must_use]
    pub fn new(what: &str, total: u64) -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let template = "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta} left";
            let style = ProgressStyle::with_template(template)
                .unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(total)
                .with_style(style)
                .with_message(what.to_owned())
        });
        let now = Instant::now();
        Self {
            what: what.to_owned(),
            total: AtomicU64::new(total),
            started: now,
            bar,
            last_line: Mutex::new(now),
        }
    }

    /// So many bytes are done by now.
    pub fn set(&self, done: u64) {
        if let Some(bar) = &self.bar {
            return bar.set_position(done);
        }
        let Ok(mut last) = self.last_line.try_lock() else {
            return;
        };
        let total = self.total.load(Ordering::Relaxed);
        if last.elapsed() >= LINE_EVERY {
            *last = Instant::now();
            note(&line(&self.what, done, total, self.started.elapsed()));
        }
    }

    /// The total turned out to be another.
    pub fn set_total(&self, total: u64) {
        self.total.store(total, Ordering::Relaxed);
        if let Some(bar) = &self.bar {
            bar.set_length(total);
        }
    }

    /// Changes what is being done, e.g. the file at hand.
    pub fn label(&self, what: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(what.to_owned());
        }
    }

    /// A remark that does not tear the bar.
    pub fn note(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| note(text)),
            None => note(text),
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// `verifying: 1.2 GB of 9.0 GB, 400.0 MB/s, 20 s left`
fn line(what: &str, done: u64, total: u64, elapsed: Duration) -> String {
    let millis = u64::try_from(elapsed.as_millis())
        .unwrap_or(u64::MAX)
        .max(1);
    let rate = done.saturating_mul(1000) / millis;
    let left = match total.saturating_sub(done).checked_div(rate) {
        Some(seconds) => format!(", {seconds} s left"),
        None => String::new(),
    };
    format!(
        "{what}: {} of {}, {}/s{left}",
        size(done),
        size(total),
        size(rate)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_gives_rate_and_time_left() {
        let text = line(
            "verifying",
            2_000_000_000,
            10_000_000_000,
            Duration::from_secs(4),
        );
        assert_eq!(text, "verifying: 2.0 GB of 10.0 GB, 500.0 MB/s, 16 s left");
        let text = line("verifying", 0, 5, Duration::ZERO);
        assert_eq!(text, "verifying: 0 B of 5 B, 0 B/s");
    }
}
