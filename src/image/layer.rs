//! One layer on its way from a source to a sink.

use std::io::Read;

use super::facts::Watch;
use super::{Point, Sink};
use crate::bundle::manifest::LayerFacts;
use crate::error::{Error, Result};

/// Bytes that are passed on at once.
const PIECE: usize = 1 << 20;

/// Copies a whole layer, uncompressed, into the part that the sink has begun, and looks at it
/// meanwhile. An [`Error`] inside of a reader's error comes back as it is.
pub fn copy(layer: &mut impl Read, sink: &mut dyn Sink) -> Result<LayerFacts> {
    copy_rest(Watch::new(), layer, sink, |_| None)
}

/// As [`copy`], when `watch` has seen the start of the layer; `point` tells where a later run may
/// go on.
pub fn copy_rest<R: Read>(
    mut watch: Watch,
    layer: &mut R,
    sink: &mut dyn Sink,
    point: impl Fn(&R) -> Option<Point>,
) -> Result<LayerFacts> {
    let mut buffer = vec![0; PIECE];
    loop {
        let length = layer.read(&mut buffer).map_err(|cause| {
            cause
                .downcast::<Error>()
                .unwrap_or_else(|cause| Error::Damaged(format!("it cannot be read: {cause}")))
        })?;
        if length == 0 {
            return Ok(watch.finish());
        }
        watch.update(&buffer[..length]);
        sink.write(&buffer[..length])?;
        if let Some(point) = point(layer) {
            sink.point(point);
        }
    }
}
