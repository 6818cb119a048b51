//! Why one attempt at a request failed, and what may help.

use std::time::Duration;

/// What one attempt led to.
pub type Attempt<T> = Result<T, Fault>;

/// A failed attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The host that was asked, with its port if that is unusual.
    pub host: String,
    /// What it did, as the end of a sentence.
    pub cause: String,
    /// What may help.
    pub remedy: Remedy,
}

/// What may help after a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// Nothing that a program can do.
    Nothing,
    /// Another attempt, a little later.
    Again,
    /// Another attempt, after the time that the server named.
    After(Duration),
    /// Nothing: the operator wants to stop.
    Stopped,
}

impl Fault {
    /// A fault that another attempt may cure.
    #[must_use]
    pub fn passing(host: impl Into<String>, cause: impl Into<String>) -> Self {
        Self {
            host: host.into(),
            cause: cause.into(),
            remedy: Remedy::Again,
        }
    }

    /// A fault that will not go away.
    #[must_use]
    pub fn lasting(host: impl Into<String>, cause: impl Into<String>) -> Self {
        Self {
            remedy: Remedy::Nothing,
            ..Self::passing(host, cause)
        }
    }
}
