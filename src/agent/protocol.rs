//! What origin and agent say to each other over the control channel: one JSON value a line.
//! Calls are answered in any order, matched by `id`; events come unasked.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::facts::{Facts, Question};
use crate::digest::Sha256;

/// Origin to agent.
#[derive(Debug, Serialize, Deserialize)]
pub struct Call {
    /// Chosen by the origin, repeated in the answer.
    pub id: u64,
    /// What to do.
    pub request: Request,
}

/// The id of every [`Request::Ping`]; nobody waits for its answer.
pub const PING_ID: u64 = u64::MAX;

/// Agent to origin.
#[derive(Debug, Serialize, Deserialize)]
pub enum Message {
    /// The end of a call.
    Answer {
        /// The call's id.
        id: u64,
        /// What came of it.
        answer: Answer,
    },
    /// Something that the origin should know now.
    Event(Event),
}

/// What an agent can be asked to do.
#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    /// A sign of life. From the first one on, an agent that misses them ends.
    Ping,
    /// Facts about the node, seen from the address that hosts.txt gives it.
    Facts(Question),
    /// Runs a command to its end.
    Exec {
        /// Program and arguments; no shell.
        argv: Vec<String>,
        /// Given to it on standard input.
        stdin: String,
        /// Seconds after which it is killed.
        timeout: u64,
    },
    /// Runs a command and sends its output lines as [`Event::Line`] until it ends.
    Follow {
        /// Program and arguments; no shell.
        argv: Vec<String>,
    },
    /// Sends an HTTP request from this node: the API may be reachable from the nodes only.
    Http {
        /// `http://10.0.0.11:8000/health`.
        url: String,
        /// A JSON body makes it a POST.
        body: Option<String>,
        /// Seconds for the whole exchange.
        timeout: u64,
    },
    /// Tries TCP connections from this node; closed at once.
    Dial {
        /// Data ports that are open.
        addresses: Vec<SocketAddr>,
    },
    /// Names of the bundles that are installed here.
    Bundles,
    /// Looks what of a bundle is there, without changing, hashing or locking anything.
    Look {
        /// The exact bytes of `bundle.json`.
        manifest: String,
        /// Whether a lower serial than the installed one is accepted.
        allow_older: bool,
    },
    /// Opens the node's store for a bundle and takes its lock.
    Open {
        /// The exact bytes of `bundle.json`.
        manifest: String,
        /// Whether it may have a lower serial than what is installed.
        allow_older: bool,
    },
    /// Which chunks of the opened bundle are missing here.
    Inventory,
    /// Opens the data port (0: any free one) with a fresh TLS identity.
    Listen {
        /// TCP port.
        port: u16,
    },
    /// Begins a round: accept the stream from one of these peers, pass it on to `next`.
    Join {
        /// Certificates that may feed this node.
        feeders: Vec<Fingerprint>,
        /// The next node of the chain.
        next: Option<Hop>,
    },
    /// Changes the next node from the next chunk on.
    Relink {
        /// The next node of the chain.
        next: Option<Hop>,
    },
    /// Becomes the beginning of the chain, as the origin has no media. [`Request::Relink`] says who
    /// is next.
    Lead,
    /// Sends chunks of the opened bundle, which is in place here, and the end of the round.
    Feed {
        /// Half-open ranges of chunk indices, ascending.
        chunks: Vec<(u32, u32)>,
    },
    /// Ends the round here: connections are dropped, received chunks are finished.
    Leave,
    /// Proves that every file is complete and intact, and makes it durable, still unpublished.
    Seal,
    /// Which versions of a bundle are here.
    Versions {
        /// The bundle's name.
        name: String,
    },
    /// Feeds the images of a version to the container runtime, unless it has them.
    LoadImages {
        /// The bundle's name.
        name: String,
        /// SHA-256 of its manifest.
        manifest: Sha256,
    },
    /// Which images the container runtime has.
    HasImages {
        /// For each of them the ids that the runtime may give it.
        ids: Vec<Vec<Sha256>>,
    },
    /// Makes sure that a version can be put into place, and keeps others from changing anything.
    Prepare {
        /// The bundle's name.
        name: String,
        /// What shall be in place.
        version: Version,
    },
    /// Makes everything that this node was told so far survive a power cut.
    Sync,
    /// Renames the prepared version into place; what was there is kept as the previous generation.
    Activate,
    /// What is installed under a bundle's name.
    Installed {
        /// The bundle's name.
        name: String,
    },
    /// Hashes everything that is installed; what is damaged is repaired by the next install.
    Verify {
        /// The bundle's name.
        name: String,
    },
    /// Removes the previous generation and unfinished staging.
    Prune {
        /// The bundle's name.
        name: String,
    },
}

