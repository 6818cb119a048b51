//! The compressed bytes of layers in order, fetched by many ranged requests at once across the
//! borders of layers.

use std::io::{self, Read};
use std::sync::Arc;
use std::thread::Scope;

use super::client::{Blob, Client};
use super::turns::Turns;
use crate::digest::{Hasher, Sha256};
use crate::error::{Error, Result};
use crate::http::Body;
use crate::parallel::{Buffer, Buffers, Ordered, Segment, in_order, segments};

/// Requests in flight, and pieces that wait for their turn: at most 68 MiB of memory.
const READERS: usize = 8;

/// Bytes of one request.
const PIECE: u64 = 4 << 20;

/// The bytes of some layers, one after the other.
pub struct Pieces(Ordered<Buffer>);

impl Pieces {
    /// Starts to fetch the layers, the first from byte `from` on.
    pub fn fetch<'scope>(
        scope: &'scope Scope<'scope, '_>,
        client: &'scope Client,
        layers: &[&'scope Blob],
        from: u64,
    ) -> Self {
        let buffers = Buffers::default();
        let starts = std::iter::once(from).chain(std::iter::repeat(0));
        let turns: Arc<[Turns<Body>]> = (layers.iter().zip(starts))
            .map(|(_, start)| Turns::new(start))
            .collect();
        let workers = (0..READERS)
            .map(|_| {
                let (buffers, layers) = (buffers.clone(), layers.to_vec());
                let turns = Arc::clone(&turns);
                move |segment: Segment| {
                    let mut piece = buffers.take(segment.len);
                    let blob = layers[segment.file];
                    fetch(
                        client,
                        blob,
                        &turns[segment.file],
                        segment.offset,
                        &mut piece,
                    )?;
                    Ok(piece)
                }
            })
            .collect();
        let sizes = layers.iter().map(|layer| layer.size).collect();
        Self(in_order(
            scope,
            segments(sizes, (0, from), PIECE),
            workers,
            READERS,
        ))
    }

    /// The next layer, of which so much is left; it must be read to its end before the one after it.
    pub fn layer(&mut self, left: u64) -> Compressed<'_> {
        Compressed {
            pieces: self,
            piece: None,
            at: 0,
            left,
            hasher: Hasher::default(),
        }
    }
}

/// Fetches a piece by its range, or in its turn when the server ignores ranges.
fn fetch(
    client: &Client,
    blob: &Blob,
    turns: &Turns<Body>,
    offset: u64,
    piece: &mut [u8],
) -> Result<()> {
    let place = turns.begin(offset, piece.len() as u64);
    let mut stream = None;
    if !place.is_free() || !client.read(blob, offset, piece)? {
        stream = place.wait()?;
        client.read_on(blob, &mut stream, offset, piece)?;
    }
    place.came_in(stream);
    Ok(())
}

/// A layer as the registry stores it. Errors of the network come as [`Error`] inside of the
/// reader's.
pub struct Compressed<'a> {
    pieces: &'a mut Pieces,
    piece: Option<Buffer>,
    at: usize,
    left: u64,
    hasher: Hasher,
}

impl Compressed<'_> {
    /// Reads what is left, and returns the digest of all that was fetched.
    pub fn finish(mut self) -> Result<Sha256> {
        io::copy(&mut self, &mut io::sink()).map_err(|cause| {
            cause
                .downcast()
                .unwrap_or_else(|cause| Error::Failed(cause.to_string()))
        })?;
        Ok(self.hasher.finish())
    }
}

impl Read for Compressed<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self
            .piece
            .as_ref()
            .is_none_or(|piece| self.at == piece.len())
        {
            if self.left == 0 {
                return Ok(0);
            }
            // The old piece is used again while the next is waited for.
            self.piece = None;
            let next = self.pieces.0.next().unwrap_or_else(|| {
                Err(Error::Failed(
                    "a layer is longer than its manifest says".into(),
                ))
            });
            let piece = next.map_err(io::Error::other)?;
            self.hasher.update(&piece);
            self.left = self.left.saturating_sub(piece.len() as u64);
            (self.piece, self.at) = (Some(piece), 0);
        }
        let rest = self
            .piece
            .as_ref()
            .map_or(&[][..], |piece| &piece[self.at..]);
        let length = rest.len().min(out.len());
        out[..length].copy_from_slice(&rest[..length]);
        self.at += length;
        Ok(length)
    }
}
