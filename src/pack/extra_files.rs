//! Extra files: what `[[file]]` tables of the spec name.

use std::path::Path;

use super::local_files::{LocalFile, LocalFiles, list};
use super::plan::ExtraPlan;
use super::spec::{FileSpec, Spec};
use crate::error::{Error, Result, names_of};
use crate::path::AbsPath;

/// A tree for each path, with the files of all its tables.
pub fn plans(spec: &Spec) -> Result<Vec<ExtraPlan>> {
    let plan = |path: &AbsPath| {
        let tables = spec.files.iter().filter(|file| file.path == *path);
        Ok(ExtraPlan {
            path: path.clone(),
            source: tree(path, tables)?,
        })
    };
    spec.extra_paths().into_iter().map(plan).collect()
}

fn tree<'a>(path: &AbsPath, tables: impl Iterator<Item = &'a FileSpec>) -> Result<LocalFiles> {
    let mut files = Vec::new();
    for table in tables {
        files.extend(files_of(&table.source)?);
    }
    files.sort_by(|one: &LocalFile, other| one.path.cmp(&other.path));
    if let Some(pair) = files.windows(2).find(|pair| pair[0].path == pair[1].path) {
        return Err(Error::Usage(format!(
            "{} and {} would both become {path}/{}; leave one out, or give it another path",
            pair[0].origin.display(),
            pair[1].origin.display(),
            pair[0].path
        )));
    }
    let links = files.iter().filter(|file| file.link);
    let links: Vec<&str> = links.map(|file| file.path.as_str()).collect();
    let remark = (!links.is_empty())
        .then(|| format!("{} are links: what they point to travels", names_of(&links)));
    Ok(LocalFiles::new(files, remark.into_iter().collect()))
}

fn files_of(source: &Path) -> Result<Vec<LocalFile>> {
    let files = list(source, |_| true)?;
    if files.is_empty() {
        return Err(Error::Usage(format!(
            "{} holds no file to pack; remove its [[file]] from the spec",
            source.display()
        )));
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;
    use crate::pack::source::RangeSource as _;

    /// Plans the `[[file]]` tables of these sources and paths, in a directory with some files.
    fn plan(tables: &[(&str, &str)]) -> Result<Vec<ExtraPlan>> {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::create_dir_all(root.join("packages/deep")).unwrap();
        for name in [
            "driver.run",
            "packages/b.deb",
            "packages/deep/a.deb",
            "b.deb",
        ] {
            fs::write(root.join(name), name).unwrap();
        }
        fs::set_permissions(root.join("driver.run"), Permissions::from_mode(0o755)).unwrap();
        symlink("packages/b.deb", root.join("link.deb")).unwrap();
        symlink("nowhere", root.join("dangling")).unwrap();
        fs::create_dir(root.join("empty")).unwrap();
        let mut text = "name = \"x\"\n".to_owned();
        for (source, path) in tables {
            let _ = write!(text, "[[file]]\nsource = \"{source}\"\npath = \"{path}\"\n");
        }
        fs::write(root.join("bundle.toml"), text).unwrap();
        plans(&Spec::read(&root.join("bundle.toml"))?)
    }

    fn names(plan: &ExtraPlan) -> Vec<&str> {
        let files = plan.source.files().iter();
        files.map(|file| file.path.as_str()).collect()
    }

    #[test]
    fn tables_of_a_path_make_one_sorted_tree_relative_to_the_spec() {
        let tables = [
            ("packages", "/opt/x"),
            ("driver.run", "/opt/x"),
            ("b.deb", "/opt/y"),
        ];
        let plans = plan(&tables).unwrap();
        assert_eq!(plans.len(), 2);
        assert_eq!(names(&plans[0]), ["b.deb", "deep/a.deb", "driver.run"]);
        assert_eq!(
            plans[0].source.executable(),
            ["driver.run".parse().unwrap()]
        );
        assert_eq!(
            (plans[1].path.as_str(), names(&plans[1])),
            ("/opt/y", vec!["b.deb"])
        );
        assert_eq!(plans[1].source.executable(), []);
    }

    #[test]
    fn links_are_followed_and_remarked_on() {
        let plans = plan(&[("link.deb", "/opt/x")]).unwrap();
        assert_eq!(names(&plans[0]), ["link.deb"]);
        assert_eq!(
            plans[0].source.files()[0].size,
            "packages/b.deb".len() as u64
        );
        let remarks = plans[0].source.remarks();
        assert!(remarks[0].contains("link.deb"), "{remarks:?}");
    }

    #[test]
    fn what_cannot_be_packed_is_refused_by_name() {
        let cases: [(&[(&str, &str)], &str); 4] = [
            (
                &[("packages", "/opt/x"), ("b.deb", "/opt/x")],
                "both become /opt/x/b.deb",
            ),
            (&[("dangling", "/opt/x")], "dangling"),
            (&[("absent", "/opt/x")], "absent"),
            (&[("empty", "/opt/x")], "holds no file"),
        ];
        for (tables, part) in cases {
            let error = plan(tables).err().unwrap().to_string();
            assert!(error.contains(part), "{part} is not in {error}");
        }
    }
}
