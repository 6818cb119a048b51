//! The encodings and their names in the manifest.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, Result};

/// How a chunk is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// As it is.
    Stored,
    /// One zstd frame.
    Zstd,
    /// Elements of `width` bytes split into byte planes, each plane its own zstd frame.
    Planes {
        /// Bytes per element: 2 or 4.
        width: u8,
        /// Bits by which each little-endian element was first rotated left: 0 to 7.
        rotate: u8,
    },
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stored => f.write_str("stored"),
            Self::Zstd => f.write_str("zstd"),
            Self::Planes { width, rotate } => write!(f, "planes{width}r{rotate}+zstd"),
        }
    }
}

impl FromStr for Encoding {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "stored" => Ok(Self::Stored),
            "zstd" => Ok(Self::Zstd),
            _ => planes(text).ok_or_else(|| Error::Damaged(format!("unknown encoding {text:?}"))),
        }
    }
}

/// Reads what [`Encoding::Planes`] writes, and no other spelling of it.
fn planes(text: &str) -> Option<Encoding> {
    let numbers = text.strip_prefix("planes")?.strip_suffix("+zstd")?;
    let (width @ ("2" | "4"), rotate) = numbers.split_once('r')? else {
        return None;
    };
    let rotate = rotate
        .parse()
        .ok()
        .filter(|bits| *bits < 8 && rotate.len() == 1)?;
    Some(Encoding::Planes {
        width: width.parse().ok()?,
        rotate,
    })
}

impl Serialize for Encoding {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Encoding {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(<D::Error as serde::de::Error>::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_encoding_is_read_as_it_is_written_and_nothing_else_is() {
        let layouts =
            (0..8).flat_map(|rotate| [2, 4].map(|width| Encoding::Planes { width, rotate }));
        for encoding in [Encoding::Stored, Encoding::Zstd]
            .into_iter()
            .chain(layouts)
        {
            assert_eq!(encoding.to_string().parse::<Encoding>().unwrap(), encoding);
        }
        for text in [
            "",
            "lzma",
            "planes+zstd",
            "planes2+zstd",
            "planes2r+zstd",
            "planes3r1+zstd",
            "planes2r8+zstd",
            "planes2r+1+zstd",
            "planes2r01+zstd",
            "planes2r1",
            "planes02r1+zstd",
        ] {
            assert_eq!(
                text.parse::<Encoding>().unwrap_err().exit_code(),
                10,
                "{text}"
            );
        }
    }
}
