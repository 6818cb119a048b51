//! The journal: a JSON line for every step whose bytes are in the volumes. It is all that a pack
//! needs to go on after a kill -9: what has no line was not done, and a torn last line is no line.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::plan::Start;
use super::tree::TreeId;
use crate::bundle::manifest::{Chunk, LayerFacts, Volume};
use crate::digest::Sha256;
use crate::error::{Error, Result};
use crate::image::Point;
use crate::path::RelPath;

/// A line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// What is being packed; always the first line.
    Start(Start),
    /// A file begins.
    Begin {
        /// What it belongs to.
        tree: TreeId,
        /// Its path below the tree.
        path: RelPath,
        /// Whether it is right or wrong on its own; the parts of most images are so only together.
        alone: bool,
    },
    /// Its next chunk is new, and stands in a volume.
    Chunk(Chunk),
    /// Its next chunk is one that is there already.
    Again {
        /// Which one.
        chunk: u32,
    },
    /// Where the file, an image's layer, can be gone on with; its chunks so far hold all before it.
    Point(Point),
    /// The file is complete.
    End {
        /// Bytes.
        size: u64,
        /// Of the whole file.
        sha256: Sha256,
        /// What was seen inside, of an image's layer.
        facts: Option<LayerFacts>,
    },
    /// A volume is complete and on the disk.
    Closed(Volume),
}

/// A line and where it begins in the file.
pub struct Placed {
    /// Bytes before it.
    pub at: u64,
    /// The line.
    pub line: Line,
}

/// The journal, open for appending.
pub struct Journal {
    file: File,
    path: PathBuf,
    len: u64,
}

impl Journal {
    /// Reads a journal and opens it behind its last whole line.
    pub fn open(path: &Path) -> Result<(Self, Vec<Placed>)> {
        let (lines, len) = read(path)?;
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)
            .map_err(Error::io("open", path))?;
        let mut journal = Self {
            file,
            path: path.to_owned(),
            len,
        };
        journal.truncate(len)?;
        Ok((journal, lines))
    }

    /// Appends a line. It survives the death of the process; see [`Journal::sync`] for more.
    pub fn append(&mut self, line: &Line) -> Result<()> {
        let fail = |cause| Error::io("write", &self.path)(cause);
        let mut bytes = serde_json::to_vec(line).map_err(|error| fail(error.into()))?;
        bytes.push(b'\n');
        self.file.write_all(&bytes).map_err(fail)?;
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// Where the next line will begin.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Forgets all lines from byte `len` on.
    pub fn truncate(&mut self, len: u64) -> Result<()> {
        let fail = |cause| Error::io("shorten", &self.path)(cause);
        self.file.set_len(len).map_err(fail)?;
        self.file.seek(SeekFrom::Start(len)).map_err(fail)?;
        self.len = len;
        Ok(())
    }

    /// Makes all lines survive a power loss.
    pub fn sync(&self) -> Result<()> {
        self.file.sync_data().map_err(Error::io("sync", &self.path))
    }
}

/// The whole lines of a journal and the bytes that they take. No file is an empty journal.
pub fn read(path: &Path) -> Result<(Vec<Placed>, u64)> {
    match fs::read(path) {
        Ok(bytes) => Ok(whole_lines(&bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok((Vec::new(), 0)),
        Err(error) => Err(Error::io("read", path)(error)),
    }
}

/// The lines up to the first that is torn or no line at all, and the bytes that they take.
fn whole_lines(bytes: &[u8]) -> (Vec<Placed>, u64) {
    let mut lines = Vec::new();
    let mut at = 0;
    for text in bytes.split_inclusive(|&byte| byte == b'\n') {
        let line = text
            .strip_suffix(b"\n")
            .and_then(|text| serde_json::from_slice(text).ok());
        let Some(line) = line else { break };
        lines.push(Placed { at, line });
        at += text.len() as u64;
    }
    (lines, at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(path: &str) -> Line {
        Line::Begin {
            tree: TreeId::Model(0),
            path: path.parse().unwrap(),
            alone: true,
        }
    }

    #[test]
    fn a_torn_tail_is_dropped_at_every_length() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let (mut journal, lines) = Journal::open(&path).unwrap();
        assert!(lines.is_empty());
        for name in ["a", "b", "c"] {
            journal.append(&begin(name)).unwrap();
        }
        let whole = fs::read(&path).unwrap();
        for len in 0..=whole.len() {
            fs::write(&path, &whole[..len]).unwrap();
            let (mut journal, lines) = Journal::open(&path).unwrap();
            let ends = whole[..len].split(|&byte| byte == b'\n').count() - 1;
            assert_eq!(lines.len(), ends);
            journal.append(&begin("d")).unwrap();
            let (_, again) = Journal::open(&path).unwrap();
            assert_eq!(again.len(), ends + 1);
            assert_eq!(again[ends].line, begin("d"));
        }
    }

    #[test]
    fn what_a_power_loss_leaves_is_no_line() {
        let (lines, len) =
            whole_lines(b"{\"again\":{\"chunk\":1}}\n\0\0\0\0\n{\"again\":{\"chunk\":2}}\n");
        assert_eq!((lines.len(), len), (1, 22));
    }
}
