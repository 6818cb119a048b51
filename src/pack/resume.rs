//! Going on where an earlier run ended, however it ended.

use std::collections::VecDeque;
use std::fs;
use std::path::Path;

use super::journal::{self, Journal, Line, Placed};
use super::pipeline::intake::KnownFile;
use super::plan::{Plan, Start};
use super::spec::ImageSpec;
use super::state::{State, nonsense};
use super::tree::Mark;
use crate::bundle::manifest::Chunk;
use crate::bundle::volume::VolumeWriter;
use crate::bundle::{MANIFEST_NAME, SUMS_NAME};
use crate::error::{Error, Result};

/// Name of the journal in the work directory.
const JOURNAL: &str = "journal";

/// Where a pack stands when it begins.
pub struct Resumed {
    /// What is packed.
    pub state: State,
    /// The volumes, open behind the last chunk.
    pub volumes: VolumeWriter,
    /// The journal, open behind its last good line.
    pub journal: Journal,
    /// Where to go back to when what comes in next is wrong.
    pub mark: Option<Mark>,
}

/// Reads the journal in the work directory and compares it with the volumes. Chunks of the volume
/// at hand that are torn or never reached the disk are forgotten, and all after them.
pub fn resume(plan: &Plan, work: &Path) -> Result<Resumed> {
    let start = plan.start();
    let (mut journal, mut lines) = Journal::open(&work.join(JOURNAL))?;
    match lines.first().map(|placed| &placed.line) {
        None => journal.append(&Line::Start(start))?,
        Some(Line::Start(earlier)) => check_same(earlier, &start, &plan.out)?,
        Some(_) => return Err(nonsense("has no beginning")),
    }
    // The volume of the last chunk is opened again, even when it was closed.
    if let Some(Line::Closed(_)) = lines.last().map(|placed| &placed.line) {
        let last = lines.len() - 1;
        cut(&mut journal, &mut lines, last)?;
    }
    let (state, _) = replay(&lines)?;
    let stored: Vec<Chunk> = state.stored_chunks().cloned().collect();
    let (volumes, kept) =
        VolumeWriter::resume(&plan.out, plan.volume_size, &state.volumes, &stored)?;
    if let Some(lost) = position_of_chunk(&lines, kept) {
        cut(&mut journal, &mut lines, lost)?;
    }
    let (state, mark) = replay(&lines)?;
    Ok(Resumed {
        state,
        volumes,
        journal,
        mark,
    })
}

/// Throws away what an earlier run has packed; [`resume`] then removes the volumes.
pub fn forget(out: &Path, work: &Path) -> Result<()> {
    for path in [
        work.join(JOURNAL),
        out.join(MANIFEST_NAME),
        out.join(SUMS_NAME),
    ] {
        if path.exists() {
            fs::remove_file(&path).map_err(Error::io("remove", &path))?;
        }
    }
    Ok(())
}

/// The commit that the journal's first line pins a revision to.
pub fn pinned_commit(work: &Path, repo: &str, revision: &str) -> Result<Option<String>> {
    let mut models = started(work)?.into_iter().flat_map(|start| start.models);
    let model = models.find(|model| model.repo == repo && model.revision == revision);
    Ok(model.and_then(|model| model.commit))
}

/// The digest that the journal's first line pins an image's reference to.
pub fn pinned_digest(work: &Path, image: &ImageSpec) -> Result<Option<String>> {
    let started = started(work)?.and_then(|start| start.image);
    let same = started
        .filter(|start| (&start.reference, &start.platform) == (&image.reference, &image.platform));
    Ok(same.and_then(|start| start.digest))
}

/// The journal's first line.
fn started(work: &Path) -> Result<Option<Start>> {
    let lines = journal::read(&work.join(JOURNAL))?.0;
    Ok(match lines.into_iter().next().map(|placed| placed.line) {
        Some(Line::Start(start)) => Some(start),
        _ => None,
    })
}

/// The files of an earlier run as the intake skips them.
pub fn known_files(state: &State) -> VecDeque<KnownFile> {
    let chunks = |indices: &[u32]| -> Vec<Chunk> {
        indices
            .iter()
            .filter_map(|&index| state.chunks.get(index as usize).cloned())
            .collect()
    };
    let complete = state.files.iter().map(|file| KnownFile {
        tree: file.tree,
        path: file.entry.path.clone(),
        chunks: chunks(&file.entry.chunks),
        complete: Some((file.entry.size, file.entry.sha256)),
        facts: file.facts.clone(),
        point: None,
    });
    let open = state.open.iter().map(|file| KnownFile {
        tree: file.tree,
        path: file.path.clone(),
        chunks: chunks(&file.chunks),
        complete: None,
        facts: None,
        point: file.point,
    });
    complete.chain(open).collect()
}

fn check_same(earlier: &Start, start: &Start, out: &Path) -> Result<()> {
    match earlier.difference(start) {
        None => Ok(()),
        Some(difference) => Err(Error::Usage(format!(
            "{} holds an unfinished pack with {difference}; finish that one first, \
             start over with --fresh, or choose another directory with -o",
            out.display()
        ))),
    }
}

/// Forgets all lines from a position on.
fn cut(journal: &mut Journal, lines: &mut Vec<Placed>, position: usize) -> Result<()> {
    journal.truncate(lines[position].at)?;
    lines.truncate(position);
    Ok(())
}

/// Position of the line that added chunk `index` of those in the volumes.
fn position_of_chunk(lines: &[Placed], index: usize) -> Option<usize> {
    lines
        .iter()
        .enumerate()
        .filter(|(_, placed)| matches!(&placed.line, Line::Chunk(chunk) if !chunk.is_in_base()))
        .nth(index)
        .map(|(position, _)| position)
}

/// The state that the lines after the first add up to, and where to go back to.
fn replay(lines: &[Placed]) -> Result<(State, Option<Mark>)> {
    let mut state = State::default();
    let mut mark = None;
    for placed in lines.iter().skip(1) {
        if let Line::Begin { tree, alone, .. } = placed.line {
            mark = Some(Mark::after(mark, tree, alone, placed.at));
        }
        state.apply(placed.line.clone())?;
    }
    Ok((state, mark))
}
