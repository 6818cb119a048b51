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
        /// Whether each little-endian element was first rotated left by one bit.
        rotate: bool,
    },
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stored => f.write_str("stored"),
            Self::Zstd => f.write_str("zstd"),
            Self::Planes { width, rotate } => {
                write!(f, "planes{width}{}+zstd", if *rotate { "r" } else { "" })
            }
        }
    }
}

impl FromStr for Encoding {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Ok(match text {
            "stored" => Self::Stored,
            "zstd" => Self::Zstd,
            "planes2+zstd" => Self::Planes {
                width: 2,
                rotate: false,
            },
            "planes2r+zstd" => Self::Planes {
                width: 2,
                rotate: true,
            },
            "planes4+zstd" => Self::Planes {
                width: 4,
                rotate: false,
            },
            "planes4r+zstd" => Self::Planes {
                width: 4,
                rotate: true,
            },
            other => return Err(Error::Damaged(format!("unknown encoding {other:?}"))),
        })
    }
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
