//! What every image source offers, and where its parts go.

use serde::{Deserialize, Serialize};

use super::hybrid::blob_path;
use crate::bundle::manifest::{Image, LayerFacts};
use crate::digest::Sha256;
use crate::error::Result;
use crate::path::RelPath;

/// An image that can be streamed: from a registry, a daemon, or a tar.
pub trait ImageSource {
    /// Bytes of config and uncompressed layers, as far as known before; for progress only.
    fn size(&self) -> u64;

    /// What is promised of the image before it is streamed; nothing by most sources.
    fn promise(&self) -> Option<&Promise> {
        None
    }

    /// Streams the config and every layer, uncompressed and each once, into `sink`, and checks them
    /// against each other. The same source must come in the same order when it is streamed again.
    /// `files` of the result stays empty; the caller knows them from the sink.
    fn stream(&mut self, sink: &mut dyn Sink) -> Result<Image>;
}

/// What a source knows of an image before it streams it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Promise {
    /// `sha256:HEX` of what the reference means: a manifest, or an index of several platforms.
    pub digest: String,
    /// The layers, lowest first.
    pub layers: Vec<Layer>,
}

/// A layer before it is streamed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Digest of the uncompressed layer.
    pub diff_id: Sha256,
    /// Bytes to download.
    pub compressed: u64,
}

/// The most that a decoder of gzip looks back to, in bytes.
pub const HISTORY: usize = 32 << 10;

/// A place inside a layer from which on it can be decoded by who has what was before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Point {
    /// Uncompressed bytes before it.
    pub raw: u64,
    /// Compressed bytes before it.
    pub compressed: u64,
    /// Where a byte of gzip is cut there; nothing in a layer that is not compressed.
    pub gzip: Option<Cut>,
}

/// The last byte before a [`Point`] in gzip, which may end behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cut {
    /// How many of its bits belong behind the point: 0 to 7.
    pub bits: u8,
    /// Those bits.
    pub unused: u8,
}

/// Takes the parts of an image one after the other. The volumes get them as
/// `blobs/sha256/HEX`, named by what [`Sink::end`] returns. When the source fails with
/// [`Damaged`](crate::error::Error::Damaged), the part at hand is forgotten if its digest was
/// promised, and all parts otherwise.
pub trait Sink {
    /// What is known of a layer that need not be streamed: it is packed, or is where the bundle
    /// goes. Only sources with a [`Promise`] ask.
    fn has(&self, layer: Sha256) -> Option<LayerFacts>;

    /// Takes such a layer in its place without its bytes.
    fn keep(&mut self, layer: Sha256) -> Result<()>;

    /// Begins a part. `label` names it in messages, and is the same when streamed again; it is
    /// [`blob_label`] where the digest is promised.
    fn begin(&mut self, label: &RelPath, promised: Option<Sha256>) -> Result<()>;

    /// Takes its next bytes, however many.
    fn write(&mut self, bytes: &[u8]) -> Result<()>;

    /// Where a later run may go on with the part at hand: all bytes before it were taken.
    fn point(&mut self, point: Point);

    /// Where an earlier run has left a layer that it did not finish.
    fn left_at(&self, layer: Sha256) -> Option<Point>;

    /// Takes the bytes before that point from where the earlier run has packed them, into the layer
    /// that was just begun. Shows all of them to `seen`, and returns the last [`HISTORY`].
    fn take_packed(&mut self, seen: &mut dyn FnMut(&[u8])) -> Result<Vec<u8>>;

    /// Ends it and returns its digest; refuses it when that is not the promised one. `facts` are
    /// those of a layer, and nothing for the config.
    fn end(&mut self, facts: LayerFacts) -> Result<Sha256>;
}

/// The label of a part whose digest is known before: its name in the bundle.
pub fn blob_label(digest: Sha256) -> Result<RelPath> {
    blob_path(digest).parse()
}
