//! Which files of a repository or directory travel.

use globset::{Glob, GlobSet, GlobSetBuilder};

use super::spec::ModelSpec;
use crate::bundle::cluster_spec::ClusterSpec;
use crate::error::{Error, Result, names_of};

/// Files of these kinds run code when they are loaded.
const PICKLES: [&str; 6] = [".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"];

/// Whether loading a file of this name can run code.
#[must_use]
pub fn is_pickle(path: &str) -> bool {
    PICKLES.iter().any(|end| path.ends_with(end))
}

/// Whether a file of this name is code that comes with a model.
#[must_use]
pub fn is_code(path: &str) -> bool {
    [".py", ".PY"].iter().any(|end| path.ends_with(end))
}

/// Include and exclude globs as the hub's own tools read them: `*` crosses `/`, and a pattern
/// that ends in `/` means everything below.
#[derive(Clone, Debug)]
pub struct Selection {
    include: Option<GlobSet>,
    exclude: GlobSet,
    pickle: bool,
    code: bool,
}

/// What became of a list of files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Positions of the files that travel.
    pub wanted: Vec<usize>,
    /// What the operator should know about them.
    pub remarks: Vec<String>,
}

impl Selection {
    /// Compiles the globs of a model; no include globs mean everything.
    pub fn of(model: &ModelSpec, cluster: &ClusterSpec) -> Result<Self> {
        let include = (!model.include.is_empty()).then(|| compile(&model.include));
        Ok(Self {
            include: include.transpose()?,
            exclude: compile(&model.exclude)?,
            pickle: model.pickle,
            code: model.remote_code.unwrap_or(cluster.trusts_code()),
        })
    }

    /// Chooses files by name. Pickles stay behind when there are safetensors, and code always,
    /// unless the spec takes them; what can run code on the far side is remarked on.
    #[must_use]
    pub fn choose(&self, paths: &[&str]) -> Choice {
        let mut wanted: Vec<usize> = (0..paths.len())
            .filter(|&index| self.wants(paths[index]))
            .collect();
        let mut remarks = Vec::new();
        let those = |wanted: &[usize], kind: fn(&str) -> bool| -> Vec<&str> {
            let names = wanted.iter().map(|&index| paths[index]);
            names.filter(|path| kind(path)).collect()
        };

        let pickles = those(&wanted, is_pickle);
        let is_safe = !those(&wanted, |path| path.ends_with(".safetensors")).is_empty();
        if !pickles.is_empty() && is_safe && !self.pickle {
            wanted.retain(|&index| !is_pickle(paths[index]));
            remarks.push(format!(
                "left out {}: loading such files can run code, and the model has safetensors \
                 (pickle = true in the spec takes them along)",
                names_of(&pickles)
            ));
        } else if !pickles.is_empty() {
            remarks.push(format!(
                "takes along {}: loading such files can run code",
                names_of(&pickles)
            ));
        }
        let code = those(&wanted, is_code);
        if !code.is_empty() && !self.code {
            wanted.retain(|&index| !is_code(paths[index]));
            remarks.push(format!(
                "left out {}: vLLM runs such code only with --trust-remote-code \
                 (that in serve_args, or remote_code = true, takes it along)",
                names_of(&code)
            ));
        } else if !code.is_empty() {
            remarks.push(format!(
                "takes along {}: vLLM runs such code with --trust-remote-code",
                names_of(&code)
            ));
        }
        Choice { wanted, remarks }
    }

    fn wants(&self, path: &str) -> bool {
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

    fn selection(rest: &str) -> Selection {
        let text = format!("repo = \"o/m\"\npath = \"/m\"\n{rest}");
        Selection::of(&toml::from_str(&text).unwrap(), &ClusterSpec::default()).unwrap()
    }

    #[test]
    fn globs_choose_as_on_the_hub() {
        // the spec's keys, path, wanted
        let cases = [
            ("", "a.bin", true),
            ("exclude = ['*.pth']", "original/consolidated.00.pth", false),
            (
                "exclude = ['original/*']",
                "original/deep/params.json",
                false,
            ),
            ("exclude = ['original/']", "original/params.json", false),
            ("exclude = ['original/*']", "original.json", true),
            ("include = ['*.json']", "config.json", true),
            ("include = ['*.json']", "model.safetensors", false),
            (
                "include = ['*.json']\nexclude = ['config.*']",
                "config.json",
                false,
            ),
            ("include = ['model-0000[12]-*']", "model-00003-of-3", false),
        ];
        for (keys, path, wanted) in cases {
            assert_eq!(selection(keys).wants(path), wanted, "{keys} {path}");
        }
    }

    #[test]
    fn pickles_stay_behind_when_there_are_safetensors_and_code_always() {
        let both = ["a.safetensors", "b.bin", "c.pth", "config.json"];
        let pickles = ["b.bin", "config.json"];
        let code = ["m.py", "x.json"];
        // the spec's keys, files, those that travel, a word of the remark
        let cases: [(&str, &[&str], &[usize], &str); 6] = [
            ("", &both, &[0, 3], "left out b.bin, c.pth"),
            ("pickle = true", &both, &[0, 1, 2, 3], "takes along b.bin"),
            (
                "exclude = ['*.safetensors']",
                &both,
                &[1, 2, 3],
                "takes along",
            ),
            ("", &pickles, &[0, 1], "takes along b.bin"),
            (
                "",
                &code,
                &[1],
                "left out m.py: vLLM runs such code only with",
            ),
            ("remote_code = true", &code, &[0, 1], "takes along m.py"),
        ];
        for (keys, paths, wanted, remark) in cases {
            let choice = selection(keys).choose(paths);
            assert_eq!(choice.wanted, wanted, "{keys}");
            assert!(choice.remarks[0].contains(remark), "{:?}", choice.remarks);
        }
        assert_eq!(selection("").choose(&["a.safetensors"]).remarks, [""; 0]);
    }

    #[test]
    fn code_that_the_server_trusts_travels_unless_the_spec_says_no() {
        for (keys, argument, travels) in [
            ("", "--trust-remote-code", true),
            ("", "--trust_remote_code", true),
            ("", "--enforce-eager", false),
            ("remote_code = false", "--trust-remote-code", false),
        ] {
            let text = format!("repo = \"o/m\"\npath = \"/m\"\n{keys}");
            let cluster = ClusterSpec {
                serve_args: vec![argument.into()],
                ..ClusterSpec::default()
            };
            let selection = Selection::of(&toml::from_str(&text).unwrap(), &cluster).unwrap();
            assert_eq!(selection.code, travels, "{keys} {argument}");
        }
    }
}
