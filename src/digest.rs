//! Content identities: SHA-256 for everything that travels, BLAKE3 for the raw bytes of chunks,
//! and git blob ids for small hub files.

use std::fmt;
use std::io::{self, Read, Write};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::Digest as _;

use crate::error::Error;

/// Declares a fixed-size digest that prints, parses and serialises as lower-case hex.
macro_rules! hex_digest {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $len]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = Error;
            fn from_str(text: &str) -> std::result::Result<Self, Error> {
                parse_hex(text).map(Self).ok_or_else(|| {
                    Error::Failed(format!("{text:?} is not {} lower-case hex digits", $len * 2))
                })
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
                String::deserialize(deserializer)?
                    .parse()
                    .map_err(<D::Error as serde::de::Error>::custom)
            }
        }
    };
}

hex_digest!(
    /// A SHA-256 value: the name of a blob, and what the rest of the world calls a file.
    Sha256, 32
);
hex_digest!(
    /// A git blob id (SHA-1 over "blob SIZE\0" and the content): what the hub publishes for
    /// files that are not in LFS.
    GitBlobId, 20
);
hex_digest!(
    /// A BLAKE3 value: the proof that a chunk's raw bytes are intact, and so a file of such
    /// chunks, at a fifth of the cost of SHA-256.
    Blake3, 32
);

impl Sha256 {
    /// The digest of bytes in memory.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = Hasher::default();
        hasher.update(bytes);
        hasher.finish()
    }
}

impl Blake3 {
    /// The digest of bytes in memory.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(blake3::hash(bytes).into())
    }
}

/// An incremental [`Blake3`].
#[derive(Clone, Default)]
pub struct Blake3Hasher(blake3::Hasher);

impl Blake3Hasher {
    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all bytes added.
    #[must_use]
    pub fn finish(&self) -> Blake3 {
        Blake3(self.0.finalize().into())
    }
}

/// Bytes that are hashed while the next ones come from memory.
const BLOCK: usize = 1024;

/// Touches every cache line, so that the memory is read while others are hashed: SHA-256 takes one
/// line after the other, and would wait for each. Of large buffers that makes 1.65 GB/s from 1.15.
fn fetch_ahead(bytes: &[u8]) {
    const LINE: usize = 64;
    let touched = bytes.iter().step_by(LINE).fold(0, |all, byte| all | byte);
    std::hint::black_box(touched);
}

/// An incremental SHA-256. Also a writer, so that `io::copy` can hash.
#[derive(Clone, Default)]
pub struct Hasher {
    state: sha2::Sha256,
    bytes: u64,
}

impl Hasher {
    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let (block, after) = rest.split_at(rest.len().min(BLOCK));
            fetch_ahead(&after[..after.len().min(BLOCK)]);
            self.state.update(block);
            rest = after;
        }
        self.bytes += bytes.len() as u64;
    }

    /// How many bytes were added.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The digest of all bytes added.
    #[must_use]
    pub fn finish(self) -> Sha256 {
        Sha256(self.state.finalize().into())
    }
}

impl Write for Hasher {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Hashes a whole stream; returns digest and length.
pub fn sha256_of_reader(mut reader: impl Read) -> io::Result<(Sha256, u64)> {
    let mut hasher = Hasher::default();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match reader.read(&mut buffer)? {
            0 => break,
            n => hasher.update(&buffer[..n]),
        }
    }
    let bytes = hasher.bytes();
    Ok((hasher.finish(), bytes))
}

/// An incremental git blob id; the size must be known first.
pub struct GitBlobHasher(sha1::Sha1);

impl GitBlobHasher {
    /// Starts the id of a file of `size` bytes.
    #[must_use]
    pub fn new(size: u64) -> Self {
        let mut state = sha1::Sha1::default();
        state.update(format!("blob {size}\0"));
        Self(state)
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The id; right only if exactly `size` bytes were added.
    #[must_use]
    pub fn finish(self) -> GitBlobId {
        GitBlobId(self.0.finalize().into())
    }
}

fn parse_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != N * 2 {
        return None;
    }
    let mut out = [0; N];
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = hex_value(pair[0])? << 4 | hex_value(pair[1])?;
    }
    Some(out)
}

fn hex_value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn hex_round_trips_and_rejects_everything_else() {
        assert_eq!(Sha256::of(b"").to_string(), EMPTY);
        assert_eq!(EMPTY.parse::<Sha256>().unwrap(), Sha256::of(b""));
        for bad in [
            "",
            "e3b0",
            &EMPTY.to_uppercase(),
            &format!("{EMPTY}0"),
            &EMPTY.replace('e', "g"),
        ] {
            assert!(bad.parse::<Sha256>().is_err(), "{bad}");
        }
    }

    #[test]
    fn git_blob_id_is_gits() {
        // `printf 'hello\n' | git hash-object --stdin`
        let mut hasher = GitBlobHasher::new(6);
        hasher.update(b"hello\n");
        assert_eq!(
            hasher.finish().to_string(),
            "ce013625030ba8dba906f756967f9e9ca394464a"
        );
    }

    #[test]
    fn a_stream_and_its_bytes_hash_alike() {
        let bytes = vec![7; 3_000_000];
        assert_eq!(
            sha256_of_reader(&bytes[..]).unwrap(),
            (Sha256::of(&bytes), 3_000_000)
        );
    }

    #[test]
    fn blake3_is_the_one_of_b3sum() {
        // `printf '' | b3sum`
        assert_eq!(
            Blake3::of(b"").to_string(),
            "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
        );
        let mut pieces = Blake3Hasher::default();
        pieces.update(b"in ");
        pieces.update(b"pieces");
        assert_eq!(pieces.finish(), Blake3::of(b"in pieces"));
    }
}
