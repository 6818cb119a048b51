//! `bundle.toml`: what the operator wants carried.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::selection::Selection;
use crate::bundle::cluster_spec::ClusterSpec;
use crate::bundle::manifest::Name;
use crate::error::{Error, Result};
use crate::fs::read_limited;
use crate::path::AbsPath;

/// File name of the spec that `bundle pack` looks for in the current directory.
pub const SPEC_NAME: &str = "bundle.toml";

/// No sensible spec is larger.
const MAX_SPEC: u64 = 1 << 20;

/// The whole spec, checked.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// The bundle's name.
    pub name: Name,
    /// Which edition of the bundle it is; the far side refuses to go back to a lower one. By default
    /// 0, or one more than the base's.
    pub serial: Option<u64>,
    /// The container image, if one travels.
    pub image: Option<ImageSpec>,
    /// The models.
    #[serde(rename = "model", default)]
    pub models: Vec<ModelSpec>,
    /// Other files.
    #[serde(rename = "file", default)]
    pub files: Vec<FileSpec>,
    /// What to start on the far side.
    #[serde(default)]
    pub cluster: ClusterSpec,
}

/// The `[image]` table.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageSpec {
    /// `vllm/vllm-openai:v0.6.4.post1`; an image tar brings its own name when this is absent.
    #[serde(rename = "ref")]
    pub reference: Option<String>,
    /// `linux/amd64`.
    #[serde(default = "default_platform")]
    pub platform: String,
}

/// A `[[model]]` table.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSpec {
    /// The hub's name for it, `owner/name`.
    pub repo: String,
    /// Branch, tag or commit.
    #[serde(default = "default_revision")]
    pub revision: String,
    /// Where it stands on every node.
    pub path: AbsPath,
    /// Globs of the files wanted; all when empty.
    #[serde(default)]
    pub include: Vec<String>,
    /// Globs of files that are not wanted, even when included.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// Whether pickles travel though there are safetensors.
    #[serde(default)]
    pub pickle: bool,
    /// Whether Python files travel; by default if `serve_args` trust them.
    pub remote_code: Option<bool>,
}

/// A `[[file]]` table.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileSpec {
    /// A file, or a directory whose content is meant; relative to the directory of the spec.
    pub source: PathBuf,
    /// The directory that it is put into on every node. Tables with the same path make one tree.
    pub path: AbsPath,
}

fn default_platform() -> String {
    "linux/amd64".to_owned()
}

fn default_revision() -> String {
    "main".to_owned()
}

impl Spec {
    /// Reads a spec from a file; errors name the file, and the line where there is one.
    pub fn read(path: &Path) -> Result<Self> {
        if !path.exists() {
            return Err(Error::Usage(format!(
                "there is no {}; write it: name = \"NAME\", then [[model]] with repo = \"OWNER/NAME\" and path = \
                 \"/data/...\", and [image] with ref = \"IMAGE:TAG\"; or name another file",
                path.display()
            )));
        }
        let bytes = read_limited(path, MAX_SPEC)?;
        let place = path.display().to_string();
        let text = String::from_utf8(bytes)
            .map_err(|_| Error::Usage(format!("{place} is no spec: it is not UTF-8 text")))?;
        let mut spec =
            Self::parse(&text).map_err(|error| Error::Usage(format!("{place}: {error}")))?;
        let dir = path.parent().unwrap_or(Path::new(""));
        for file in &mut spec.files {
            file.source = dir.join(&file.source);
        }
        Ok(spec)
    }

    /// Reads and checks the text of a spec.
    pub fn parse(text: &str) -> Result<Self> {
        let spec: Self = toml::from_str(text).map_err(|error| {
            let line = error.span().map(|span| line_of(text, span.start));
            let place = line.map_or_else(String::new, |line| format!("line {line}: "));
            Error::Usage(format!("{place}{}", error.message()))
        })?;
        spec.check()?;
        Ok(spec)
    }

    fn check(&self) -> Result<()> {
        if self.models.is_empty() && self.image.is_none() && self.files.is_empty() {
            return Err(Error::Usage(
                "nothing to pack: add a [[model]], an [image] or a [[file]]".into(),
            ));
        }
        for model in &self.models {
            check_repo(&model.repo)?;
            Selection::of(model, &self.cluster)
                .map_err(|error| error.at(format!("model {}", model.repo)))?;
        }
        let roots: Vec<&AbsPath> = (self.models.iter().map(|model| &model.path))
            .chain(self.extra_paths())
            .collect();
        for (position, root) in roots.iter().enumerate() {
            for other in &roots[..position] {
                check_apart(root, other)?;
            }
        }
        Ok(())
    }