/// What came of a call.
#[derive(Debug, Serialize, Deserialize)]
pub enum Answer {
    /// Done; nothing to say.
    Done,
    /// To [`Request::Facts`].
    Facts(Box<Facts>),
    /// To [`Request::Exec`] and, with empty output, [`Request::Follow`].
    Exited(Exited),
    /// To [`Request::Http`]; no connection is a failure, any status is an answer.
    Http {
        /// Status code.
        status: u16,
        /// At most 1 MiB of it, invalid UTF-8 replaced.
        body: String,
    },
    /// To [`Request::Dial`].
    Dialed {
        /// For each address why it cannot be reached, if so.
        failures: Vec<Option<String>>,
    },
    /// To [`Request::Bundles`].
    Bundles {
        /// Names, sorted.
        names: Vec<String>,
    },
    /// To [`Request::Open`].
    Opened {
        /// All content is already published and unchanged since: nothing to send.
        in_place: bool,
    },
    /// To [`Request::Look`].
    Looked {
        /// All content is published and unchanged since.
        in_place: bool,
        /// Half-open ranges of the chunks that cannot be there.
        lacking: Vec<(u32, u32)>,
    },
    /// To [`Request::Inventory`].
    Missing {
        /// Half-open ranges of chunk indices, ascending.
        chunks: Vec<(u32, u32)>,
    },
    /// To [`Request::Listen`].
    Listening {
        /// The port that is open.
        port: u16,
        /// SHA-256 of the certificate that the data port shows.
        fingerprint: Fingerprint,
    },
    /// To [`Request::Feed`].
    Fed {
        /// Chunks that were left out, each with the exit code and the sentence of its error.
        left_out: Vec<(u32, u8, String)>,
    },
    /// To [`Request::LoadImages`]: how many were loaded, the others being there already.
    Loaded {
        /// Images that had to be loaded.
        loaded: u32,
    },
    /// To [`Request::HasImages`].
    HasImages {
        /// For each whether it is there.
        has: Vec<bool>,
    },
    /// To [`Request::Installed`]: the manifest's exact bytes, when something is.
    Installed {
        /// The bytes of the `bundle.json` that is installed.
        manifest: Option<String>,
    },
    /// To [`Request::Versions`].
    Versions(Versions),
    /// To [`Request::Verify`].
    Verified {
        /// Paths of damaged and missing files.
        damaged: Vec<String>,
    },
    /// It failed; the parts of an [`crate::error::Error`].
    Failed {
        /// Exit code of the error.
        code: u8,
        /// Its sentence.
        message: String,
    },
}

/// What an agent reports unasked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Event {
    /// Totals since [`Request::Join`], some times a second while data flows.
    Progress {
        /// Chunks that are stored and checked.
        stored_chunks: u32,
        /// Bytes that came in.
        received: u64,
        /// Milliseconds for which the next node made this one wait.
        held: u64,
    },
    /// A chunk came that is not what it was at the origin; it is still missing here.
    Changed {
        /// Index in the manifest.
        chunk: u32,
    },
    /// The end of the round was received and everything before it is stored.
    RoundDone,
    /// The next node cannot be reached, closed the connection, or takes nothing.
    NextFailed {
        /// Which one: its data address.
        next: SocketAddr,
        /// Why, as a sentence.
        message: String,
    },
    /// The feeder is gone before the end of the round; the agent waits for another.
    FeederLost {
        /// Why, as a sentence.
        message: String,
    },
    /// This node cannot go on in this round, e.g. its disk is full.
    Broken {
        /// Exit code of the error.
        code: u8,
        /// Its sentence.
        message: String,
    },
    /// A line of output of a followed command.
    Line {
        /// The call's id.
        id: u64,
        /// Without the newline.
        text: String,
    },
}

/// A version of a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// SHA-256 of its manifest; absent for what was there before the first install.
    pub manifest: Option<Sha256>,
}

/// The versions of a bundle that a node has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    /// What is in place.
    pub current: Option<Version>,
    /// What was in place before.
    pub previous: Option<Version>,
    /// What is complete and proven, but not in place.
    pub sealed: Option<Version>,
    /// What shall be in place: a switch of all nodes has not reached this one.
    pub prepared: Option<Version>,
}

/// The version that all nodes have in place, or that those which have not were prepared for.
#[must_use]
pub fn agreed(nodes: &[&Versions]) -> Option<Version> {
    let first = nodes.first()?.current;
    if first.is_some() && nodes.iter().all(|node| node.current == first) {
        return first;
    }
    let has_or_awaits = |version: Version| {
        let fits = |node: &&Versions| [node.current, node.prepared].contains(&Some(version));
        nodes.iter().all(fits)
    };
    let mut wishes = nodes.iter().filter_map(|node| node.current);
    wishes.find(|&version| has_or_awaits(version))
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exited {
    /// Exit status; 128 + N after signal N.
    pub status: i32,
    /// Standard output, invalid UTF-8 replaced.
    pub stdout: String,
    /// Standard error, invalid UTF-8 replaced.
    pub stderr: String,
}

/// A data port to connect to, and who must answer there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hop {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its certificate.
    pub fingerprint: Fingerprint,
}

/// SHA-256 of a TLS certificate in DER form.
pub type Fingerprint = Sha256;
