//! The front of the pipeline: takes files as raw chunks in order, hashes and checks each whole
//! file, and leaves out what an earlier run has packed already.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;

use super::step::Step;
use crate::bundle::CHUNK_SIZE;
use crate::bundle::manifest::{Chunk, LayerFacts};
use crate::digest::{GitBlobHasher, Hasher, Sha256};
use crate::error::{Error, Result};
use crate::image::Point;
use crate::pack::base::{Base, BaseFile};
use crate::pack::progress::Progress;
use crate::pack::source::Expected;
use crate::pack::tree::TreeId;
use crate::parallel::{Buffer, Buffers};
use crate::path::RelPath;

/// Where files enter the pipeline.
pub struct Intake<'a> {
    /// Raw chunk buffers, to be filled and handed in.
    pub buffers: Buffers,
    steps: SyncSender<Step<Buffer>>,
    known: VecDeque<KnownFile>,
    base: Option<&'a Base>,
    stop: &'a AtomicBool,
    progress: &'a dyn Progress,
    current: Option<Current>,
}

/// A file that an earlier run has packed, wholly or in part.
#[derive(Clone, Debug)]
pub struct KnownFile {
    /// What it belongs to.
    pub tree: TreeId,
    /// Its path below the tree.
    pub path: RelPath,
    /// Its chunks so far.
    pub chunks: Vec<Chunk>,
    /// Size and digest, when it is complete.
    pub complete: Option<(u64, Sha256)>,
    /// What was seen inside, of a complete layer of an image.
    pub facts: Option<LayerFacts>,
    /// Where an incomplete layer can be gone on with.
    pub point: Option<Point>,
}

/// Where a file was left, and chunks in the volumes that hold all before.
#[derive(Clone, Copy)]
pub struct Left<'a> {
    /// Where.
    pub point: Point,
    /// What is there.
    pub chunks: &'a [Chunk],
}

impl KnownFile {
    fn left(&self) -> Option<Left<'_>> {
        let (point, chunks) = (self.point?, &self.chunks[..]);
        let raw: u64 = chunks.iter().map(|chunk| u64::from(chunk.raw)).sum();
        let in_volumes = !chunks.iter().any(Chunk::is_in_base);
        (in_volumes && point.raw <= raw).then_some(Left { point, chunks })
    }
}

/// The file that is coming in.
struct Current {
    tree: TreeId,
    path: RelPath,
    sha256: Hasher,
    git: Option<GitBlobHasher>,
    expected: Expected,
    known: Option<KnownFile>,
    chunks: usize,
}

impl<'a> Intake<'a> {
    /// An intake that sends `steps` for all that is not in `known`, which must come first and in
    /// the same order; fails soon after `stop` is set.
    pub fn new(
        steps: SyncSender<Step<Buffer>>,
        known: VecDeque<KnownFile>,
        base: Option<&'a Base>,
        stop: &'a AtomicBool,
        progress: &'a dyn Progress,
    ) -> Self {
        Self {
            buffers: Buffers::default(),
            steps,
            known,
            base,
            stop,
            progress,
            current: None,
        }
    }

    /// The file that the earlier run packed at this place, if it got so far. Another file at this
    /// place means that the source has changed since.
    pub fn known(&self, tree: TreeId, path: &RelPath) -> Result<Option<&KnownFile>> {
        match self.known.front() {
            Some(known) if (known.tree, &known.path) != (tree, path) => Err(changed(path)),
            known => Ok(known),
        }
    }

    /// The complete file of this path that the earlier run packed, here or further on.
    pub fn packed(&self, tree: TreeId, path: &RelPath) -> Option<&KnownFile> {
        let mut complete = self.known.iter().filter(|known| known.complete.is_some());
        complete.find(|known| (known.tree, &known.path) == (tree, path))
    }

