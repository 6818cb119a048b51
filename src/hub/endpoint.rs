//! Where a hub is, and the URLs below it.

use std::fmt;

use reqwest::Url;

use super::source::Source;
use crate::error::{Error, Result};
use crate::http::{base_url, below};
use crate::path::RelPath;

/// The base URL of a hub or mirror, and what it speaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    source: Source,
    base: Url,
}

impl Endpoint {
    /// What the operator named, or `HF_ENDPOINT`, or the hub itself.
    pub fn choose(source: Source, mirror: Option<&str>) -> Result<Self> {
        let from_env = || std::env::var(source.endpoint_variable()?).ok();
        let named = mirror.map(str::to_owned).or_else(from_env);
        Self::parse(source, named.as_deref().unwrap_or(source.default_url()))
    }

    /// `hf-mirror.com`, `https://hf-mirror.com`, or `http://10.0.0.1:8080/hub` in a closed
    /// network. Without a scheme it is https.
    pub fn parse(source: Source, text: &str) -> Result<Self> {
        let base = base_url(text).map_err(|cause| {
            Error::Usage(format!(
                "{text:?} is no address of a hub: {cause}; write a host like hf-mirror.com or a URL"
            ))
        })?;
        Ok(Self { source, base })
    }

    pub(super) fn source(&self) -> Source {
        self.source
    }

    /// Where people look at a model.
    pub(super) fn page(&self, repo: &str) -> String {
        match self.source {
            Source::HuggingFace => format!("{self}/{repo}"),
            Source::ModelScope => format!("{self}/models/{repo}"),
        }
    }

    /// The hub's own URL of a file at a commit.
    pub(super) fn file_url(&self, repo: &str, commit: &str, path: &RelPath) -> Url {
        let repo = repo.split('/');
        match self.source {
            Source::HuggingFace => {
                let path = path.as_str().split('/');
                self.url(repo.chain(["resolve", commit]).chain(path))
            }
            Source::ModelScope => {
                let mut url = self.url(["api", "v1", "models"].into_iter().chain(repo));
                if let Ok(mut segments) = url.path_segments_mut() {
                    segments.push("repo");
                }
                url.query_pairs_mut()
                    .append_pair("Revision", commit)
                    .append_pair("FilePath", path.as_str());
                url
            }
        }
    }

    /// A URL below the endpoint; each segment is percent-encoded as a whole, slashes included.
    pub(super) fn url<'a>(&self, segments: impl IntoIterator<Item = &'a str>) -> Url {
        below(&self.base, segments)
    }

    /// Whether a URL is on the endpoint's own origin (scheme, host and port), the only one that
    /// may see the token.
    pub(super) fn owns(&self, url: &Url) -> bool {
        self.base.origin() == url.origin()
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.base.as_str().trim_end_matches('/'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_urls_are_accepted() {
        let cases = [
            ("hf-mirror.com", "https://hf-mirror.com"),
            ("hf-mirror.com/", "https://hf-mirror.com"),
            ("localhost:8080", "https://localhost:8080"),
            ("https://hf-mirror.com/", "https://hf-mirror.com"),
            (
                "http://10.0.0.1:8080/api/hf/",
                "http://10.0.0.1:8080/api/hf",
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(
                Endpoint::parse(Source::HuggingFace, text)
                    .unwrap()
                    .to_string(),
                expected
            );
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "https://",
            "ftp://host",
            "a b",
            "http://u:p@host",
            "host?x=1",
            "file:///etc",
        ] {
            let error = Endpoint::parse(Source::HuggingFace, text).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{text}");
        }
    }

    #[test]
    fn names_are_percent_encoded_as_a_whole() {
        let endpoint = Endpoint::parse(Source::HuggingFace, "http://h/base").unwrap();
        let url = endpoint.url(["o", "m", "resolve", "refs/pr/1", "a b#c%?ü.bin"]);
        assert_eq!(
            url.as_str(),
            "http://h/base/o/m/resolve/refs%2Fpr%2F1/a%20b%23c%25%3F%C3%BC.bin"
        );
    }

    #[test]
    fn each_source_has_its_urls() {
        let path: RelPath = "d/a b#.bin".parse().unwrap();
        let cases = [
            (
                Source::HuggingFace,
                "http://h/o/m/resolve/c/d/a%20b%23.bin",
                "http://h/o/m",
            ),
            (
                Source::ModelScope,
                "http://h/api/v1/models/o/m/repo?Revision=c&FilePath=d%2Fa+b%23.bin",
                "http://h/models/o/m",
            ),
        ];
        for (source, file, page) in cases {
            let endpoint = Endpoint::parse(source, "http://h").unwrap();
            assert_eq!(endpoint.file_url("o/m", "c", &path).as_str(), file);
            assert_eq!(endpoint.page("o/m"), page);
        }
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let endpoint = Endpoint::parse(Source::HuggingFace, "http://h:81/base").unwrap();
        let owns = |text: &str| endpoint.owns(&Url::parse(text).unwrap());
        assert!(owns("http://h:81/other"));
        for other in [
            "https://h:81/",
            "http://h/",
            "http://h:82/",
            "http://x.h:81/",
        ] {
            assert!(!owns(other), "{other}");
        }
    }
}
