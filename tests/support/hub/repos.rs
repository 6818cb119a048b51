//! The models of a hub: commits, branches, and who may see them.

use std::collections::BTreeMap;

use bundle::digest::GitBlobHasher;
use serde_json::{Value, json};

use super::content::Content;

/// Who may see a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Access {
    /// Everybody.
    #[default]
    Public,
    /// Its list of files everybody; the files who has the hub's token.
    Gated,
    /// Only who has the hub's token.
    Private,
}

/// The files of a commit, by path.
pub type Files = BTreeMap<String, Content>;

/// A model.
#[derive(Default)]
pub struct Repo {
    pub access: Access,
    commits: BTreeMap<String, Files>,
    refs: BTreeMap<String, String>,
}

impl Repo {
    /// Makes a commit of these files and moves a branch to it; returns its id.
    pub fn commit(&mut self, branch: &str, files: Files) -> String {
        let lines = files
            .iter()
            .map(|(path, content)| format!("{path}\0{}\n", content.sha256));
        let list = lines.collect::<Vec<_>>().concat();
        let mut hasher = GitBlobHasher::new(list.len() as u64);
        hasher.update(list.as_bytes());
        let id = hasher.finish().to_string();
        self.commits.insert(id.clone(), files);
        self.refs.insert(branch.to_owned(), id.clone());
        id
    }

    /// The commit that a branch, tag or commit id stands for.
    pub fn resolve(&self, revision: &str) -> Option<(&str, &Files)> {
        let id = self.refs.get(revision).map_or(revision, String::as_str);
        let (id, files) = self.commits.get_key_value(id)?;
        Some((id, files))
    }

    /// What `/api/models/REPO/revision/REVISION` says.
    pub fn info(&self, name: &str, commit: &str, files: &Files) -> Value {
        let siblings: Vec<Value> = files
            .keys()
            .map(|path| json!({"rfilename": path}))
            .collect();
        json!({
            "_id": "0",
            "id": name,
            "modelId": name,
            "sha": commit,
            "private": self.access == Access::Private,
            "gated": if self.access == Access::Gated { json!("manual") } else { json!(false) },
            "siblings": siblings,
        })
    }
}

/// The entries of `/api/models/REPO/tree/COMMIT?recursive=true`: directories and files.
pub fn tree(files: &Files) -> Vec<Value> {
    let mut entries = BTreeMap::new();
    for (path, content) in files {
        for (at, _) in path.match_indices('/') {
            let directory = &path[..at];
            let entry = json!({"type": "directory", "path": directory, "size": 0, "oid": "0"});
            entries.insert(directory.to_owned(), entry);
        }
        let mut entry = json!({
            "type": "file", "path": path, "size": content.size, "oid": content.blob_id,
        });
        if content.is_lfs(path) {
            entry["lfs"] = json!({
                "oid": content.sha256, "size": content.size, "pointerSize": 135,
            });
        }
        entries.insert(path.clone(), entry);
    }
    entries.into_values().collect()
}
