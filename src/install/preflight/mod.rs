//! The preflight table: a row per node, a cell per fact, and a remedy for each fact that will not
//! do.

use cells::{clock, free, gpu_cells, interface, runtime, taken};
use serde::Serialize;

use crate::agent::facts::Facts;
use crate::bundle::cluster_spec::Gpus;
use crate::error::{Error, Result};

mod cells;

/// The columns, in the order of the table.
pub const COLUMNS: [&str; 12] = [
    "reachable",
    "host key",
    "runtime",
    "GPUs",
    "driver",
    "toolkit",
    "interface",
    "free",
    "ports",
    "clock",
    "content",
    "chain",
];

/// One node's row.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The node as hosts.txt names it.
    pub node: String,
    /// What was found, in the order of [`COLUMNS`]; not every node has every column.
    pub cells: Vec<Cell>,
}

/// One fact.
#[derive(Clone, Debug, Serialize)]
pub struct Cell {
    /// One of [`COLUMNS`].
    pub column: &'static str,
    /// What was found.
    pub value: String,
    /// Why it will not do.
    pub fault: Option<Fault>,
}

/// What is wrong with a fact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// Whether an install goes on nevertheless.
    pub level: Level,
    /// What is wrong, and what to do about it.
    pub sentence: String,
    /// The exit code that it leads to when it is an obstacle.
    pub exit_code: u8,
}

/// How bad a fault is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Worth knowing.
    Remark,
    /// The node cannot take the bundle.
    Obstacle,
}

/// What the nodes are checked against.
#[derive(Clone, Debug)]
pub struct Wish {
    /// Whether there is an image, so that a container runtime is needed.
    pub containers: bool,
    /// Whether containers get GPUs; not known without a bundle.
    pub gpus: Option<Gpus>,
    /// The name of the bundle's own container: what it holds is not in the way.
    pub container: Option<String>,
    /// Ports that every node needs.
    pub ports: Vec<Port>,
    /// Ports that the head needs besides.
    pub head_ports: Vec<Port>,
}

/// A TCP port that should be free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Port {
    /// Its number.
    pub number: u16,
    /// Who wants it, e.g. `the API`.
    pub purpose: &'static str,
    /// What to do when it is taken.
    pub remedy: &'static str,
}

/// What is known of a node that answered.
pub struct Found<'a> {
    /// The node as hosts.txt names it.
    pub node: &'a str,
    /// How many GPUs hosts.txt wants of it.
    pub gpus: Option<u32>,
    /// Whether it is the head.
    pub head: bool,
    /// Its own word.
    pub facts: &'a Facts,
    /// Milliseconds that its clock is ahead of ours.
    pub clock_offset_ms: i64,
}

impl Wish {
    /// The ports that a node needs.
    pub fn ports_of(&self, head: bool) -> impl Iterator<Item = &Port> {
        let more = if head { &self.head_ports[..] } else { &[] };
        self.ports.iter().chain(more)
    }
}

impl Row {
    /// The row of a node that answered.
    #[must_use]
    pub fn of_facts(found: &Found, wish: &Wish) -> Self {
        let facts = found.facts;
        let mut cells = vec![ok("reachable", "yes"), ok("host key", "known")];
        if wish.containers {
            cells.push(runtime(facts));
            cells.extend(gpu_cells(found, wish.gpus));
            cells.push(interface(facts));
        }
        let ports = wish.ports_of(found.head);
        cells.extend([
            ok("free", free(&facts.space)),
            taken(facts, ports, wish.container.as_deref()),
            clock(found.clock_offset_ms),
        ]);
        Self {
            node: found.node.to_owned(),
            cells,
        }
    }

    /// The row of a node that could not be reached.
    #[must_use]
    pub fn of_error(node: &str, error: &Error) -> Self {
        let cells = match error {
            Error::HostKey(_) => vec![
                ok("reachable", "yes"),
                of_error("host key", "refused", error),
            ],
            _ => vec![of_error("reachable", "no", error)],
        };
        Self {
            node: node.to_owned(),
            cells,
        }
    }

    /// Adds a cell; one that has a fault takes the place of another of its column.
    pub fn add(&mut self, cell: Cell) {
        match self.cells.iter_mut().find(|old| old.column == cell.column) {
            Some(old) if cell.fault.is_some() => old.fault = cell.fault,
            Some(_) => {}
            None => self.cells.push(cell),
        }
    }

