//! Paths that were checked: `RelPath` cannot leave its root, `AbsPath` is a normal absolute path.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, Result};

/// Longest name that common filesystems take, in bytes.
const MAX_NAME: usize = 255;

/// A relative path with `/` between its parts and no way out of its root: no empty part, `.`,
/// `..`, NUL or control character. It is the same on every node, whatever the locale.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelPath(String);

/// An absolute path below `/`, in normal form, with the same rules for its parts.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AbsPath(String);

impl RelPath {
    /// The text, e.g. `original/params.json`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path below `root`.
    #[must_use]
    pub fn under(&self, root: &Path) -> PathBuf {
        root.join(&self.0)
    }
}

impl AbsPath {
    /// The text, e.g. `/data/model`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The directory that holds it; `/` for `/data`.
    #[must_use]
    pub fn parent(&self) -> &str {
        match self.0.rfind('/') {
            Some(0) | None => "/",
            Some(at) => &self.0[..at],
        }
    }

    /// The last part.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }

    /// The path when the node's `/` is somewhere else: `/data/m` below `/srv/node1` is
    /// `/srv/node1/data/m`. With `/` it is the path itself.
    #[must_use]
    pub fn below(&self, root: &Path) -> PathBuf {
        root.join(self.0.trim_start_matches('/'))
    }
}

impl FromStr for RelPath {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match first_fault(text) {
            None => Ok(Self(text.to_owned())),
            Some(fault) => Err(Error::Failed(format!("unsafe path {text:?}: {fault}"))),
        }
    }
}

impl FromStr for AbsPath {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let Some(rest) = text.strip_prefix('/') else {
            return Err(Error::Usage(format!("path {text:?} must be absolute")));
        };
        let rest = rest.trim_end_matches('/');
        match first_fault(rest) {
            None => Ok(Self(format!("/{rest}"))),
            Some(fault) => Err(Error::Usage(format!("path {text:?}: {fault}"))),
        }
    }
}

/// Why a `/`-separated path is refused, if it is.
fn first_fault(path: &str) -> Option<String> {
    path.split('/').find_map(|part| match part {
        "" => Some("it has an empty part".to_owned()),
        "." | ".." => Some(format!("{part:?} is not allowed")),
        part if part.len() > MAX_NAME => Some(format!("a part is longer than {MAX_NAME} bytes")),
        part if part.chars().any(char::is_control) => Some("it has a control character".to_owned()),
        _ => None,
    })
}

/// Display, Debug and serde as plain text, for both kinds.
macro_rules! as_text {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", self.0)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(
                &self,
                serializer: S,
            ) -> std::result::Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(
                deserializer: D,
            ) -> std::result::Result<Self, D::Error> {
                String::deserialize(deserializer)?
                    .parse()
                    .map_err(<D::Error as serde::de::Error>::custom)
            }
        }
    };
}

as_text!(RelPath);
as_text!(AbsPath);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_paths_stay_below_their_root() {
        for good in [
            "a",
            "a/b.safetensors",
            "ein Name #1 ü",
            "..a",
            "a/...",
            "-rf",
        ] {
            assert!(good.parse::<RelPath>().is_ok(), "{good}");
        }
        let long = "x".repeat(256);
        for bad in [
            "", "/a", "a/", "a//b", ".", "..", "a/../b", "a/./b", "a\0", "a\n", &long,
        ] {
            assert!(bad.parse::<RelPath>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn absolute_paths_are_normal() {
        let path: AbsPath = "/data/m/".parse().unwrap();
        assert_eq!(
            (path.as_str(), path.parent(), path.name()),
            ("/data/m", "/data", "m")
        );
        assert_eq!("/m".parse::<AbsPath>().unwrap().parent(), "/");
        assert_eq!(
            path.below(Path::new("/srv/n1")),
            Path::new("/srv/n1/data/m")
        );
        assert_eq!(path.below(Path::new("/")), Path::new("/data/m"));
        for bad in ["", "/", "data", "/a/../b", "//a"] {
            assert!(bad.parse::<AbsPath>().is_err(), "{bad:?}");
        }
    }
}
