//! Which blobs of an archive make up the wished image: pure reading of `manifest.json` (docker) or
//! `index.json` (OCI).

use std::collections::{BTreeMap, BTreeSet};

use oci_spec::distribution::Reference;
use oci_spec::image::{Arch, Descriptor, ImageIndex, ImageManifest, Platform};
use serde::Deserialize;
use serde_json::Value;

use crate::error::{Error, Result};

/// The small files of an archive by name.
pub type Metadata = BTreeMap<String, Vec<u8>>;

/// The parts of an image by their names in the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The config.
    pub config: String,
    /// The layers, lowest first.
    pub layers: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// Finds the image `reference` (or the only one) for `platform`.
pub fn find(metadata: &Metadata, reference: Option<&str>, platform: &str) -> Result<Layout> {
    if let Some(bytes) = metadata.get("manifest.json") {
        return find_docker(bytes, reference);
    }
    if metadata.contains_key("index.json") {
        return find_oci(metadata, reference, platform);
    }
    Err(Error::Damaged(
        "this is no image: it has neither manifest.json nor index.json; make it with `docker save`"
            .into(),
    ))
}

fn find_docker(bytes: &[u8], reference: Option<&str>) -> Result<Layout> {
    let mut images: Vec<DockerImage> = parse("manifest.json", bytes)?;
    let tags = |image: &DockerImage| image.repo_tags.clone().unwrap_or_default();
    let position = match (images.len(), reference) {
        (1, _) => 0,
        (_, Some(wish)) => images
            .iter()
            .position(|image| tags(image).iter().any(|tag| normal(tag) == normal(wish)))
            .ok_or_else(|| absent(Some(wish), images.iter().flat_map(tags)))?,
        (_, None) => return Err(absent(None, images.iter().flat_map(tags))),
    };
    let image = images.swap_remove(position);
    Ok(Layout {
        config: image.config,
        layers: image.layers,
    })
}

fn find_oci(metadata: &Metadata, reference: Option<&str>, platform: &str) -> Result<Layout> {
    let mut index: ImageIndex = read(metadata, "index.json")?;
    // An index may lead to another one, e.g. one per platform; real ones are two deep.
    for _ in 0..4 {
        let name = blob_name(choose(&index, reference, platform)?);
        let next: Value = read(metadata, &name)?;
        if next.get("layers").is_some() {
            let manifest: ImageManifest = read(metadata, &name)?;
            return Ok(Layout {
                config: blob_name(manifest.config()),
                layers: manifest.layers().iter().map(blob_name).collect(),
            });
        }
        index = read(metadata, &name)?;
    }
    Err(Error::Damaged("the image's index leads nowhere".into()))
}

/// The entries of an index that are images for a platform, or may be; at least one.
pub fn of_platform<'a>(index: &'a ImageIndex, platform: &str) -> Result<Vec<&'a Descriptor>> {
    let of = |entry: &Descriptor| entry.platform().as_ref().map(platform_text);
    let images = index.manifests().iter();
    // Attestations are not images.
    let images = images.filter(|entry| !of(entry).is_some_and(|text| text.starts_with("unknown")));
    let images: Vec<&Descriptor> = images.collect();
    let fits = |entry: &&&Descriptor| of(entry).is_none_or(|found| found == platform);
    let fitting: Vec<&Descriptor> = images.iter().filter(fits).copied().collect();
    if fitting.is_empty() {
        let found: Vec<String> = images.iter().filter_map(|entry| of(entry)).collect();
        return Err(Error::Usage(format!(
            "the image is not for {platform}; it is for {}; correct platform in [image]",
            found.join(", ")
        )));
    }
    Ok(fitting)
}

/// What the archive itself calls its image, when that is one name.
pub fn own_name(metadata: &Metadata) -> Result<String> {
    let names: BTreeSet<String> = if let Some(bytes) = metadata.get("manifest.json") {
        let images: Vec<DockerImage> = parse("manifest.json", bytes)?;
        let tags = images.into_iter().filter_map(|image| image.repo_tags);
        tags.flatten().collect()
    } else {
        let index: ImageIndex = read(metadata, "index.json")?;
        let entries = index.manifests().iter();
        // The full name comes first; the other is often a mere tag.
        let names = entries.filter_map(|entry| names(entry).into_iter().next());
        names.filter(|name| name.contains([':', '/'])).collect()
    };
    let mut found = names.iter();
    match (found.next(), found.next()) {
        (Some(only), None) => Ok(only.clone()),
        (None, _) => Err(Error::Usage(
            "the archive does not say what its image is called; set ref in [image]".into(),
        )),
        (Some(_), Some(_)) => Err(absent(None, names.into_iter())),
    }
}

