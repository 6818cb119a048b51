//! A refusing status of the hub as a sentence: what it means and what to do.

use reqwest::StatusCode;
use reqwest::blocking::Response;

use super::client::Client;
use super::source::Source;
use crate::http::{Fault, describe, host_of};

/// The fault that an answer stands for that has neither bytes nor a redirect. The hub tells its
/// reasons in `X-Error-Code` and `X-Error-Message`.
pub(super) fn refusal(client: &Client, repo: &str, response: &Response) -> Fault {
    let host = host_of(response.url());
    let status = response.status();
    if !client.endpoint().owns(response.url()) {
        // A storage host refuses URLs that have expired; the next attempt gets a fresh one.
        return Fault::passing(host, format!("it answered {}", describe(status)));
    }
    let header = |name| response.headers().get(name)?.to_str().ok();
    let cause = sentence(
        status,
        header("x-error-code"),
        client.has_token(),
        &client.endpoint().page(repo),
        client.endpoint().source(),
    );
    let said = header("x-error-message").map_or_else(String::new, |text| format!(" ({text})"));
    Fault::lasting(host, cause + &said)
}

/// What a status means at the hub. `page` is the repository's address.
fn sentence(
    status: StatusCode,
    code: Option<&str>,
    has_token: bool,
    page: &str,
    source: Source,
) -> String {
    let give_token = format!(
        "give a token with --token-file or {}",
        source.token_variable()
    );
    match (status.as_u16(), code) {
        (401 | 403, Some("GatedRepo")) if !has_token => {
            format!("the model is gated: accept its licence at {page}, then {give_token}")
        }
        (401 | 403, Some("GatedRepo")) => format!(
            "the model is gated, and the account of the token has no access: \
             accept its licence at {page} with that account"
        ),
        (401 | 404, Some("RepoNotFound")) | (401, None) if !has_token => format!(
            "there is no public model at {page}: check the name; if it is private, {give_token}"
        ),
        (401 | 404, Some("RepoNotFound")) => {
            format!("there is no model at {page} that the token may see: check name and token")
        }
        (404, Some("RevisionNotFound")) => {
            format!("the model at {page} has no such branch, tag or commit")
        }
        (404, Some("EntryNotFound")) => "it no longer has this file at that commit".into(),
        (401, _) => format!("the hub does not accept the token: make a new one, then {give_token}"),
        (403, _) if has_token => {
            format!("the account of the token has no access to {page}")
        }
        (403, _) => format!("it wants to know who asks: {give_token}"),
        (404, _) => format!("there is nothing at {page}: check name and revision"),
        _ => format!("it answered {}", describe(status)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_says_what_to_do() {
        let cases = [
            (
                401,
                Some("GatedRepo"),
                false,
                "accept its licence at P, then give a token",
            ),
            (403, Some("GatedRepo"), true, "with that account"),
            (
                401,
                Some("RepoNotFound"),
                false,
                "if it is private, give a token",
            ),
            (401, None, false, "if it is private, give a token"),
            (404, Some("RepoNotFound"), true, "that the token may see"),
            (
                404,
                Some("RevisionNotFound"),
                false,
                "no such branch, tag or commit",
            ),
            (404, Some("EntryNotFound"), false, "no longer has this file"),
            (401, None, true, "does not accept the token"),
            (403, None, true, "has no access to P"),
            (403, None, false, "who asks"),
            (404, None, false, "nothing at P"),
            (418, None, false, "418"),
        ];
        for (status, code, has_token, part) in cases {
            let status = StatusCode::from_u16(status).unwrap();
            let text = sentence(status, code, has_token, "P", Source::HuggingFace);
            assert!(text.contains(part), "{status} {code:?}: {text}");
        }
    }
}
