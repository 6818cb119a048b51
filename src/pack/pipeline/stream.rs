//! Feeds an image, whose parts stream past once and whose sizes nobody knows before.

use super::intake::Intake;
use crate::bundle::CHUNK_SIZE;
use crate::bundle::manifest::{Image, LayerFacts};
use crate::digest::Sha256;
use crate::error::{Error, Result};
use crate::image::{HISTORY, ImageSource, Point, Sink, blob_label};
use crate::pack::source::Expected;
use crate::pack::stored::StoredChunks;
use crate::pack::tree::TreeId;
use crate::parallel::Buffer;
use crate::path::RelPath;

/// Feeds all parts of an image as those of `tree`. What an earlier run has packed is
/// compared and not packed again. What is damaged or has changed is forgotten: a part whose digest
/// was promised, otherwise the whole image.
pub fn feed_image(
    intake: &mut Intake<'_>,
    tree: TreeId,
    source: &mut dyn ImageSource,
    stored: &StoredChunks,
) -> Result<Image> {
    let mut sink = ImageSink {
        intake,
        tree,
        stored,
        chunk: None,
        filled: 0,
        point: None,
    };
    let result = source.stream(&mut sink);
    if matches!(result, Err(Error::Damaged(_))) {
        intake.reject(tree)?;
    }
    result
}

struct ImageSink<'a, 'b> {
    intake: &'a mut Intake<'b>,
    tree: TreeId,
    /// What an earlier run has packed.
    stored: &'a StoredChunks,
    /// The chunk that is being filled, and how far.
    chunk: Option<Buffer>,
    filled: usize,
    /// The last place before which all bytes came.
    point: Option<Point>,
}

#[allow(clippy::cast_possible_truncation, reason = "16 MiB")]
const CHUNK: usize = CHUNK_SIZE as usize;

impl ImageSink<'_, '_> {
    fn flush(&mut self) -> Result<()> {
        let Some(mut chunk) = self.chunk.take() else {
            return Ok(());
        };
        chunk.as_vec().truncate(self.filled);
        self.filled = 0;
        self.intake.chunk(chunk)
    }
}

impl ImageSink<'_, '_> {
    fn adopt(&mut self, layer: Sha256, label: &RelPath) -> Result<()> {
        let facts = self.intake.layer_of_base(layer).cloned();
        match self.intake.of_base(Expected::Sha256(layer)) {
            Some(file) => self.intake.adopt(self.tree, label, file, facts),
            None => Err(Error::Failed(format!("{label} is not packed yet"))),
        }
    }
}

impl Sink for ImageSink<'_, '_> {
    fn has(&self, layer: Sha256) -> Option<LayerFacts> {
        let label = blob_label(layer).ok()?;
        match self.intake.packed(self.tree, &label) {
            Some(packed) => packed.facts.clone(),
            None => self.intake.layer_of_base(layer).cloned(),
        }
    }

    fn keep(&mut self, layer: Sha256) -> Result<()> {
        let label = blob_label(layer)?;
        match self.intake.known(self.tree, &label)? {
            Some(known) if known.complete.is_some() => {
                self.intake.skip_known();
                Ok(())
            }
            _ => self.adopt(layer, &label),
        }
    }

    fn begin(&mut self, label: &RelPath, promised: Option<Sha256>) -> Result<()> {
        let expected = promised.map_or(Expected::Nothing, Expected::Sha256);
        self.point = None;
        self.intake.begin(self.tree, label, 0, expected)
    }

    fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let buffers = &self.intake.buffers;
            let chunk = self.chunk.get_or_insert_with(|| buffers.take(CHUNK));
            let (now, later) = bytes.split_at(bytes.len().min(CHUNK - self.filled));
            chunk[self.filled..][..now.len()].copy_from_slice(now);
            self.filled += now.len();
            bytes = later;
            if self.filled == CHUNK {
                self.flush()?;
                if let Some(point) = self.point.take() {
                    self.intake.point(point)?;
                }
            }
        }
        Ok(())
    }

    fn point(&mut self, point: Point) {
        self.point = Some(point);
    }

    fn left_at(&self, layer: Sha256) -> Option<Point> {
        let label = blob_label(layer).ok()?;
        Some(self.intake.left(self.tree, &label)?.point)
    }

    fn take_packed(&mut self, seen: &mut dyn FnMut(&[u8])) -> Result<Vec<u8>> {
        let Some(left) = self.intake.left_of_current() else {
            return Err(Error::Failed("nothing of this layer is packed".into()));
        };
        let (mut ahead, chunks) = (left.point.raw, left.chunks.to_vec());
        let mut reader = self.stored.reader()?;
        let (mut raw, mut history) = (Vec::new(), Vec::new());
        for chunk in &chunks {
            reader.read(chunk, &mut raw)?;
            raw.truncate(usize::try_from(ahead).unwrap_or(usize::MAX));
            ahead -= raw.len() as u64;
            seen(&raw);
            self.write(&raw)?;
            history.extend_from_slice(&raw[raw.len().saturating_sub(HISTORY)..]);
            history.drain(..history.len().saturating_sub(HISTORY));
        }
        Ok(history)
    }

    fn end(&mut self, facts: LayerFacts) -> Result<Sha256> {
        self.flush()?;
        Ok(self.intake.end(Some(facts))?.1)
    }
}