/// What an entry of an archive's index is called: in full, and otherwise.
fn names(entry: &Descriptor) -> Vec<String> {
    let annotations = entry.annotations().as_ref();
    [
        "io.containerd.image.name",
        "org.opencontainers.image.ref.name",
    ]
    .iter()
    .filter_map(|key| annotations?.get(*key).cloned())
    .collect()
}

/// The entry of an archive's index for the reference and platform.
fn choose<'a>(
    index: &'a ImageIndex,
    reference: Option<&str>,
    platform: &str,
) -> Result<&'a Descriptor> {
    let fitting = of_platform(index, platform)?;
    if let [only] = fitting[..] {
        return Ok(only);
    }
    let wished = |entry: &&&Descriptor| {
        let Some(wish) = reference.map(normal) else {
            return false;
        };
        let tag = wish.rsplit(':').next().unwrap_or_default().to_owned();
        names(entry)
            .iter()
            .any(|name| normal(name) == wish || *name == tag)
    };
    fitting
        .iter()
        .find(wished)
        .copied()
        .ok_or_else(|| absent(reference, fitting.iter().flat_map(|entry| names(entry))))
}

fn platform_text(platform: &Platform) -> String {
    let (os, architecture) = (platform.os(), platform.architecture());
    match platform
        .variant()
        .as_ref()
        .filter(|_| *architecture == Arch::ARM)
    {
        Some(variant) => format!("{os}/{architecture}/{variant}"),
        None => format!("{os}/{architecture}"),
    }
}

/// `os/architecture` of a config, with the variant where it matters.
pub fn platform_of(config: &Value) -> Option<String> {
    Some(platform_text(&Platform::deserialize(config).ok()?))
}

/// A reference in full, so that spellings of the same image are equal.
#[must_use]
pub fn normal(reference: &str) -> String {
    let parsed = reference.parse::<Reference>();
    parsed.map_or_else(|_| reference.to_owned(), |parsed| parsed.whole())
}

fn absent(wish: Option<&str>, found: impl Iterator<Item = String>) -> Error {
    let found: Vec<String> = found.collect();
    let wish = wish.map_or("no ref is given".to_owned(), |wish| {
        format!("{wish} is not among them")
    });
    Error::Usage(format!(
        "the archive holds several images ({}), and {wish}; set ref in [image]",
        found.join(", ")
    ))
}

fn blob_name(descriptor: &Descriptor) -> String {
    let digest = descriptor.digest();
    format!("blobs/{}/{}", digest.algorithm(), digest.digest())
}

fn read<T: for<'de> Deserialize<'de>>(metadata: &Metadata, name: &str) -> Result<T> {
    let bytes = metadata.get(name).ok_or_else(|| {
        Error::Damaged(format!("the archive lacks {name}, which its index names"))
    })?;
    parse(name, bytes)
}

