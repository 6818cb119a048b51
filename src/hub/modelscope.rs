//! Lists a model of ModelScope: the newest commit of a branch, then its files in one answer.
//! The API is that of ModelScope's own client (`modelscope_hub`, `/api/v1/`).

use serde::Deserialize;

use super::listing::{Lister, Listing};
use super::repository::{Expected, RemoteFile};
use crate::error::{Error, Result};

/// ModelScope cuts its list of files off here, without a word.
const MAX_ENTRIES: usize = 3000;

/// Every answer.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer<T> {
    success: bool,
    #[serde(default)]
    message: String,
    data: Option<T>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Commits {
    commit: Option<Vec<Commit>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Commit {
    id: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Tree {
    files: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    path: String,
    #[serde(rename = "Type")]
    kind: String,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    sha256: String,
}

pub(super) fn list(lister: &Lister<'_>) -> Result<Listing> {
    let commit = commit(lister)?;
    let query = [("Revision", commit.as_str()), ("Recursive", "true")];
    let tree: Tree = ask(lister, &["repo", "files"], &query)?;
    if tree.files.len() >= MAX_ENTRIES {
        return Err(Error::Failed(format!(
            "{} has {MAX_ENTRIES} entries or more, and ModelScope does not list more; \
             fetch this model from a Hugging Face mirror",
            lister.what
        )));
    }
    let blobs = tree.files.iter().filter(|entry| entry.kind == "blob");
    let files = blobs
        .map(|entry| remote_file(entry).map_err(|error| error.at(&lister.what)))
        .collect::<Result<_>>()?;
    Ok((commit, files))
}

/// The commit that a revision stands for. The hub's default branch `main` means ModelScope's
/// `master` where there is no `main`.
fn commit(lister: &Lister<'_>) -> Result<String> {
    if is_commit(lister.revision) {
        return Ok(lister.revision.to_owned());
    }
    let fallback = (lister.revision == "main").then_some("master");
    for branch in [Some(lister.revision), fallback].into_iter().flatten() {
        let query = [("Ref", branch), ("PageNumber", "1"), ("PageSize", "1")];
        let commits: Commits = ask(lister, &["commits"], &query)?;
        if let Some(newest) = commits.commit.unwrap_or_default().into_iter().next() {
            return Ok(newest.id);
        }
    }
    Err(Error::Failed(format!(
        "cannot fetch {}: the model at {} has no such branch, tag or commit",
        lister.what,
        lister.client.endpoint().page(lister.repo)
    )))
}

fn ask<T: serde::de::DeserializeOwned>(
    lister: &Lister<'_>,
    path: &[&str],
    query: &[(&str, &str)],
) -> Result<T> {
    let model = ["api", "v1", "models"]
        .into_iter()
        .chain(lister.repo.split('/'));
    let endpoint = lister.client.endpoint();
    let mut url = endpoint.url(model.chain(path.iter().copied()));
    url.query_pairs_mut().extend_pairs(query);
    let (answer, _) = lister.fetch::<Answer<T>>(&url)?;
    match answer {
        Answer {
            success: true,
            data: Some(data),
            ..
        } => Ok(data),
        Answer { message, .. } => Err(Error::Failed(format!(
            "cannot fetch {} from {endpoint}: it says {message:?}",
            lister.what
        ))),
    }
}

fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn remote_file(entry: &Entry) -> Result<RemoteFile> {
    Ok(RemoteFile {
        path: entry.path.parse()?,
        size: entry.size,
        expected: Expected::Sha256(entry.sha256.parse()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_real_answer_is_understood() {
        // From ModelScope's answer for qwen/Qwen2.5-0.5B-Instruct-GGUF, shortened.
        let text = r#"{"Code": 200, "Success": true, "Data": {"Files": [{
            "CommitMessage": "merge main", "InCheck": false, "IsLFS": false, "Mode": "33188",
            "Name": ".gitattributes", "Path": ".gitattributes",
            "Revision": "cbee0850956aeb6fd9ac074a0270da820788ada7",
            "Sha256": "c04fe798248680304f09bdd123b107f87a982ab46bb8a4286864c465adf7f486",
            "Size": 1630, "Type": "blob"}]}}"#;
        let answer: Answer<Tree> = serde_json::from_str(text).unwrap();
        let file = remote_file(&answer.data.unwrap().files[0]).unwrap();
        assert_eq!((file.path.as_str(), file.size), (".gitattributes", 1630));
    }

    #[test]
    fn only_a_full_id_is_a_commit() {
        assert!(is_commit("cbee0850956aeb6fd9ac074a0270da820788ada7"));
        assert!(!is_commit("cbee0850"));
        assert!(!is_commit("v1.0"));
    }
}
