//! The one error type of the library: a sentence for an operator, and the exit code it leads to.

use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};

/// Names in a sentence before it says "and N more".
const NAMED: usize = 3;

/// Result of every fallible library function.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong. Each message says what failed, where, and what to do next;
/// the variant decides the exit code, which scripts rely on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused something on a path.
    #[error("cannot {action} {}: {cause}", path.display())]
    Io {
        /// A verb that fits "cannot ... PATH".
        action: &'static str,
        /// The file or directory concerned.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// It did not work, and no more special category fits.
    #[error("{0}")]
    Failed(String),
    /// The command line, the spec or hosts.txt asks for something that makes no sense.
    #[error("{0}")]
    Usage(String),
    /// Some nodes failed, others did not.
    #[error("{0}")]
    SomeNodes(String),
    /// Content does not match its hash, or is missing.
    #[error("{0}")]
    Damaged(String),
    /// A signature, signer or serial is not acceptable here.
    #[error("{0}")]
    Untrusted(String),
    /// An ssh host key is unknown, changed or revoked.
    #[error("{0}")]
    HostKey(String),
    /// A filesystem is, or would become, full.
    #[error("{0}")]
    NoSpace(String),
    /// Another bundle process works in the same place.
    #[error("{0}")]
    Locked(String),
    /// Ctrl-C or SIGTERM; the message says how to go on.
    #[error("{0}")]
    Interrupted(String),
}

impl Error {
    /// For `map_err` on an I/O call: `.map_err(Error::io("write", &path))`.
    pub fn io(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        move |cause| Self::Io {
            action,
            path: path.as_ref().to_owned(),
            cause,
        }
    }

    /// The process exit code; the table stands in the README.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Io { cause, .. } if cause.kind() == io::ErrorKind::StorageFull => 13,
            Self::Io { .. } | Self::Failed(_) => 1,
            Self::Usage(_) => 2,
            Self::SomeNodes(_) => 3,
            Self::Damaged(_) => 10,
            Self::Untrusted(_) => 11,
            Self::HostKey(_) => 12,
            Self::NoSpace(_) => 13,
            Self::Locked(_) => 15,
            Self::Interrupted(_) => 130,
        }
    }

    /// Rebuilds an error that travelled as exit code and text, e.g. from an agent.
    #[must_use]
    pub fn from_code(code: u8, message: String) -> Self {
        match code {
            2 => Self::Usage(message),
            3 => Self::SomeNodes(message),
            10 => Self::Damaged(message),
            11 => Self::Untrusted(message),
            12 => Self::HostKey(message),
            13 => Self::NoSpace(message),
            15 => Self::Locked(message),
            130 => Self::Interrupted(message),
            _ => Self::Failed(message),
        }
    }

    /// The same error with a place in front, e.g. a node's address: "PLACE: message".
    #[must_use]
    pub fn at(self, place: impl Display) -> Self {
        let code = self.exit_code();
        Self::from_code(code, format!("{place}: {self}"))
    }
}

/// `a, b, c and 4 more`
#[must_use]
pub fn names_of(names: &[&str]) -> String {
    let more = names.len().saturating_sub(NAMED);
    let shown = names[..names.len() - more].join(", ");
    if more == 0 {
        shown
    } else {
        format!("{shown} and {more} more")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lists_are_cut_short() {
        assert_eq!(names_of(&["a", "b", "c", "d", "e"]), "a, b, c and 2 more");
    }

    #[test]
    fn exit_codes_survive_the_wire() {
        for code in [1, 2, 3, 10, 11, 12, 13, 15, 130] {
            let error = Error::from_code(code, "x".into());
            assert_eq!(error.exit_code(), code);
            assert_eq!(error.at("10.0.0.11").exit_code(), code);
        }
    }

    #[test]
    fn a_full_disk_is_no_space() {
        let full = io::Error::from(io::ErrorKind::StorageFull);
        let error = Error::io("write", "/data/x")(full);
        assert_eq!(error.exit_code(), 13);
        assert!(error.to_string().starts_with("cannot write /data/x: "));
    }
}