    /// The cell of a column.
    #[must_use]
    pub fn cell(&self, column: &str) -> Option<&Cell> {
        self.cells.iter().find(|cell| cell.column == column)
    }

    /// Whether nothing is in the way of an install.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.sentences(Level::Obstacle).next().is_none()
    }

    /// What is wrong, a sentence each that names the node.
    pub fn sentences(&self, level: Level) -> impl Iterator<Item = String> {
        let faults = self.cells.iter().filter_map(|cell| cell.fault.as_ref());
        faults
            .filter(move |fault| fault.level == level)
            .map(|fault| {
                // Many an error names it already.
                if names(&fault.sentence, &self.node) {
                    fault.sentence.clone()
                } else {
                    format!("{}: {}", self.node, fault.sentence)
                }
            })
    }
}

/// Whether a sentence is about the node of this name, e.g. as `NODE:8000`.
fn names(sentence: &str, node: &str) -> bool {
    let mut words = sentence.split_whitespace();
    words.any(|word| {
        let rest = word.trim_start_matches('[').strip_prefix(node);
        rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '.'))
    })
}

/// The one before the node in the chain can open a connection to it.
#[must_use]
pub fn straight() -> Cell {
    ok("chain", "yes")
}

/// Nobody can, for this reason: its data takes the way of the control channel.
#[must_use]
pub fn through_ssh(cause: &str) -> Cell {
    let sentence = format!(
        "{cause}; its data goes through ssh, which is slower. Open the data port between the nodes \
         (--data-port fixes its number)"
    );
    only_remarked(bad("chain", "ssh", sentence))
}

/// How much of the bundle is there: of `all` chunks `lacking` cannot be; no chunks at all are
/// those that were proven before.
#[must_use]
pub fn content(lacking: usize, all: usize) -> Cell {
    let value = match lacking {
        0 if all == 0 => "in place",
        0 => "to be checked",
        _ if lacking == all => "to be sent",
        _ => "in part",
    };
    ok("content", value)
}

/// The cell of a column whose fact could not be had.
#[must_use]
pub fn of_error(column: &'static str, value: &str, error: &Error) -> Cell {
    let fault = Fault {
        level: Level::Obstacle,
        sentence: error.to_string(),
        exit_code: error.exit_code(),
    };
    Cell {
        column,
        value: value.to_owned(),
        fault: Some(fault),
    }
}

/// The error for rows with obstacles, with `text` as its sentence. A host key that is refused
/// decides the exit code; otherwise it is the obstacles' own when they agree.
pub fn verdict(rows: &[Row], text: String) -> Result<()> {
    let faults = rows
        .iter()
        .flat_map(|row| &row.cells)
        .filter_map(|cell| cell.fault.as_ref());
    let mut codes: Vec<u8> = faults
        .filter(|fault| fault.level == Level::Obstacle)
        .map(|fault| fault.exit_code)
        .collect();
    codes.sort_unstable();
    codes.dedup();
    let host_key = Error::HostKey(String::new()).exit_code();
    match codes[..] {
        [] => Ok(()),
        _ if codes.contains(&host_key) => Err(Error::HostKey(text)),
        [code] if code != 1 => Err(Error::from_code(code, text)),
        _ if rows.iter().any(Row::is_ready) => Err(Error::SomeNodes(text)),
        _ => Err(Error::Failed(text)),
    }
}

fn ok(column: &'static str, value: impl Into<String>) -> Cell {
    Cell {
        column,
        value: value.into(),
        fault: None,
    }
}

fn bad(column: &'static str, value: impl Into<String>, sentence: impl Into<String>) -> Cell {
    Cell {
        column,
        value: value.into(),
        fault: Some(Fault {
            level: Level::Obstacle,
            sentence: sentence.into(),
            exit_code: 1,
        }),
    }
}

/// The same cell, with a fault that is only worth knowing.
fn only_remarked(mut cell: Cell) -> Cell {
    if let Some(fault) = &mut cell.fault {
        fault.level = Level::Remark;
    }
    cell
}

#[cfg(test)]
mod tests;
