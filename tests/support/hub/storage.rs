//! The storage host: bytes behind signed URLs that expire. Like S3 it refuses a request that
//! brings an `Authorization` besides the signature.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bundle::digest::Sha256;
use reqwest::Url;

use super::content::Content;
use super::http::{Answer, Request};
use super::repos::Repo;

/// Only the hub and its storage know it.
const SECRET: &str = "signing secret";

/// A signed URL of a file at a commit.
pub fn sign(base: &str, repo: &str, commit: &str, path: &str, life: Duration) -> Option<Url> {
    let mut url = Url::parse(base).ok()?;
    url.path_segments_mut()
        .ok()?
        .extend(repo.split('/'))
        .push(commit)
        .extend(path.split('/'));
    let expires = (now() + life).as_millis().to_string();
    let signature = signature(url.path(), &expires);
    url.query_pairs_mut()
        .append_pair("Expires", &expires)
        .append_pair("Signature", &signature);
    Some(url)
}

/// Repository, commit and path that a request is for.
pub fn parts(request: &Request) -> Option<(String, String, String)> {
    let segments = request.segments();
    let [owner, name, commit, path @ ..] = &segments[..] else {
        return None;
    };
    Some((format!("{owner}/{name}"), commit.clone(), path.join("/")))
}

/// Answers a request for a file of a repository.
pub fn answer(request: &Request, repo: Option<&Repo>, commit: &str, path: &str) -> Answer {
    if request.header("authorization").is_some() {
        return Answer::text(400, "Only one auth mechanism allowed");
    }
    if !is_signed(request) {
        return Answer::text(403, "AccessDenied").with("content-type", "application/xml");
    }
    let content: Option<&Content> = repo
        .and_then(|repo| repo.resolve(commit))
        .and_then(|(_, files)| files.get(path));
    match content {
        None => Answer::text(404, "NoSuchKey").with("content-type", "application/xml"),
        Some(content) => Answer::file(request, content)
            .with("content-type", "binary/octet-stream")
            .with("etag", format!("\"{}\"", &content.sha256[..32])),
    }
}

fn is_signed(request: &Request) -> bool {
    let (Some(expires), Some(given)) = (request.query("Expires"), request.query("Signature"))
    else {
        return false;
    };
    let path = request.target.split('?').next().unwrap_or_default();
    let alive = expires
        .parse()
        .is_ok_and(|millis| Duration::from_millis(millis) > now());
    alive && given == signature(path, &expires)
}

fn signature(path: &str, expires: &str) -> String {
    Sha256::of(format!("{SECRET}\n{path}\n{expires}").as_bytes()).to_string()
}

fn now() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}