    /// The paths of the `[[file]]` tables, each once, in order of first use.
    #[must_use]
    pub fn extra_paths(&self) -> Vec<&AbsPath> {
        let mut paths: Vec<&AbsPath> = Vec::new();
        for file in &self.files {
            if !paths.contains(&&file.path) {
                paths.push(&file.path);
            }
        }
        paths
    }
}

/// `owner/name`, or the bare name of the hub's oldest repositories.
fn check_repo(repo: &str) -> Result<()> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let mut parts = repo.split('/');
    let fits = parts
        .by_ref()
        .take(2)
        .all(|part| !part.is_empty() && !part.starts_with('.') && part.bytes().all(allowed));
    if fits && parts.next().is_none() {
        return Ok(());
    }
    Err(Error::Usage(format!(
        "repo {repo:?} is not of the form \"owner/name\""
    )))
}

/// What the bundle puts on the nodes may neither share a directory nor stand inside each other.
fn check_apart(one: &AbsPath, other: &AbsPath) -> Result<()> {
    let inside =
        |inner: &AbsPath, outer: &AbsPath| Path::new(inner.as_str()).starts_with(outer.as_str());
    if inside(one, other) || inside(other, one) {
        return Err(Error::Usage(format!(
            "a bundle cannot own both {one} and {other}: one contains the other"
        )));
    }
    Ok(())
}

/// The line, counted from 1, that holds a byte of the text.
fn line_of(text: &str, at: usize) -> usize {
    1 + text.bytes().take(at).filter(|&byte| byte == b'\n').count()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::bundle::cluster_spec::{Auto, Executor};

    const MODEL: &str = "name = \"x\"\n[[model]]\nrepo = \"o/m\"\npath = \"/m\"\n";

    fn refusal(text: &str) -> String {
        let error = Spec::parse(text).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        error.to_string()
    }

    #[test]
    fn the_ready_specs_parse() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests");
        let mut names = Vec::new();
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let spec = Spec::read(&path).unwrap();
            assert_eq!(path.file_stem().unwrap(), spec.name.as_str());
            names.push(spec.name.to_string());
        }
        assert!(names.contains(&"deepseek-r1-70b".to_owned()), "{names:?}");
    }

    #[test]
    fn the_reference_deployment_is_word_for_word() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests/deepseek-r1-70b.toml");
        let spec = Spec::read(&path).unwrap();
        let image = spec.image.unwrap();
        assert_eq!(
            image.reference.as_deref(),
            Some("vllm/vllm-openai:v0.6.4.post1")
        );
        let model = &spec.models[0];
        assert_eq!(model.repo, "deepseek-ai/DeepSeek-R1-Distill-Llama-70B");
        assert_eq!(
            model.path.as_str(),
            "/data/vllm_model/DeepSeek-R1-Distill-Llama-70B"
        );
        assert_eq!(spec.cluster, ClusterSpec::default());
    }

    #[test]
    fn what_is_left_out_has_defaults() {
        let spec = Spec::parse(&format!("{MODEL}[image]\n[cluster]\nexecutor = \"mp\"")).unwrap();
        assert_eq!(spec.models[0].revision, "main");
        let image = spec.image.unwrap();
        assert_eq!((image.reference, &*image.platform), (None, "linux/amd64"));
        assert_eq!(spec.cluster.executor, Executor::Mp);
        assert_eq!(spec.cluster.dtype, Auto::Auto);
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line() {
        let cases = [
            (format!("{MODEL}revison = \"main\""), "line 5: ", "revison"),
            (format!("nmae = 1\n{MODEL}"), "line 1: ", "nmae"),
            (
                format!("{MODEL}[cluster]\ngpu = \"all\""),
                "line 6: ",
                "gpu",
            ),
        ];
        for (text, line, key) in cases {
            let message = refusal(&text);
            assert!(message.starts_with(line), "{message}");
            assert!(message.contains(key), "{message}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let cases = [
            ("name = \"x\"".to_owned(), "nothing to pack"),
            (
                MODEL.replace("/m\"\n", "m\"\n").replace("\"/m", "\"m"),
                "absolute",
            ),
            (MODEL.replace("o/m", "o/m/x"), "owner/name"),
            (MODEL.replace("o/m", "../m"), "owner/name"),
            (format!("{MODEL}exclude = [\"a[\"]"), "a["),
            (
                format!("{MODEL}[[model]]\nrepo = \"o/n\"\npath = \"/m/n\""),
                "contains the other",
            ),
            (
                format!("{MODEL}[[file]]\nsource = \"x\"\npath = \"/m/licences\""),
                "contains the other",
            ),
            (
                format!("{MODEL}[[file]]\nsource = \"x\"\npath = \"opt\""),
                "absolute",
            ),
            (MODEL.replace("\"x\"", "\"X\""), "lower-case"),
        ];
        for (text, part) in cases {
            let message = refusal(&text);
            assert!(message.contains(part), "{message} lacks {part}");
        }
    }
}
