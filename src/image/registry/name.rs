//! An image's name as the spec writes it.

use std::str::FromStr;

use oci_spec::distribution::Reference;

use crate::error::{Error, Result};

/// Digits of a digest that make a tag for an image that has none.
const SHORT: usize = 12;

/// The name of an image in a registry: `vllm/vllm-openai:v0.6.4.post1`, `quay.io/a/b@sha256:...`,
/// `http://10.0.0.5:5000/a:1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// `https` or `http`, if it says so.
    scheme: Option<&'static str>,
    /// As it was written, without the scheme.
    text: String,
    reference: Reference,
}

impl Name {
    /// The tag that the image gets on the nodes: as it was written. A runtime has no place for a
    /// digest in a tag: it goes, or becomes a tag when there is no other.
    #[must_use]
    pub fn tag(&self) -> String {
        match self.text.split_once("@sha256:") {
            None => self.text.clone(),
            Some((name, _)) if self.reference.tag().is_some() => name.to_owned(),
            Some((name, digest)) => {
                format!("{name}:sha256-{}", &digest[..SHORT.min(digest.len())])
            }
        }
    }

    /// What a registry calls it: its digest if it has one, else its tag.
    pub(super) fn wanted(&self) -> &str {
        let digest = self.reference.digest();
        digest.or(self.reference.tag()).unwrap_or("latest")
    }

    /// `vllm/vllm-openai`, `library/busybox`.
    pub(super) fn repository(&self) -> &str {
        self.reference.repository()
    }

    /// The registry's host as images call it, e.g. `docker.io`.
    pub(super) fn registry(&self) -> &str {
        self.reference.registry()
    }

    pub(super) fn scheme(&self) -> Option<&'static str> {
        self.scheme
    }
}

impl FromStr for Name {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (scheme, rest) = match text.split_once("://") {
            Some(("http", rest)) => (Some("http"), rest),
            Some(("https", rest)) => (Some("https"), rest),
            _ => (None, text),
        };
        let reference = rest.parse().map_err(|error| {
            Error::Usage(format!(
                "ref {text:?} is no name of an image: {error}; write e.g. vllm/vllm-openai:v0.6.4.post1"
            ))
        })?;
        Ok(Self {
            scheme,
            text: rest.to_owned(),
            reference,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_docker_reads_them() {
        let digest = format!("sha256:{}", "ab".repeat(32));
        let by_digest = format!("q.io/a/b@{digest}");
        let both = format!("a/b:1@{digest}");
        let cases = [
            (
                "busybox",
                "docker.io",
                "library/busybox",
                "latest",
                "busybox",
            ),
            (
                "vllm/vllm-openai:v1",
                "docker.io",
                "vllm/vllm-openai",
                "v1",
                "vllm/vllm-openai:v1",
            ),
            (
                "localhost:5000/x",
                "localhost:5000",
                "x",
                "latest",
                "localhost:5000/x",
            ),
            ("http://10.0.0.5/x:2", "10.0.0.5", "x", "2", "10.0.0.5/x:2"),
            (
                &by_digest,
                "q.io",
                "a/b",
                &digest,
                "q.io/a/b:sha256-abababababab",
            ),
            (&both, "docker.io", "a/b", &digest, "a/b:1"),
        ];
        for (text, registry, repository, wanted, tag) in cases {
            let name: Name = text.parse().unwrap();
            let found = (name.registry(), name.repository(), name.wanted());
            assert_eq!(found, (registry, repository, wanted), "{text}");
            assert_eq!(name.tag(), tag);
        }
        for bad in ["", "a/Upper", "a b", "ftp://x/y", "a@sha256:12", "-x"] {
            assert_eq!(bad.parse::<Name>().unwrap_err().exit_code(), 2, "{bad}");
        }
    }
}
