//! Which files of a repository or directory travel.

use globset::{Glob, GlobSet, GlobSetBuilder};

use crate::error::{Error, Result};

/// Include and exclude globs as the hub's own tools read them: `*` crosses `/`, and a pattern
/// that ends in `/` means everything below.
#[derive(Clone, Debug)]
pub struct Selection {
    include: Option<GlobSet>,
    exclude: GlobSet,
}

impl Selection {
    /// Compiles the globs; no include globs mean everything.
    pub fn new(include: &[String], exclude: &[String]) -> Result<Self> {
        Ok(Self {
            include: if include.is_empty() {
                None
            } else {
                Some(compile(include)?)
            },
            exclude: compile(exclude)?,
        })
    }

    /// Whether the file travels.
    #[must_use]
    pub fn wants(&self, path: &str) -> bool {
        let included = self.include.as_ref().is_none_or(|set| set.is_match(path));
        included && !self.exclude.is_match(path)
    }
}

fn compile(patterns: &[String]) -> Result<GlobSet> {
    let bad = |error: globset::Error| Error::Usage(format!("bad glob: {error}"));
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        let everything_below = if pattern.ends_with('/') { "*" } else { "" };
        set.add(Glob::new(&format!("{pattern}{everything_below}")).map_err(bad)?);
    }
    set.build().map_err(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_choose_as_on_the_hub() {
        let list = |globs: &[&str]| globs.iter().map(ToString::to_string).collect::<Vec<_>>();
        // include, exclude, path, wanted
        let cases: [(&[&str], &[&str], &str, bool); 9] = [
            (&[], &[], "a.bin", true),
            (&[], &["*.pth"], "original/consolidated.00.pth", false),
            (&[], &["original/*"], "original/deep/params.json", false),
            (&[], &["original/"], "original/params.json", false),
            (&[], &["original/*"], "original.json", true),
            (&["*.json"], &[], "config.json", true),
            (&["*.json"], &[], "model.safetensors", false),
            (&["*.json"], &["config.*"], "config.json", false),
            (&["model-0000[12]-*"], &[], "model-00003-of-3", false),
        ];
        for (include, exclude, path, wanted) in cases {
            let selection = Selection::new(&list(include), &list(exclude)).unwrap();
            assert_eq!(
                selection.wants(path),
                wanted,
                "{include:?} {exclude:?} {path}"
            );
        }
    }
}
