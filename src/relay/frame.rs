//! What travels down the chain: a header, then for a chunk its stored bytes.
//!
//! ```text
//! kind u32 | chunk u32 | length u32     big-endian; kind 1: a chunk follows, 2: end of the round
//! ```

use std::io::{self, Read};

use crate::bundle::manifest::Chunk;
use crate::error::{Error, Result};

/// Bytes of a header.
pub const HEADER: usize = 12;

const CHUNK: u32 = 1;
const END: u32 = 2;

/// A parsed header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// The stored bytes of this chunk follow.
    Chunk {
        /// Index in the manifest.
        index: u32,
        /// Stored bytes.
        length: u32,
    },
    /// Nothing more comes in this round.
    End,
}

impl Frame {
    /// The bytes of the header.
    #[must_use]
    pub fn to_bytes(self) -> [u8; HEADER] {
        let words = match self {
            Self::Chunk { index, length } => [CHUNK, index, length],
            Self::End => [END, 0, 0],
        };
        let mut bytes = [0; HEADER];
        for (place, word) in bytes.chunks_exact_mut(4).zip(words) {
            place.copy_from_slice(&word.to_be_bytes());
        }
        bytes
    }

    /// Reads a header; `None` where the stream ends between two frames. A chunk that is not in
    /// the manifest, or of another length, is refused: it would be memory for nothing.
    pub fn read(stream: &mut impl Read, chunks: &[Chunk]) -> Result<Option<Self>> {
        let mut bytes = [0; HEADER];
        match stream.read(&mut bytes[..1]) {
            Ok(0) => return Ok(None),
            Ok(_) => {}
            Err(cause) => return Err(broken(&cause)),
        }
        stream
            .read_exact(&mut bytes[1..])
            .map_err(|cause| broken(&cause))?;
        Self::parse(bytes, chunks).map(Some)
    }

    fn parse(bytes: [u8; HEADER], chunks: &[Chunk]) -> Result<Self> {
        let word = |at: usize| {
            bytes[at..]
                .iter()
                .take(4)
                .fold(0, |word, &byte| word << 8 | u32::from(byte))
        };
        match [word(0), word(4), word(8)] {
            [END, 0, 0] => Ok(Self::End),
            [CHUNK, index, length]
                if chunks
                    .get(index as usize)
                    .is_some_and(|chunk| chunk.stored == length) =>
            {
                Ok(Self::Chunk { index, length })
            }
            _ => Err(Error::Damaged(
                "the feeder sent a frame that the manifest does not know".into(),
            )),
        }
    }
}

/// The connection to the feeder failed.
pub(super) fn broken(cause: &io::Error) -> Error {
    Error::Failed(format!("the connection broke: {cause}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::relay::tests::chunks;

    #[test]
    fn frames_come_back_as_they_were_sent() {
        let chunks = chunks(&[vec![1; 10], vec![2; 20]]);
        for frame in [
            Frame::End,
            Frame::Chunk {
                index: 1,
                length: 20,
            },
        ] {
            let bytes = frame.to_bytes();
            assert_eq!(Frame::read(&mut &bytes[..], &chunks).unwrap(), Some(frame));
            assert!(Frame::read(&mut &bytes[..7], &chunks).is_err());
        }
        assert_eq!(Frame::read(&mut &[][..], &chunks).unwrap(), None);
    }

    proptest! {
        #[test]
        fn anything_else_is_refused(bytes: [u8; HEADER]) {
            let chunks = chunks(&[vec![1; 10]]);
            if let Ok(frame) = Frame::parse(bytes, &chunks) {
                prop_assert_eq!(frame.to_bytes(), bytes);
            }
        }
    }

    #[test]
    fn a_chunk_must_be_known_and_of_its_length() {
        let chunks = chunks(&[vec![1; 10]]);
        for (index, length) in [(0, 11), (1, 10), (u32::MAX, 10), (0, u32::MAX)] {
            let bytes = Frame::Chunk { index, length }.to_bytes();
            assert_eq!(Frame::parse(bytes, &chunks).unwrap_err().exit_code(), 10);
        }
    }
}
