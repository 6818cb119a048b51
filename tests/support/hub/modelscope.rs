//! ModelScope's side of the loopback hub: the same repositories behind `/api/v1/models/`.

use serde_json::{Value, json};

use super::fault::At;
use super::http::{Answer, Request};
use super::repos::{Access, Files, Repo};
use super::server::Options;
use super::storage;

/// A request to ModelScope, understood.
#[derive(Debug, PartialEq, Eq)]
pub enum Ask {
    /// The newest commits of a branch.
    Commits,
    /// The files of a revision.
    Files,
    /// A file.
    File { path: String },
}

impl Ask {
    /// The repository and what is asked of it.
    pub fn parse(request: &Request) -> Option<(String, Self)> {
        let segments = request.segments();
        let parts: Vec<&str> = segments.iter().map(String::as_str).collect();
        let ["api", "v1", "models", owner, name, rest @ ..] = &parts[..] else {
            return None;
        };
        let ask = match rest {
            ["commits"] => Self::Commits,
            ["repo", "files"] => Self::Files,
            ["repo"] => Self::File {
                path: request.query("FilePath")?,
            },
            _ => return None,
        };
        Some((format!("{owner}/{name}"), ask))
    }

    /// Where a fault for this request is scripted.
    pub fn place<'a>(&'a self, repo: &'a str) -> (At, &'a str) {
        match self {
            Self::Commits | Self::Files => (At::Api, repo),
            Self::File { path } => (At::Resolve, path),
        }
    }
}

/// Answers; `storage` is the storage host as the client sees it.
pub fn answer(
    options: &Options,
    request: &Request,
    (name, repo): (&str, Option<&Repo>),
    ask: &Ask,
    storage: &str,
) -> Answer {
    let Some(repo) = repo.filter(|repo| may_see(options, request, repo)) else {
        return failure(404, "Model not found");
    };
    let parameter = if *ask == Ask::Commits {
        "Ref"
    } else {
        "Revision"
    };
    let revision = request.query(parameter).unwrap_or_default();
    let found = repo.resolve(&revision);
    let (commit, files) = match (ask, found) {
        (Ask::Commits, None) => return success(&json!({"Commit": null, "TotalCount": 0})),
        (_, None) => return failure(404, "Revision not found"),
        (_, Some(found)) => found,
    };
    match ask {
        Ask::Commits => success(&json!({"Commit": [{"Id": commit}], "TotalCount": 1})),
        Ask::Files => success(&json!({"Files": list(commit, files)})),
        Ask::File { path } => match files.get(path) {
            None => failure(404, "File not found"),
            Some(content) if content.is_lfs(path) => {
                let url = storage::sign(storage, name, commit, path, options.signed_life);
                Answer::text(302, "").with("location", url.map(String::from).unwrap_or_default())
            }
            Some(content) => {
                Answer::file(request, content).with("content-type", "application/octet-stream")
            }
        },
    }
}

/// ModelScope takes a token as a header or as a cookie.
fn may_see(options: &Options, request: &Request, repo: &Repo) -> bool {
    let token = options.token.as_deref();
    let bearer = request
        .header("authorization")
        .and_then(|value| value.strip_prefix("Bearer "));
    let cookie = request
        .header("cookie")
        .and_then(|value| value.strip_prefix("m_session_id="));
    repo.access == Access::Public || (token.is_some() && (bearer == token || cookie == token))
}

/// All entries in one answer, cut off at 3000, as ModelScope does.
fn list(commit: &str, files: &Files) -> Vec<Value> {
    let entry = |(path, content): (&String, &super::Content)| {
        json!({
            "Name": path.rsplit('/').next(), "Path": path, "Type": "blob", "Size": content.size,
            "Sha256": content.sha256, "Revision": commit, "IsLFS": content.is_lfs(path),
        })
    };
    let directory = json!({"Name": "d", "Path": "d", "Type": "tree", "Size": 0, "Sha256": ""});
    let mut entries: Vec<Value> = std::iter::once(directory)
        .chain(files.iter().map(entry))
        .collect();
    entries.truncate(3000);
    entries
}

fn success(data: &Value) -> Answer {
    Answer::json(&json!({"Code": 200, "Success": true, "Message": "success", "Data": data}))
}

fn failure(status: u16, message: &str) -> Answer {
    let body = json!({"Code": 10_010_205_001_u64, "Success": false, "Message": message});
    Answer {
        status,
        ..Answer::json(&body)
    }
}
