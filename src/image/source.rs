//! What every image source offers, and where its parts go.

use crate::bundle::manifest::Image;
use crate::digest::Sha256;
use crate::error::Result;
use crate::path::RelPath;

/// An image that can be streamed: from a registry, a daemon, or a tar.
pub trait ImageSource {
    /// Bytes of config and uncompressed layers, as far as known before; for progress only.
    fn size(&self) -> u64;

    /// Streams the config and every layer, uncompressed and each once, into `sink`, and checks them
    /// against each other. The same source must come in the same order when it is streamed again.
    /// `files` of the result stays empty; the caller knows them from the sink.
    fn stream(&mut self, sink: &mut dyn Sink) -> Result<Image>;
}

/// Takes the parts of an image one after the other. The volumes get them as
/// `blobs/sha256/HEX`, named by what [`Sink::end`] returns. When the source fails with
/// [`Damaged`](crate::error::Error::Damaged) all parts are forgotten.
pub trait Sink {
    /// Begins a part. `label` names it in messages, and is the same when streamed again.
    fn begin(&mut self, label: &RelPath) -> Result<()>;

    /// Takes its next bytes, however many.
    fn write(&mut self, bytes: &[u8]) -> Result<()>;

    /// Ends it and returns its digest.
    fn end(&mut self) -> Result<Sha256>;
}