fn parse<T: for<'de> Deserialize<'de>>(name: &str, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes)
        .map_err(|error| Error::Damaged(format!("{name} in the archive is damaged: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(files: &[(&str, &str)]) -> Metadata {
        files
            .iter()
            .map(|(name, text)| ((*name).to_owned(), text.as_bytes().to_vec()))
            .collect()
    }

    #[test]
    fn spellings_of_one_image_are_equal() {
        for (a, b) in [
            ("vllm/vllm-openai:v1", "docker.io/vllm/vllm-openai:v1"),
            ("busybox", "index.docker.io/library/busybox:latest"),
            ("localhost:5000/x", "localhost:5000/x:latest"),
        ] {
            assert_eq!(normal(a), normal(b));
        }
        assert_ne!(normal("a/b:1"), normal("a/b:2"));
    }

    #[test]
    fn docker_archives_choose_by_tag() {
        let one = metadata(&[(
            "manifest.json",
            r#"[{"Config":"c.json","RepoTags":null,"Layers":["l/layer.tar"]}]"#,
        )]);
        let layout = Layout {
            config: "c.json".into(),
            layers: vec!["l/layer.tar".into()],
        };
        assert_eq!(find(&one, Some("any:1"), "linux/amd64").unwrap(), layout);
        let two = metadata(&[(
            "manifest.json",
            r#"[{"Config":"a","RepoTags":["a:1"],"Layers":[]},{"Config":"b","RepoTags":["b:1"],"Layers":[]}]"#,
        )]);
        assert_eq!(
            find(&two, Some("docker.io/library/b:1"), "linux/amd64")
                .unwrap()
                .config,
            "b"
        );
        let error = find(&two, Some("c:1"), "linux/amd64").unwrap_err();
        assert!(
            error.exit_code() == 2 && error.to_string().contains("a:1, b:1"),
            "{error}"
        );
    }

    /// A descriptor of the blob `digit` 64 times, with more keys.
    fn descriptor(digit: &str, more: &str) -> String {
        let digest = digit.repeat(64);
        format!(
            r#"{{"mediaType":"application/vnd.oci.image.manifest.v1+json","size":1,"digest":"sha256:{digest}"{more}}}"#
        )
    }

    fn platform(os: &str, architecture: &str) -> String {
        format!(r#","platform":{{"os":"{os}","architecture":"{architecture}"}}"#)
    }

    fn blob(digit: &str) -> String {
        format!("blobs/sha256/{}", digit.repeat(64))
    }

    fn index(entries: &[String]) -> String {
        format!(
            r#"{{"schemaVersion":2,"manifests":[{}]}}"#,
            entries.join(",")
        )
    }

    #[test]
    fn oci_indices_are_followed_by_platform() {
        let inner = index(&[
            descriptor("2", &platform("linux", "arm64")),
            descriptor("3", &platform("linux", "amd64")),
            descriptor("9", &platform("unknown", "unknown")),
        ]);
        let manifest = format!(
            r#"{{"schemaVersion":2,"config":{},"layers":[{}]}}"#,
            descriptor("4", ""),
            descriptor("5", "")
        );
        let files = metadata(&[
            ("index.json", &index(&[descriptor("1", "")])),
            (&blob("1"), &inner),
            (&blob("3"), &manifest),
        ]);
        let layout = Layout {
            config: blob("4"),
            layers: vec![blob("5")],
        };
        assert_eq!(find(&files, None, "linux/amd64").unwrap(), layout);
        let error = find(&files, None, "linux/s390x").unwrap_err().to_string();
        assert!(error.contains("linux/arm64, linux/amd64"), "{error}");
    }

    #[test]
    fn an_archive_that_gives_one_name_needs_no_other() {
        let docker = |tags: &str| {
            let text = format!(r#"[{{"Config":"c","RepoTags":{tags},"Layers":[]}}]"#);
            metadata(&[("manifest.json", &text)])
        };
        let oci = |annotations: &str| {
            let more = format!(r#","annotations":{{{annotations}}}"#);
            metadata(&[("index.json", &index(&[descriptor("1", &more)]))])
        };
        let tag = r#""org.opencontainers.image.ref.name":"v1""#;
        let full = r#""io.containerd.image.name":"docker.io/a/b:v1""#;
        // the archive, its name or words of the refusal
        for (files, expected) in [
            (docker(r#"["a/b:1"]"#), Ok("a/b:1")),
            (docker("null"), Err("does not say what its image is called")),
            (docker(r#"["a:1","a:2"]"#), Err("(a:1, a:2)")),
            (oci(&format!("{tag},{full}")), Ok("docker.io/a/b:v1")),
            (oci(&tag.replace("v1", "a/b:v1")), Ok("a/b:v1")),
            (oci(tag), Err("does not say what its image is called")),
        ] {
            match (own_name(&files), expected) {
                (Ok(name), Ok(expected)) => assert_eq!(name, expected),
                (Err(error), Err(words)) => {
                    assert_eq!(error.exit_code(), 2);
                    assert!(error.to_string().contains(words), "{error}");
                }
                (found, expected) => panic!("{found:?} instead of {expected:?}"),
            }
        }
    }

    #[test]
    fn an_index_that_leads_in_circles_ends() {
        let circle = index(&[descriptor("1", "")]);
        let files = metadata(&[("index.json", &circle), (&blob("1"), &circle)]);
        let error = find(&files, None, "linux/amd64").unwrap_err();
        assert_eq!(error.exit_code(), 10);
    }
}
