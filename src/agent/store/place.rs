//! Which directories a bundle may replace. A manifest is signed, but a slip in a spec must not
//! move `/etc` aside on every node either.

use std::path::Path;

use super::home::BESIDE;
use crate::error::{Error, Result};
use crate::fs::device;
use crate::path::AbsPath;

/// Nothing below these is a place for a bundle's files.
const SYSTEM: &[&str] = &[
    "bin", "boot", "dev", "etc", "lib", "lib32", "lib64", "libx32", "proc", "run", "sbin", "sys",
    "usr",
];

/// These are shared with others; a bundle needs a directory of its own below.
const SHARED: &[&str] = &[
    "/data",
    "/home",
    "/media",
    "/mnt",
    "/opt",
    "/root",
    "/srv",
    "/tmp",
    "/var",
    "/var/cache",
    "/var/lib",
    "/var/log",
    "/var/tmp",
];

/// Refuses places that the system or this program needs.
pub fn check(path: &AbsPath) -> Result<()> {
    let mut parts = path.as_str().split('/').skip(1);
    let system = parts.next().is_some_and(|first| SYSTEM.contains(&first));
    let ours = path.as_str().starts_with("/var/lib/bundle")
        || path.as_str().split('/').any(|part| part == BESIDE);
    if system || ours || SHARED.contains(&path.as_str()) {
        return Err(Error::Usage(format!(
            "nothing can be installed as {path}, which has another purpose; give it a directory of its own, e.g. /data/models/NAME"
        )));
    }
    Ok(())
}

/// Refuses a mount point: it cannot be renamed, so new content cannot replace it at once.
pub fn check_no_mount(place: &Path) -> Result<()> {
    let Some(parent) = place.parent() else {
        return Ok(());
    };
    let is_link = std::fs::symlink_metadata(place).is_ok_and(|metadata| metadata.is_symlink());
    if is_link || device(place)? == device(parent)? {
        return Ok(());
    }
    Err(Error::Usage(format!(
        "{} is a mount point, which cannot be replaced at once; use a directory below it as the path",
        place.display()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_places_of_their_own_are_taken() {
        for (path, good) in [
            ("/data/vllm_model/DeepSeek-R1", true),
            ("/model", true),
            ("/home/ai/model", true),
            ("/usrdata/model", true),
            ("/etc", false),
            ("/etc/model", false),
            ("/usr/share/model", false),
            ("/var/lib", false),
            ("/home", false),
            ("/var/lib/bundle/x", false),
            ("/data/.bundle/x", false),
        ] {
            assert_eq!(check(&path.parse().unwrap()).is_ok(), good, "{path}");
        }
    }

    #[test]
    fn a_mount_point_is_refused() {
        assert_eq!(
            check_no_mount(Path::new("/proc")).unwrap_err().exit_code(),
            2
        );
        check_no_mount(Path::new("/etc/not-there")).unwrap();
    }
}
