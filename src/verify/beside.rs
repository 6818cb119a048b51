//! The files beside the volumes: `SHA256SUMS`, the executable, the manifest and its signature.

use std::fs::File;
use std::io::ErrorKind;

use super::report::BesideFault;
use crate::bundle::manifest::Volume;
use crate::bundle::media::Media;
use crate::bundle::sums::Sums;
use crate::bundle::{EXECUTABLE_NAME, MANIFEST_NAME, SUMS_NAME};
use crate::digest::{Sha256, sha256_of_reader};
use crate::error::{Error, Result};
use crate::fs::read_limited;

/// A line per file; a bundle of a million volumes stays below this.
const MAX_SUMS: u64 = 128 << 20;

/// All faults of the files beside the volumes.
pub fn check(media: &Media) -> Result<Vec<BesideFault>> {
    let sums = match read_sums(media) {
        Ok(sums) => sums,
        Err(error @ (Error::Damaged(_) | Error::Io { .. })) => {
            return Ok(vec![fault(SUMS_NAME, &error.to_string())]);
        }
        Err(error) => return Err(error),
    };
    let mut faults = Vec::new();
    for (name, expected) in required(media) {
        match sums.get(&name) {
            None => faults.push(fault(&name, "SHA256SUMS does not list it")),
            Some(listed) if expected.is_some_and(|expected| expected != listed) => {
                faults.push(fault(
                    &name,
                    "SHA256SUMS and bundle.json give it different hashes",
                ));
            }
            Some(_) => {}
        }
    }
    for (name, sha256) in sums.iter() {
        let name = name.as_str();
        if !volumes(media).any(|volume| volume.name == name) {
            faults.extend(check_file(media, name, *sha256)?);
        }
    }
    Ok(faults)
}

/// What must be listed, with the digest where the manifest fixes it.
fn required(media: &Media) -> impl Iterator<Item = (String, Option<Sha256>)> {
    [
        (EXECUTABLE_NAME.to_owned(), None),
        (
            MANIFEST_NAME.to_owned(),
            Some(Sha256::of(media.manifest_bytes())),
        ),
    ]
    .into_iter()
    .chain(volumes(media).map(|volume| (volume.name.clone(), Some(volume.sha256))))
}

/// What was checked byte by byte already.
fn volumes(media: &Media) -> impl Iterator<Item = &Volume> {
    let manifest = media.manifest();
    manifest.volumes.iter().chain(manifest.recovery_volumes())
}

fn read_sums(media: &Media) -> Result<Sums> {
    let bytes = read_limited(&media.dir().join(SUMS_NAME), MAX_SUMS)?;
    let text = String::from_utf8(bytes)
        .map_err(|_| Error::Damaged("SHA256SUMS is damaged: it is no text".into()))?;
    Sums::parse(&text)
}

/// Hashes a listed file.
fn check_file(media: &Media, name: &str, expected: Sha256) -> Result<Option<BesideFault>> {
    let path = media.dir().join(name);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Ok(Some(fault(name, "it is missing")));
        }
        Err(error) => return Err(Error::io("open", &path)(error)),
    };
    Ok(match sha256_of_reader(file) {
        Ok((found, _)) if found == expected => None,
        Ok(_) => Some(fault(name, "its SHA-256 is another")),
        Err(error) => Some(fault(name, &format!("it cannot be read: {error}"))),
    })
}

fn fault(name: &str, what: &str) -> BesideFault {
    BesideFault {
        name: name.to_owned(),
        what: what.to_owned(),
    }
}
