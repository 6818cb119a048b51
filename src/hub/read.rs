//! One attempt at a range: from the hub's own URL of a file, through redirects, to its bytes.

use std::sync::{MutexGuard, PoisonError};

use reqwest::blocking::Response;
use reqwest::header::{ETAG, HeaderMap, RANGE};
use reqwest::{StatusCode, Url};

use super::refusal::refusal;
use super::repository::{Expected, RemoteFile, Repository};
use crate::http::{Attempt, Direct, Fault, MAX_HOPS, Span, host_of, read_span, redirect_target};

/// What earlier reads of a file learned.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Where the bytes were found.
    direct: Direct,
    /// The entity tags of the bytes, by host.
    etags: Vec<(String, String)>,
}

impl Repository {
    pub(super) fn try_read(&self, file: usize, span: Span, buffer: &mut [u8]) -> Attempt<()> {
        let direct = self.seen(file).direct.fresh();
        let start = direct.unwrap_or_else(|| {
            let path = &self.files[file].path;
            self.client
                .endpoint()
                .file_url(&self.name, &self.commit, path)
        });
        let result = self
            .answer(file, span, start)
            .and_then(|response| read_span(response, span, buffer));
        if result.is_err() {
            self.seen(file).direct.forget();
        }
        result
    }

    /// Follows redirects to the answer with the bytes, and checks all that is said on the way.
    fn answer(&self, file: usize, span: Span, start: Url) -> Attempt<Response> {
        let listed = &self.files[file];
        let mut url = start;
        for _ in 0..MAX_HOPS {
            let response = self
                .client
                .get(&url, |request| request.header(RANGE, span.header()))?;
            let host = host_of(&url);
            if let Some(cause) = contradiction(&self.commit, listed, response.headers()) {
                return Err(Fault::lasting(host, cause));
            }
            if response.status().is_redirection() {
                url = redirect_target(response, &url)?;
                continue;
            }
            if !matches!(
                response.status(),
                StatusCode::OK | StatusCode::PARTIAL_CONTENT
            ) {
                return Err(refusal(&self.client, &self.name, &response));
            }
            self.check_etag(file, &host, response.headers())?;
            self.seen(file).direct.learn(url);
            return Ok(response);
        }
        Err(Fault::lasting(host_of(&url), "it redirects without end"))
    }

    /// The content must not change between two ranges of a file.
    fn check_etag(&self, file: usize, host: &str, headers: &HeaderMap) -> Attempt<()> {
        let Some(etag) = headers.get(ETAG).and_then(|value| value.to_str().ok()) else {
            return Ok(());
        };
        let mut seen = self.seen(file);
        match seen.etags.iter().find(|(known, _)| known == host) {
            Some((_, known)) if known != etag => Err(Fault::lasting(
                host,
                format!(
                    "the file changed there while it was fetched (ETag {known} became {etag}); \
                     pack again"
                ),
            )),
            Some(_) => Ok(()),
            None => {
                seen.etags.push((host.to_owned(), etag.to_owned()));
                Ok(())
            }
        }
    }

    fn seen(&self, file: usize) -> MutexGuard<'_, Seen> {
        self.seen[file]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// What an answer says that is not as listed. Facts of another kind than the listed ones say
/// nothing: mirrors and caches put their own values into the same headers.
fn contradiction(commit: &str, listed: &RemoteFile, headers: &HeaderMap) -> Option<String> {
    let text = |name| headers.get(name)?.to_str().ok();
    if let Some(other) = text("x-repo-commit").filter(|other| *other != commit) {
        return Some(format!(
            "it serves commit {other} where {commit} was asked for"
        ));
    }
    let size = text("x-linked-size").and_then(|size| size.parse::<u64>().ok());
    if let Some(other) = size.filter(|other| *other != listed.size) {
        return Some(format!(
            "it says that the file has {other} bytes, the listing says {}",
            listed.size
        ));
    }
    let expected = match listed.expected {
        Expected::Sha256(digest) => digest.to_string(),
        Expected::GitBlob(id) => id.to_string(),
    };
    let etag = text("x-linked-etag")?
        .trim_start_matches("W/")
        .trim_matches('"');
    let differs = etag.len() == expected.len() && etag != expected;
    differs.then(|| format!("it offers content {etag}, the listing says {expected}"))
}

#[cfg(test)]
mod tests {
    use reqwest::header::{HeaderName, HeaderValue};

    use super::*;
    use crate::digest::Sha256;

    #[test]
    fn only_contradictions_are_refused() {
        let listed = RemoteFile {
            path: "a".parse().unwrap(),
            size: 5,
            expected: Expected::Sha256(Sha256([0xab; 32])),
        };
        let right = format!("\"{}\"", "ab".repeat(32));
        let wrong = format!("\"{}\"", "cd".repeat(32));
        let cases = [
            ("x-repo-commit", "c1", None),
            ("x-repo-commit", "c2", Some("commit c2")),
            ("x-linked-size", "5", None),
            ("x-linked-size", "6", Some("has 6 bytes")),
            ("x-linked-etag", &*right, None),
            ("x-linked-etag", &*wrong, Some("offers content cdcd")),
            ("x-linked-etag", "\"another-kind\"", None),
        ];
        for (name, value, expected) in cases {
            let name = HeaderName::from_static(name);
            let headers = [(name, HeaderValue::from_str(value).unwrap())];
            let found = contradiction("c1", &listed, &headers.into_iter().collect());
            match expected {
                None => assert_eq!(found, None, "{value}"),
                Some(part) => assert!(found.unwrap().contains(part), "{value}"),
            }
        }
    }
}
