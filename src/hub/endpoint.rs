//! Where a hub is, and the URLs below it.

use std::fmt;

use reqwest::Url;

use crate::error::{Error, Result};

/// The hub itself.
const DEFAULT: &str = "https://huggingface.co";

/// The base URL of a hub or mirror.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint(Url);

impl Endpoint {
    /// What the operator named, or `HF_ENDPOINT`, or the hub itself.
    pub fn choose(mirror: Option<&str>) -> Result<Self> {
        let from_env = std::env::var("HF_ENDPOINT").ok();
        let named = mirror.map(str::to_owned).or(from_env);
        Self::parse(named.as_deref().unwrap_or(DEFAULT))
    }

    /// `hf-mirror.com`, `https://hf-mirror.com`, or `http://10.0.0.1:8080/hub` in a closed
    /// network. Without a scheme it is https.
    pub fn parse(text: &str) -> Result<Self> {
        let refuse = |cause: &str| {
            Err(Error::Usage(format!(
                "{text:?} is no address of a hub: {cause}; write a host like hf-mirror.com or a URL"
            )))
        };
        let full = if text.contains("://") {
            text.to_owned()
        } else {
            format!("https://{text}")
        };
        let Ok(url) = Url::parse(full.trim_end_matches('/')) else {
            return refuse("it cannot be read as a URL");
        };
        if !matches!(url.scheme(), "http" | "https") {
            return refuse("it is neither http nor https");
        }
        if !url.has_host() || url.query().is_some() || url.fragment().is_some() {
            return refuse("it must be a host and perhaps a path");
        }
        if !url.username().is_empty() || url.password().is_some() {
            return refuse("it must not hold a password; give a token with --token-file");
        }
        Ok(Self(url))
    }

    /// A URL below the endpoint; each segment is percent-encoded as a whole, slashes included.
    pub(super) fn url<'a>(&self, segments: impl IntoIterator<Item = &'a str>) -> Url {
        let mut url = self.0.clone();
        // Only URLs like `data:` have no segments, and `parse` lets none of them through.
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        url
    }

    /// Whether a URL is on the endpoint's own origin (scheme, host and port), the only one that
    /// may see the token.
    pub(super) fn owns(&self, url: &Url) -> bool {
        self.0.origin() == url.origin()
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str().trim_end_matches('/'))
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
            assert_eq!(Endpoint::parse(text).unwrap().to_string(), expected);
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
            let error = Endpoint::parse(text).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{text}");
        }
    }

    #[test]
    fn names_are_percent_encoded_as_a_whole() {
        let endpoint = Endpoint::parse("http://h/base").unwrap();
        let url = endpoint.url(["o", "m", "resolve", "refs/pr/1", "a b#c%?ü.bin"]);
        assert_eq!(
            url.as_str(),
            "http://h/base/o/m/resolve/refs%2Fpr%2F1/a%20b%23c%25%3F%C3%BC.bin"
        );
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let endpoint = Endpoint::parse("http://h:81/base").unwrap();
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
