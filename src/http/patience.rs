//! How often and how long to try again.

use std::time::Duration;

/// Attempts at one request, and the waits between them, which double.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Attempts in all; at least one is made.
    pub attempts: u32,
    /// The wait after the first failure.
    pub first_wait: Duration,
    /// No wait is longer.
    pub longest_wait: Duration,
}

impl Default for Patience {
    /// About three minutes of waits: long enough for a router to restart.
    fn default() -> Self {
        Self {
            attempts: 12,
            first_wait: Duration::from_millis(500),
            longest_wait: Duration::from_secs(30),
        }
    }
}

impl Patience {
    /// How long to wait after failure number `failures`, counted from 1; none when it was the last.
    #[must_use]
    pub fn wait_after(self, failures: u32) -> Option<Duration> {
        if failures >= self.attempts {
            return None;
        }
        let factor = 2u32.checked_pow(failures.saturating_sub(1));
        let wait = factor.and_then(|factor| self.first_wait.checked_mul(factor));
        Some(wait.map_or(self.longest_wait, |wait| wait.min(self.longest_wait)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_end() {
        let patience = Patience {
            attempts: 5,
            first_wait: Duration::from_secs(1),
            longest_wait: Duration::from_secs(3),
        };
        let waits: Vec<_> = (1..=6)
            .map(|failures| patience.wait_after(failures).map(|wait| wait.as_secs()))
            .collect();
        assert_eq!(waits, [Some(1), Some(2), Some(3), Some(3), None, None]);
    }

    #[test]
    fn many_attempts_do_not_overflow() {
        let patience = Patience {
            attempts: u32::MAX,
            ..Patience::default()
        };
        assert_eq!(patience.wait_after(1000), Some(patience.longest_wait));
    }
}
