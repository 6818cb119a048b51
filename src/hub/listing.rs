//! Lists a model: resolves the revision to a commit, then walks the pages of its file tree.

use std::collections::BTreeMap;
use std::io::Read as _;

use reqwest::blocking::Response;
use reqwest::header::{HeaderMap, LINK};
use reqwest::{StatusCode, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::client::Client;
use super::refusal::refusal;
use super::repository::{Expected, RemoteFile, Repository};
use crate::error::{Error, Result};
use crate::http::{Attempt, Fault, host_of};
use crate::path::RelPath;

/// No page of a listing is larger: the hub's hold at most 1000 entries.
const MAX_PAGE: u64 = 64 << 20;
/// No repository has more pages; the hub recommends at most 100,000 files.
const MAX_PAGES: usize = 10_000;

/// What `/api/models/REPO/revision/REVISION` says, as far as we need it.
#[derive(Debug, Deserialize)]
struct ModelInfo {
    sha: String,
}

/// An entry of `/api/models/REPO/tree/COMMIT`.
#[derive(Debug, Deserialize)]
struct Entry {
    #[serde(rename = "type")]
    kind: String,
    path: String,
    /// Of the content, also for LFS files.
    #[serde(default)]
    size: u64,
    /// The git blob id; for LFS files that of the pointer.
    oid: String,
    lfs: Option<Lfs>,
}

#[derive(Debug, Deserialize)]
struct Lfs {
    /// The SHA-256.
    oid: String,
    size: u64,
}

pub(super) fn list(client: &Client, repo: &str, revision: &str) -> Result<Repository> {
    let what = format!("the list of files of {repo} at {revision}");
    let api = |kind, revision| {
        let parts = ["api", "models"].into_iter().chain(repo.split('/'));
        client.endpoint().url(parts.chain([kind, revision]))
    };
    let (info, _) = fetch::<ModelInfo>(client, repo, &what, &api("revision", revision))?;
    let mut first = api("tree", &info.sha);
    first.set_query(Some("recursive=true"));
    let mut files = BTreeMap::new();
    let mut page = Some(first);
    for _ in 0..MAX_PAGES {
        let Some(url) = page else { break };
        let (entries, headers) = fetch::<Vec<Entry>>(client, repo, &what, &url)?;
        for entry in entries.into_iter().filter(|entry| entry.kind == "file") {
            let file = remote_file(&entry).map_err(|error| error.at(&what))?;
            if files.insert(file.path.clone(), file).is_some() {
                return Err(Error::Failed(format!(
                    "{what} names {:?} twice",
                    entry.path
                )));
            }
        }
        page = next_page(&url, &headers);
    }
    if page.is_some() {
        return Err(Error::Failed(format!("{what} does not end")));
    }
    let files = files.into_values().collect();
    Ok(Repository::new(client.clone(), repo, info.sha, files))
}

/// Fetches and reads JSON, with retries.
fn fetch<T: DeserializeOwned>(
    client: &Client,
    repo: &str,
    what: &str,
    url: &Url,
) -> Result<(T, HeaderMap)> {
    client.http().patiently(what, || {
        let response = client.get(url, |request| request)?;
        if response.status() != StatusCode::OK {
            return Err(refusal(client, repo, &response));
        }
        read_json(response)
    })
}

fn read_json<T: DeserializeOwned>(response: Response) -> Attempt<(T, HeaderMap)> {
    let host = host_of(response.url());
    let headers = response.headers().clone();
    let mut bytes = Vec::new();
    response
        .take(MAX_PAGE)
        .read_to_end(&mut bytes)
        .map_err(|error| Fault::passing(host.clone(), format!("it broke off: {error}")))?;
    let value = serde_json::from_slice(&bytes).map_err(|error| {
        let is_page = bytes.trim_ascii_start().starts_with(b"<");
        let kind = if is_page { "a web page" } else { "something" };
        let cause = format!("it sent {kind} that is not a hub's answer: {error}");
        Fault::passing(host, cause)
    })?;
    Ok((value, headers))
}

fn remote_file(entry: &Entry) -> Result<RemoteFile> {
    let path: RelPath = entry.path.parse()?;
    let (size, expected) = match &entry.lfs {
        Some(lfs) => (lfs.size, Expected::Sha256(lfs.oid.parse()?)),
        None => (entry.size, Expected::GitBlob(entry.oid.parse()?)),
    };
    Ok(RemoteFile {
        path,
        size,
        expected,
    })
}

/// The next page: our own URL with the cursor of the `Link` header. The header's host is not
/// looked at, because behind a mirror it is often that of the hub itself.
fn next_page(url: &Url, headers: &HeaderMap) -> Option<Url> {
    let link = headers.get(LINK)?.to_str().ok()?;
    let next = link
        .split(',')
        .find(|part| part.contains("rel=\"next\""))?
        .split(['<', '>'])
        .nth(1)?;
    let target = url.join(next).ok()?;
    let (_, cursor) = target.query_pairs().find(|(name, _)| name == "cursor")?;
    let mut page = url.clone();
    page.query_pairs_mut()
        .clear()
        .append_pair("recursive", "true")
        .append_pair("cursor", &cursor);
    Some(page)
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;

    use super::*;

    #[test]
    fn the_cursor_is_taken_and_the_host_is_not() {
        let url = Url::parse("https://mirror/api/models/o/m/tree/c?recursive=true").unwrap();
        let page = |link: &str| {
            let headers = [(LINK, HeaderValue::from_str(link).unwrap())];
            next_page(&url, &headers.into_iter().collect()).map(String::from)
        };
        let link = r#"<https://huggingface.co/api/x?recursive=true&limit=1000&cursor=ab%3D%3D>; rel="next""#;
        let expected = "https://mirror/api/models/o/m/tree/c?recursive=true&cursor=ab%3D%3D";
        assert_eq!(page(link).as_deref(), Some(expected));
        assert_eq!(page(r#"</x?cursor=1>; rel="prev""#), None);
        assert_eq!(page(r#"</x>; rel="next""#), None);
    }

    #[test]
    fn lfs_files_promise_a_sha256_and_others_a_blob_id() {
        let sha = "ab".repeat(32);
        let id = "cd".repeat(20);
        let file = |text: String| remote_file(&serde_json::from_str(&text).unwrap());
        let lfs = format!(
            r#"{{"type":"file","path":"w","size":9,"oid":"{id}","lfs":{{"oid":"{sha}","size":9,"pointerSize":130}}}}"#
        );
        let lfs = file(lfs).unwrap();
        assert_eq!(lfs.expected, Expected::Sha256(sha.parse().unwrap()));
        let small = |path: &str| {
            file(format!(
                r#"{{"type":"file","path":"{path}","size":9,"oid":"{id}"}}"#
            ))
        };
        let expected = Expected::GitBlob(id.parse().unwrap());
        assert_eq!(small("a/b").unwrap().expected, expected);
        assert!(small("../b").is_err());
    }
}
