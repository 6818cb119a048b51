//! Lists a model of the Hugging Face hub: resolves the revision to a commit, then walks the pages of
//! its file tree.

use reqwest::Url;
use reqwest::header::{HeaderMap, LINK};
use serde::Deserialize;

use super::listing::{Lister, Listing};
use super::repository::{Expected, RemoteFile};
use crate::error::{Error, Result};

/// No repository has more pages; the hub recommends at most 100,000 files, 1000 to a page.
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

pub(super) fn list(lister: &Lister<'_>) -> Result<Listing> {
    let api = |kind, revision| {
        let parts = ["api", "models"].into_iter().chain(lister.repo.split('/'));
        lister.client.endpoint().url(parts.chain([kind, revision]))
    };
    let (info, _) = lister.fetch::<ModelInfo>(&api("revision", lister.revision))?;
    let mut page = api("tree", &info.sha);
    page.set_query(Some("recursive=true"));
    let mut files = Vec::new();
    for _ in 0..MAX_PAGES {
        let (entries, headers) = lister.fetch::<Vec<Entry>>(&page)?;
        for entry in entries.iter().filter(|entry| entry.kind == "file") {
            files.push(remote_file(entry).map_err(|error| error.at(&lister.what))?);
        }
        match next_page(&page, &headers) {
            Some(next) => page = next,
            None => return Ok((info.sha, files)),
        }
    }
    Err(Error::Failed(format!("{} does not end", lister.what)))
}

fn remote_file(entry: &Entry) -> Result<RemoteFile> {
    let (size, expected) = match &entry.lfs {
        Some(lfs) => (lfs.size, Expected::Sha256(lfs.oid.parse()?)),
        None => (entry.size, Expected::GitBlob(entry.oid.parse()?)),
    };
    Ok(RemoteFile {
        path: entry.path.parse()?,
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
