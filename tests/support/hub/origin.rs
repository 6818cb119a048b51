//! The hub itself: its API, and the URLs of files, which redirect to the bytes.

use reqwest::Url;
use serde_json::Value;

use super::fault::At;
use super::http::{Answer, Request};
use super::repos::{Access, Repo, tree};
use super::server::Options;
use super::storage;

/// A request to the hub, understood.
#[derive(Debug, PartialEq, Eq)]
pub enum Ask {
    /// A model at a revision.
    Info { revision: String },
    /// The files of a revision.
    Tree { revision: String },
    /// A file.
    File { revision: String, path: String },
    /// A small file, where [`Ask::File`] redirected to.
    Cached { revision: String, path: String },
}

impl Ask {
    /// The repository and what is asked of it.
    pub fn parse(request: &Request) -> Option<(String, Self)> {
        let segments = request.segments();
        let parts: Vec<&str> = segments.iter().map(String::as_str).collect();
        let (owner, name, ask) = match &parts[..] {
            [
                "api",
                "resolve-cache",
                "models",
                owner,
                name,
                revision,
                path @ ..,
            ] => {
                let (revision, path) = ((*revision).to_owned(), path.join("/"));
                (owner, name, Self::Cached { revision, path })
            }
            ["api", "models", owner, name, rest @ ..] => {
                let ask = match rest {
                    [] => Self::Info {
                        revision: "main".into(),
                    },
                    ["revision", revision] => Self::Info {
                        revision: (*revision).into(),
                    },
                    ["tree", revision] => Self::Tree {
                        revision: (*revision).into(),
                    },
                    _ => return None,
                };
                (owner, name, ask)
            }
            [owner, name, "resolve", revision, path @ ..] => {
                let (revision, path) = ((*revision).to_owned(), path.join("/"));
                (owner, name, Self::File { revision, path })
            }
            _ => return None,
        };
        Some((format!("{owner}/{name}"), ask))
    }

    /// Where a fault for this request is scripted.
    pub fn place<'a>(&'a self, repo: &'a str) -> (At, &'a str) {
        match self {
            Self::Info { .. } | Self::Tree { .. } => (At::Api, repo),
            Self::File { path, .. } | Self::Cached { path, .. } => (At::Resolve, path),
        }
    }
}

/// Answers; `base` and `storage` are the two origins as the client sees them.
pub fn answer(
    options: &Options,
    request: &Request,
    (name, repo): (&str, Option<&Repo>),
    ask: &Ask,
    (base, storage): (&str, &str),
) -> Answer {
    let is_file = matches!(ask, Ask::File { .. } | Ask::Cached { .. });
    if let Some(refusal) = refuse(options, request, repo, is_file) {
        return refusal;
    }
    let (Ask::Info { revision }
    | Ask::Tree { revision }
    | Ask::File { revision, .. }
    | Ask::Cached { revision, .. }) = ask;
    let found = repo.and_then(|repo| Some((repo, repo.resolve(revision)?)));
    let Some((repo, (commit, files))) = found else {
        return error(404, "RevisionNotFound", "Invalid rev id");
    };
    let path = match ask {
        Ask::Info { .. } => return Answer::json(&repo.info(name, commit, files)),
        Ask::Tree { .. } => return page(options, request, tree(files), base),
        Ask::File { path, .. } | Ask::Cached { path, .. } => path,
    };
    let Some(content) = files.get(path) else {
        return error(404, "EntryNotFound", "Entry not found");
    };
    let answer = if matches!(ask, Ask::Cached { .. }) {
        Answer::file(request, content).with("content-type", "text/plain; charset=utf-8")
    } else if content.is_lfs(path) {
        let target = storage::sign(storage, name, commit, path, options.signed_life);
        redirect(302, target.map(String::from).unwrap_or_default())
            .with("x-linked-size", content.size.to_string())
            .with("x-linked-etag", format!("\"{}\"", content.sha256))
    } else {
        redirect(307, cache_path(name, commit, path))
    };
    let etag = if content.is_lfs(path) {
        &content.sha256
    } else {
        &content.blob_id
    };
    answer
        .with("etag", format!("\"{etag}\""))
        .with("x-repo-commit", commit)
}

/// Refuses who may not see the model, in the hub's words.
fn refuse(
    options: &Options,
    request: &Request,
    repo: Option<&Repo>,
    is_file: bool,
) -> Option<Answer> {
    let given = request
        .header("authorization")
        .and_then(|value| value.strip_prefix("Bearer "));
    let known = given.is_some() && given == options.token.as_deref();
    let stranger = given.is_some() && given == options.other_token.as_deref();
    if given.is_some() && !known && !stranger {
        let message = "Invalid credentials in Authorization header";
        return Some(Answer::text(401, message).with("x-error-message", message));
    }
    let access = repo.map(|repo| repo.access);
    match access {
        _ if known && access.is_some() => None,
        None | Some(Access::Private) => {
            let status = if given.is_none() { 401 } else { 404 };
            Some(error(status, "RepoNotFound", "Repository not found"))
        }
        Some(Access::Gated) if is_file => {
            let status = if given.is_none() { 401 } else { 403 };
            Some(error(
                status,
                "GatedRepo",
                "Access to this model is restricted",
            ))
        }
        Some(Access::Gated | Access::Public) => None,
    }
}

fn error(status: u16, code: &str, message: &str) -> Answer {
    Answer::text(status, message)
        .with("x-error-code", code)
        .with("x-error-message", message)
}

fn redirect(status: u16, location: String) -> Answer {
    Answer::text(status, format!("Redirecting to {location}")).with("location", location)
}

/// Where small files are, as a relative URL.
fn cache_path(name: &str, commit: &str, path: &str) -> String {
    let Ok(mut url) = Url::parse("http://x/api/resolve-cache/models") else {
        return String::new();
    };
    if let Ok(mut segments) = url.path_segments_mut() {
        segments
            .extend(name.split('/'))
            .push(commit)
            .extend(path.split('/'));
    }
    url.path().to_owned()
}

/// One page of a list, and in `Link` where the next one is.
fn page(options: &Options, request: &Request, entries: Vec<Value>, base: &str) -> Answer {
    let from = request
        .query("cursor")
        .and_then(|cursor| cursor.strip_suffix("==")?.parse::<usize>().ok())
        .unwrap_or(0);
    let total = entries.len();
    let slice: Vec<Value> = entries
        .into_iter()
        .skip(from)
        .take(options.page_size)
        .collect();
    let next = from + slice.len();
    let answer = Answer::json(&Value::Array(slice));
    if next >= total {
        return answer;
    }
    let base = if options.foreign_links {
        "https://huggingface.co"
    } else {
        base
    };
    let path = request.target.split('?').next().unwrap_or_default();
    // The real cursors are base64, which has characters that must be encoded.
    let link =
        format!("<{base}{path}?recursive=true&limit=1000&cursor={next}%3D%3D>; rel=\"next\"");
    answer.with("link", link)
}
