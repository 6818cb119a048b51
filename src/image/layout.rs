//! Which blobs of an archive make up the wished image: pure reading of `manifest.json` (docker) or
//! `index.json` (OCI).

use std::collections::BTreeMap;

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
    let mut index: Value = read(metadata, "index.json")?;
    // An index may lead to another one, e.g. one per platform; real ones are two deep.
    for _ in 0..4 {
        let entry = choose(&index, reference, platform)?;
        let name = blob_name(&entry["digest"])?;
        let next: Value = read(metadata, &name)?;
        if next.get("layers").is_some() {
            let layers = next["layers"].as_array().into_iter().flatten();
            return Ok(Layout {
                config: blob_name(&next["config"]["digest"])?,
                layers: layers
                    .map(|layer| blob_name(&layer["digest"]))
                    .collect::<Result<_>>()?,
            });
        }
        index = next;
    }
    Err(Error::Damaged("the image's index leads nowhere".into()))
}

/// The entry of an index for the reference and platform.
fn choose<'a>(index: &'a Value, reference: Option<&str>, platform: &str) -> Result<&'a Value> {
    let mut entries: Vec<&Value> = index["manifests"]
        .as_array()
        .into_iter()
        .flatten()
        .collect();
    let names = |entry: &Value| -> Vec<String> {
        [
            "io.containerd.image.name",
            "org.opencontainers.image.ref.name",
        ]
        .iter()
        .filter_map(|key| entry["annotations"][*key].as_str().map(str::to_owned))
        .collect()
    };
    // Attestations are not images.
    entries.retain(|entry| entry["platform"]["os"] != "unknown");
    let fits = |entry: &Value| match platform_of(&entry["platform"]) {
        Some(found) => found == platform,
        None => true,
    };
    let of_platform: Vec<&Value> = entries
        .iter()
        .copied()
        .filter(|entry| fits(entry))
        .collect();
    if of_platform.is_empty() {
        let found: Vec<String> = entries
            .iter()
            .filter_map(|entry| platform_of(&entry["platform"]))
            .collect();
        return Err(Error::Usage(format!(
            "the image is not for {platform}; it is for {}; correct platform in [image]",
            found.join(", ")
        )));
    }
    if let [only] = of_platform[..] {
        return Ok(only);
    }
    let wished = |entry: &&&Value| {
        let Some(wish) = reference.map(normal) else {
            return false;
        };
        let tag = wish.rsplit(':').next().unwrap_or_default().to_owned();
        names(entry)
            .iter()
            .any(|name| normal(name) == wish || *name == tag)
    };
    of_platform
        .iter()
        .find(wished)
        .copied()
        .ok_or_else(|| absent(reference, of_platform.iter().flat_map(|entry| names(entry))))
}

/// `os/architecture` with the variant where it matters.
pub fn platform_of(value: &Value) -> Option<String> {
    let os = value["os"].as_str()?;
    let architecture = value["architecture"].as_str()?;
    match value["variant"].as_str().filter(|_| architecture == "arm") {
        Some(variant) => Some(format!("{os}/{architecture}/{variant}")),
        None => Some(format!("{os}/{architecture}")),
    }
}

/// A reference in full, so that spellings of the same image are equal.
#[must_use]
pub fn normal(reference: &str) -> String {
    let (host, rest) = match reference.split_once('/') {
        Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" => (host, rest),
        _ => ("docker.io", reference),
    };
    let host = if host == "index.docker.io" {
        "docker.io"
    } else {
        host
    };
    let rest = if host == "docker.io" && !rest.contains('/') {
        format!("library/{rest}")
    } else {
        rest.to_owned()
    };
    let tagged = rest.contains('@')
        || rest
            .rsplit('/')
            .next()
            .is_some_and(|last| last.contains(':'));
    if tagged {
        format!("{host}/{rest}")
    } else {
        format!("{host}/{rest}:latest")
    }
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

fn blob_name(digest: &Value) -> Result<String> {
    let digest = digest.as_str().unwrap_or_default();
    match digest.split_once(':') {
        Some((algorithm, hex)) => Ok(format!("blobs/{algorithm}/{hex}")),
        None => Err(Error::Damaged(format!(
            "the image names a blob {digest:?}, which is no digest"
        ))),
    }
}

fn read(metadata: &Metadata, name: &str) -> Result<Value> {
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
        assert_eq!(normal("q.io/a@sha256:00"), "q.io/a@sha256:00");
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

    #[test]
    fn oci_indices_are_followed_by_platform() {
        let files = metadata(&[
            ("index.json", r#"{"manifests":[{"digest":"sha256:1"}]}"#),
            (
                "blobs/sha256/1",
                r#"{"manifests":[{"digest":"sha256:2","platform":{"os":"linux","architecture":"arm64"}},
                    {"digest":"sha256:3","platform":{"os":"linux","architecture":"amd64"}},
                    {"digest":"sha256:9","platform":{"os":"unknown","architecture":"unknown"}}]}"#,
            ),
            (
                "blobs/sha256/3",
                r#"{"config":{"digest":"sha256:4"},"layers":[{"digest":"sha256:5"}]}"#,
            ),
        ]);
        let layout = Layout {
            config: "blobs/sha256/4".into(),
            layers: vec!["blobs/sha256/5".into()],
        };
        assert_eq!(find(&files, None, "linux/amd64").unwrap(), layout);
        let error = find(&files, None, "linux/s390x").unwrap_err().to_string();
        assert!(error.contains("linux/arm64, linux/amd64"), "{error}");
    }

    #[test]
    fn an_index_that_leads_in_circles_ends() {
        let files = metadata(&[
            ("index.json", r#"{"manifests":[{"digest":"sha256:1"}]}"#),
            ("blobs/sha256/1", r#"{"manifests":[{"digest":"sha256:1"}]}"#),
        ]);
        assert_eq!(
            find(&files, None, "linux/amd64").unwrap_err().exit_code(),
            10
        );
    }
}
