//! What goes through a tunnel: a header of three big-endian 32-bit numbers, kind, connection and
//! length, and for [`Frame::Data`] its bytes.

use std::io::{self, Read};

/// Longest data of a frame, in bytes.
pub const MAX: usize = 64 << 10;

const HEADER: usize = 12;

/// A frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A sign of life.
    Alive,
    /// A connection was made at one end.
    Open(u32),
    /// Bytes of a connection.
    Data(u32, Vec<u8>),
    /// A connection is over.
    Close(u32),
}

impl Frame {
    /// As it is sent.
    pub fn to_bytes(&self) -> Vec<u8> {
        let (kind, connection, data): (u32, u32, &[u8]) = match self {
            Self::Alive => (0, 0, &[]),
            Self::Open(connection) => (1, *connection, &[]),
            Self::Data(connection, data) => (2, *connection, data),
            Self::Close(connection) => (3, *connection, &[]),
        };
        // At most MAX.
        let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
        let mut bytes = Vec::with_capacity(HEADER + data.len());
        for word in [kind, connection, length] {
            bytes.extend(word.to_be_bytes());
        }
        bytes.extend(data);
        bytes
    }

    /// Reads one; `None` where the stream ends between two.
    pub fn read(input: &mut impl Read) -> io::Result<Option<Self>> {
        let mut words = [0; 3];
        for (place, word) in words.iter_mut().enumerate() {
            let mut bytes = [0; 4];
            let first = input.read(&mut bytes[..1])?;
            if first == 0 && place == 0 {
                return Ok(None);
            }
            input.read_exact(&mut bytes[first..])?;
            *word = u32::from_be_bytes(bytes);
        }
        let [kind, connection, length] = words;
        match (kind, length as usize) {
            (0, 0) => Ok(Some(Self::Alive)),
            (1, 0) => Ok(Some(Self::Open(connection))),
            (2, length @ 1..=MAX) => {
                let mut data = vec![0; length];
                input.read_exact(&mut data)?;
                Ok(Some(Self::Data(connection, data)))
            }
            (3, 0) => Ok(Some(Self::Close(connection))),
            _ => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "what came is no frame",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn frames_come_back_as_they_were_sent() {
        let frames = [
            Frame::Alive,
            Frame::Open(7),
            Frame::Data(7, vec![5; MAX]),
            Frame::Close(u32::MAX),
        ];
        let bytes: Vec<u8> = frames.iter().flat_map(Frame::to_bytes).collect();
        let mut input = &bytes[..];
        for frame in frames {
            assert_eq!(Frame::read(&mut input).unwrap(), Some(frame));
        }
        assert_eq!(Frame::read(&mut input).unwrap(), None);
        assert!(Frame::read(&mut &bytes[..5]).is_err());
    }

    proptest! {
        #[test]
        fn anything_else_is_refused(bytes: [u8; HEADER]) {
            if let Ok(Some(frame)) = Frame::read(&mut &bytes[..]) {
                prop_assert_eq!(frame.to_bytes(), bytes);
            }
        }
    }
}
