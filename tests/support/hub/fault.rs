//! Scripted misbehaviour.

use std::collections::HashMap;
use std::ops::Range;

/// Which requests a fault is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum At {
    /// The hub's API; the path is the repository's name.
    Api,
    /// The hub's URLs of files.
    Resolve,
    /// The storage host.
    Storage,
}

/// What goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// A status and headers instead of an answer.
    Status(u16, Vec<(&'static str, String)>),
    /// A header more, or another value of it.
    Header(&'static str, String),
    /// A page of HTML with status 200.
    WebPage,
    /// The whole file with status 200.
    IgnoreRange,
    /// The first byte of the body is another.
    WrongByte,
    /// The connection is reset instead of an answer.
    HangUp,
    /// No answer comes, but the connection stays.
    Silence,
    /// The connection ends after so many bytes of the body.
    Truncate(u64),
    /// The connection is reset after so many bytes of the body.
    Reset(u64),
    /// Nothing more comes after so many bytes of the body, but the connection stays.
    Stall(u64),
}

/// The faults to come, and how many requests each place has had.
#[derive(Default)]
pub struct Script {
    faults: Vec<(At, String, Range<usize>, Fault)>,
    served: HashMap<(At, String), usize>,
}

impl Script {
    /// Adds a fault for some requests at a place, counted from 0.
    pub fn add(&mut self, at: At, path: &str, requests: Range<usize>, fault: Fault) {
        self.faults.push((at, path.to_owned(), requests, fault));
    }

    /// The fault of the next request at a place, if it has one.
    pub fn next(&mut self, at: At, path: &str) -> Option<Fault> {
        let served = self.served.entry((at, path.to_owned())).or_default();
        let number = *served;
        *served += 1;
        self.faults
            .iter()
            .find(|(place, name, requests, _)| {
                *place == at && name == path && requests.contains(&number)
            })
            .map(|(.., fault)| fault.clone())
    }
}
