//! `SHA256SUMS`: what `sha256sum -c` needs, so that a bundle can be checked without our tool.

use std::collections::BTreeMap;
use std::fmt;

use crate::digest::Sha256;
use crate::error::{Error, Result};
use crate::path::RelPath;

/// File names and their SHA-256, sorted by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sums(BTreeMap<RelPath, Sha256>);

impl Sums {
    /// Adds a file; a second one of the same name replaces the first.
    pub fn insert(&mut self, name: RelPath, sha256: Sha256) {
        self.0.insert(name, sha256);
    }

    /// The files, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&RelPath, &Sha256)> {
        self.0.iter()
    }

    /// The digest of a file.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Sha256> {
        let name: RelPath = name.parse().ok()?;
        self.0.get(&name).copied()
    }

    /// Reads a list as `sha256sum` writes it, in text or binary mode.
    pub fn parse(text: &str) -> Result<Self> {
        let mut sums = Self::default();
        for (number, line) in (1..).zip(text.lines()) {
            let entry = parse_line(line).ok_or_else(|| {
                Error::Damaged(format!(
                    "SHA256SUMS is damaged: line {number} is no checksum and name"
                ))
            })?;
            sums.insert(entry.0, entry.1);
        }
        Ok(sums)
    }
}

/// The exact content of the file.
impl fmt::Display for Sums {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .try_for_each(|(name, sha256)| writeln!(f, "{sha256}  {name}"))
    }
}

fn parse_line(line: &str) -> Option<(RelPath, Sha256)> {
    let (sha256, rest) = line.split_once(' ')?;
    let name = rest.strip_prefix([' ', '*'])?;
    // `sha256sum` would escape a backslash; none of our names has one.
    if name.contains('\\') {
        return None;
    }
    Some((name.parse().ok()?, sha256.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_round_trip_and_are_what_sha256sum_writes() {
        let mut sums = Sums::default();
        sums.insert("vol-0001.tar".parse().unwrap(), Sha256::of(b"x"));
        sums.insert("bundle".parse().unwrap(), Sha256::of(b""));
        let text = sums.to_string();
        assert_eq!(
            text,
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855  bundle\n\
             2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881  vol-0001.tar\n"
        );
        assert_eq!(Sums::parse(&text).unwrap(), sums);
        assert_eq!(Sums::parse(&text.replace("  ", " *")).unwrap(), sums);
        assert_eq!(sums.get("bundle"), Some(Sha256::of(b"")));
        assert_eq!(sums.get("other"), None);
    }

    #[test]
    fn a_damaged_line_is_named() {
        let good = format!("{}  a\n", Sha256::of(b""));
        for bad in [
            "x",
            "",
            "00  a",
            &good.replace('a', "../a"),
            &good.replace(" a", " a\\b"),
        ] {
            let error = Sums::parse(&format!("{good}{bad}\n")).unwrap_err();
            assert_eq!(error.exit_code(), 10);
            assert!(error.to_string().contains("line 2"), "{error}");
        }
    }
}