    /// The file of this path that the earlier run has left unfinished, when it can be gone on with
    /// from its chunks in the volumes.
    #[must_use]
    pub fn left(&self, tree: TreeId, path: &RelPath) -> Option<Left<'_>> {
        let same = |known: &&KnownFile| (known.tree, &known.path) == (tree, path);
        self.known.iter().find(same).and_then(KnownFile::left)
    }

    /// The same of the file that was just begun.
    #[must_use]
    pub fn left_of_current(&self) -> Option<Left<'_>> {
        self.current.as_ref()?.known.as_ref()?.left()
    }

    /// Where a later run can go on with the file at hand, behind the last chunk.
    pub fn point(&self, point: Point) -> Result<()> {
        self.send(Step::Point(point))
    }

    /// Goes past a complete known file without reading it again.
    pub fn skip_known(&mut self) {
        self.known.pop_front();
    }

    /// The base's file, when its content is what the source promises.
    #[must_use]
    pub fn of_base(&self, expected: Expected) -> Option<BaseFile> {
        match expected {
            Expected::Sha256(sha256) => self.base?.file(sha256),
            _ => None,
        }
    }

    /// What the base knows of a layer.
    #[must_use]
    pub fn layer_of_base(&self, diff_id: Sha256) -> Option<&LayerFacts> {
        self.base?.layer(diff_id)
    }

    /// Takes a file of the base in its place without reading it.
    pub fn adopt(
        &mut self,
        tree: TreeId,
        path: &RelPath,
        file: BaseFile,
        facts: Option<LayerFacts>,
    ) -> Result<()> {
        self.progress.file(path.as_str());
        self.known(tree, path)?;
        let known = self.known.pop_front();
        let done = known.as_ref().map_or(&[][..], |known| &known.chunks);
        let blob = |chunk: &Chunk| chunk.blob;
        if !(file.chunks.iter().map(blob))
            .take(done.len())
            .eq(done.iter().map(blob))
        {
            return Err(changed(path));
        }
        if known.as_ref().is_some_and(|known| known.complete.is_some()) {
            return Ok(());
        }
        if known.is_none() {
            let path = path.clone();
            let alone = true;
            self.send(Step::Begin { tree, path, alone })?;
        }
        for chunk in file.chunks.into_iter().skip(done.len()) {
            self.send(Step::Base(chunk))?;
        }
        self.send(Step::End {
            size: file.size,
            sha256: file.sha256,
            facts,
        })
    }

    /// Begins a file. The size matters for the git blob id only.
    pub fn begin(
        &mut self,
        tree: TreeId,
        path: &RelPath,
        size: u64,
        expected: Expected,
    ) -> Result<()> {
        self.progress.file(path.as_str());
        self.known(tree, path)?;
        let known = self.known.pop_front();
        if known.is_none() {
            let path = path.clone();
            let alone = !matches!(tree, TreeId::Image(_)) || expected != Expected::Nothing;
            self.send(Step::Begin { tree, path, alone })?;
        }
        let git = matches!(expected, Expected::GitBlob(_)).then(|| GitBlobHasher::new(size));
        self.current = Some(Current {
            tree,
            path: path.clone(),
            sha256: Hasher::default(),
            git,
            expected,
            known,
            chunks: 0,
        });
        Ok(())
    }

    /// Takes the next chunk: 16 MiB, or less at the end of the file.
    pub fn chunk(&mut self, raw: Buffer) -> Result<()> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(Error::Interrupted(
                "stopped; run the same command again to go on from here".into(),
            ));
        }
        debug_assert!(!raw.is_empty() && raw.len() as u64 <= CHUNK_SIZE);
        let Some(file) = &mut self.current else {
            return Err(Error::Failed("a chunk came before its file".into()));
        };
        file.sha256.update(&raw);
        if let Some(git) = &mut file.git {
            git.update(&raw);
        }
        file.chunks += 1;
        match file.known_chunk() {
            Known::No => self.send(Step::Chunk(raw)),
            Known::Yes(chunk) if chunk.is(&raw) => Ok(()),
            Known::Yes(_) | Known::Past => Err(changed(&file.path)),
        }
    }

    /// Forgets the file at hand if it is wrong on its own, or all of an image.
    pub fn reject(&mut self, tree: TreeId) -> Result<()> {
        self.current = None;
        self.send(Step::Reject { tree })
    }

    /// Ends the file: refuses it unless it is what its source promised. Returns size and digest.
    pub fn end(&mut self, facts: Option<LayerFacts>) -> Result<(u64, Sha256)> {
        let Some(file) = self.current.take() else {
            return Err(Error::Failed("a file ended before it began".into()));
        };
        let size = file.sha256.bytes();
        let sha256 = file.sha256.finish();
        let complete = file.known.as_ref().and_then(|known| known.complete);
        if complete.is_some_and(|complete| complete != (size, sha256)) {
            return Err(changed(&file.path));
        }
        if let Err(error) = check(&file.path, sha256, file.git, file.expected) {
            self.reject(file.tree)?;
            return Err(error);
        }
        if complete.is_none() {
            self.send(Step::End {
                size,
                sha256,
                facts,
            })?;
        }
        Ok((size, sha256))
    }

    fn send(&self, step: Step<Buffer>) -> Result<()> {
        // The writer's own error says why it stopped; the pipeline prefers that one.
        self.steps
            .send(step)
            .map_err(|_| Error::Failed("the volumes cannot be written".into()))
    }
}

/// Whether a chunk is in the volumes already.
enum Known<'a> {
    No,
    Yes(&'a Chunk),
    /// The earlier run saw the file end before it.
    Past,
}

impl Current {
    /// What an earlier run knows about the chunk that was counted last.
    fn known_chunk(&self) -> Known<'_> {
        let Some(known) = &self.known else {
            return Known::No;
        };
        match known.chunks.get(self.chunks - 1) {
            Some(chunk) => Known::Yes(chunk),
            None if known.complete.is_some() => Known::Past,
            None => Known::No,
        }
    }
}

/// Compares a file with its source's promise.
fn check(
    path: &RelPath,
    sha256: Sha256,
    git: Option<GitBlobHasher>,
    expected: Expected,
) -> Result<()> {
    let (kind, promised, found) = match expected {
        Expected::Nothing => return Ok(()),
        Expected::Sha256(promised) => ("SHA-256", promised.to_string(), sha256.to_string()),
        Expected::GitBlob(promised) => (
            "git blob id",
            promised.to_string(),
            git.map_or_else(String::new, |git| git.finish().to_string()),
        ),
    };
    if promised == found {
        return Ok(());
    }
    Err(Error::Damaged(format!(
        "{path} arrived with {kind} {found}, but the source promises {promised}; \
         it is not packed: run again, or use another mirror"
    )))
}

fn changed(path: &RelPath) -> Error {
    Error::Damaged(format!(
        "{path} is not what an earlier run began to pack here: the source has changed since; \
         run again to pack it as it is now, or start over with --fresh"
    ))
}
