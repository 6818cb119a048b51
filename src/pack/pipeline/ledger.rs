//! The end of the pipeline: appends each new chunk to the volumes and writes down every step.

use std::collections::HashMap;

use super::step::{Piece, Step};
use crate::bundle::manifest::Chunk;
use crate::bundle::volume::VolumeWriter;
use crate::digest::Sha256;
use crate::error::{Error, Result};
use crate::pack::base::Base;
use crate::pack::journal::{Journal, Line};
use crate::pack::progress::Progress;
use crate::pack::state::State;
use crate::pack::tree::Mark;

/// Builds volumes, journal and state together.
pub struct Ledger<'a> {
    state: State,
    volumes: VolumeWriter,
    journal: Journal,
    mark: Option<Mark>,
    index: HashMap<Sha256, u32>,
    base: Option<&'a Base>,
    raw: u64,
    stored: u64,
    progress: &'a dyn Progress,
}

impl<'a> Ledger<'a> {
    /// Goes on from `state`, which `volumes` and `journal` must match; `mark` is theirs as well.
    pub fn new(
        state: State,
        volumes: VolumeWriter,
        journal: Journal,
        mark: Option<Mark>,
        base: Option<&'a Base>,
        progress: &'a dyn Progress,
    ) -> Self {
        let index = (0..).zip(&state.chunks);
        Self {
            index: index.map(|(index, chunk)| (chunk.blob, index)).collect(),
            raw: state.raw(),
            stored: state.stored(),
            state,
            volumes,
            journal,
            mark,
            base,
            progress,
        }
    }

    /// Takes all steps.
    pub fn drain(mut self, steps: impl Iterator<Item = Result<Step<Piece>>>) -> Result<Self> {
        self.progress.packed(self.raw, self.stored);
        for step in steps {
            self.take(step?)?;
        }
        Ok(self)
    }

    /// Closes the last volume when everything is packed.
    pub fn finish(mut self) -> Result<State> {
        let volumes = self.volumes.finish()?;
        for volume in volumes.into_iter().skip(self.state.volumes.len()) {
            let line = Line::Closed(volume);
            self.journal.append(&line)?;
            self.state.apply(line)?;
        }
        self.journal.sync()?;
        Ok(self.state)
    }

    fn take(&mut self, step: Step<Piece>) -> Result<()> {
        match step {
            Step::Begin { tree, path, alone } => {
                self.mark = Some(Mark::after(self.mark, tree, alone, self.journal.len()));
                self.write(Line::Begin { tree, path, alone })
            }
            Step::Chunk(piece) => self.chunk(&piece),
            Step::Base(chunk) => self.take_of_base(chunk),
            Step::Point(point) => self.write(Line::Point(point)),
            Step::End {
                size,
                sha256,
                facts,
            } => self.write(Line::End {
                size,
                sha256,
                facts,
            }),
            Step::Reject { tree } => match self.mark.and_then(|mark| mark.of(tree)) {
                Some(at) => self.journal.truncate(at),
                None => Ok(()),
            },
        }
    }

    /// Takes a chunk of the base, whose bytes nobody has read.
    fn take_of_base(&mut self, chunk: Chunk) -> Result<()> {
        self.raw += u64::from(chunk.raw);
        match self.index.get(&chunk.blob) {
            Some(&chunk) => self.write(Line::Again { chunk })?,
            None => self.add(chunk)?,
        }
        self.progress.packed(self.raw, self.stored);
        Ok(())
    }

    fn chunk(&mut self, piece: &Piece) -> Result<()> {
        if let Some(&chunk) = self.index.get(&piece.blob) {
            self.check_same(&self.state.chunks[chunk as usize], piece)?;
            self.write(Line::Again { chunk })?;
        } else if let Some(chunk) = self.base.and_then(|base| base.chunk(piece.blob)) {
            self.check_same(&chunk, piece)?;
            self.add(chunk)?;
        } else {
            self.append(piece)?;
        }
        self.raw += u64::from(piece.raw);
        self.progress.packed(self.raw, self.stored);
        Ok(())
    }

    /// Different chunks could be made so that they are stored as the same bytes, with different
    /// encodings. No model is like that by chance.
    fn check_same(&self, chunk: &Chunk, piece: &Piece) -> Result<()> {
        if (chunk.encoding, chunk.raw, chunk.blake3) == (piece.encoding, piece.raw, piece.blake3) {
            return Ok(());
        }
        let file = self.state.open.as_ref().map(|file| file.path.as_str());
        Err(Error::Failed(format!(
            "{} holds data that was made to look like another chunk when stored; it cannot be packed",
            file.unwrap_or("a file")
        )))
    }

    fn append(&mut self, piece: &Piece) -> Result<()> {
        let bytes = &piece.stored;
        let place = self.volumes.append(&piece.blob, bytes)?;
        self.write_closed()?;
        self.stored += bytes.len() as u64;
        self.add(Chunk {
            blob: piece.blob,
            #[allow(
                clippy::cast_possible_truncation,
                reason = "never larger than the raw chunk"
            )]
            stored: bytes.len() as u32,
            raw: piece.raw,
            blake3: piece.blake3,
            encoding: piece.encoding,
            volume: place.0,
            offset: place.1,
        })
    }

    /// Notes a chunk that is new to this bundle.
    fn add(&mut self, chunk: Chunk) -> Result<()> {
        let index = self.state.chunks.len();
        let too_many = |_| Error::Usage("a bundle holds at most 2^32 chunks".into());
        self.index
            .insert(chunk.blob, u32::try_from(index).map_err(too_many)?);
        self.write(Line::Chunk(chunk))
    }

    /// Writes down the volumes that were closed since the last time.
    fn write_closed(&mut self) -> Result<()> {
        let new = self.volumes.closed()[self.state.volumes.len()..].to_vec();
        for volume in new {
            self.write(Line::Closed(volume))?;
            self.journal.sync()?;
        }
        Ok(())
    }

    fn write(&mut self, line: Line) -> Result<()> {
        self.journal.append(&line)?;
        self.state.apply(line)
    }
}
