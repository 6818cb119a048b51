//! Layers that are not compressed, which can be gone on with anywhere.

use std::io::{self, Read};

use crate::image::Point;

/// Counts what is read.
pub struct Plain<R> {
    source: R,
    read: u64,
}

impl<R: Read> Plain<R> {
    /// From a source that begins behind so many bytes of the layer.
    pub fn new(source: R, before: u64) -> Self {
        Self {
            source,
            read: before,
        }
    }

    /// Behind the last byte that was read.
    pub fn point(&self) -> Point {
        Point {
            raw: self.read,
            compressed: self.read,
            gzip: None,
        }
    }
}

impl<R: Read> Read for Plain<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let length = self.source.read(out)?;
        self.read += length as u64;
        Ok(length)
    }
}
