//! Which bundle a verb means when none is named.

use std::path::{Path, PathBuf};

use crate::bundle::MANIFEST_NAME;
use crate::bundle::media::Media;
use crate::error::{Error, Result};

/// The bundle that a verb reads: as [`bundle_dir`] for one path or none; several are media of one
/// bundle.
pub fn media(paths: &[PathBuf]) -> Result<Media> {
    match paths {
        [] => Media::open(&[bundle_dir(None, Path::new("."))?]),
        [path] => Media::open(&[bundle_dir(Some(path), Path::new("."))?]),
        several => Media::open(several),
    }
}

/// The bundle directory: `path` when given; else `dir` itself when it holds a `bundle.json`, else
/// the only `*.bundle` below it.
pub fn bundle_dir(path: Option<&Path>, dir: &Path) -> Result<PathBuf> {
    if let Some(path) = path {
        if path.join(MANIFEST_NAME).is_file() {
            return Ok(path.to_owned());
        }
        if path.file_name().is_some_and(|name| name == MANIFEST_NAME) && path.is_file() {
            return Ok(path.parent().unwrap_or(Path::new(".")).to_owned());
        }
        return Err(Error::Usage(format!(
            "{} is no bundle: it holds no {MANIFEST_NAME}",
            path.display()
        )));
    }
    if dir.join(MANIFEST_NAME).is_file() {
        return Ok(dir.to_owned());
    }
    let mut found: Vec<PathBuf> = dir
        .read_dir()
        .map_err(Error::io("list", dir))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "bundle")
        })
        .filter(|path| path.join(MANIFEST_NAME).is_file())
        .collect();
    found.sort();
    match found.len() {
        1 => Ok(found.remove(0)),
        0 => Err(Error::Usage(format!(
            "there is no bundle here: neither {MANIFEST_NAME} nor a *.bundle directory in {}; name its path",
            dir.display()
        ))),
        _ => {
            let names: Vec<_> = found
                .iter()
                .map(|path| path.display().to_string())
                .collect();
            Err(Error::Usage(format!(
                "which bundle? name one of: {}",
                names.join(", ")
            )))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_bundle_is_here_or_the_only_one_below() {
        let root = tempfile::tempdir().unwrap();
        let add = |name: &str| {
            fs::create_dir_all(root.path().join(name)).unwrap();
            fs::write(root.path().join(name).join(MANIFEST_NAME), "").unwrap();
        };
        let found = |path: Option<&Path>| bundle_dir(path, root.path());

        assert_eq!(found(None).unwrap_err().exit_code(), 2);
        add("a.bundle");
        add("b");
        assert_eq!(found(None).unwrap(), root.path().join("a.bundle"));
        assert_eq!(
            found(Some(&root.path().join("b"))).unwrap(),
            root.path().join("b")
        );
        assert!(
            found(Some(root.path()))
                .unwrap_err()
                .to_string()
                .contains("no bundle")
        );
        add("c.bundle");
        let both = found(None).unwrap_err().to_string();
        assert!(
            both.contains("a.bundle") && both.contains("c.bundle"),
            "{both}"
        );
        add("");
        assert_eq!(found(None).unwrap(), root.path());
    }
}
