//! What listing a model has in common for all kinds of hub: fetching JSON, and checking the files.

use std::collections::BTreeMap;

use reqwest::blocking::Response;
use reqwest::header::HeaderMap;
use reqwest::{StatusCode, Url};
use serde::de::DeserializeOwned;

use super::client::Client;
use super::refusal::refusal;
use super::repository::{RemoteFile, Repository};
use super::source::Source;
use super::{huggingface, modelscope};
use crate::error::{Error, Result};
use crate::http::{Attempt, Fault, host_of, read_all};

/// No answer is larger: a page of the hub's holds 1000 entries, one of ModelScope's 3000.
const MAX_ANSWER: u64 = 64 << 20;

/// The commit of a revision, and its files.
pub(super) type Listing = (String, Vec<RemoteFile>);

/// Asks a hub about one model.
pub(super) struct Lister<'a> {
    pub(super) client: &'a Client,
    pub(super) repo: &'a str,
    pub(super) revision: &'a str,
    /// For messages: "the list of files of ...".
    pub(super) what: String,
}

pub(super) fn list(client: &Client, repo: &str, revision: &str) -> Result<Repository> {
    let lister = Lister {
        client,
        repo,
        revision,
        what: format!("the list of files of {repo} at {revision}"),
    };
    let (commit, entries) = match client.endpoint().source() {
        Source::HuggingFace => huggingface::list(&lister)?,
        Source::ModelScope => modelscope::list(&lister)?,
    };
    let mut files = BTreeMap::new();
    for file in entries {
        if let Some(twin) = files.insert(file.path.clone(), file) {
            let what = lister.what;
            return Err(Error::Failed(format!("{what} names {} twice", twin.path)));
        }
    }
    let files = files.into_values().collect();
    Ok(Repository::new(client.clone(), repo, commit, files))
}

impl Lister<'_> {
    /// Fetches and reads JSON, with retries.
    pub(super) fn fetch<T: DeserializeOwned>(&self, url: &Url) -> Result<(T, HeaderMap)> {
        self.client.http().patiently(&self.what, || {
            let response = self.client.get(url, |request| request)?;
            if response.status() != StatusCode::OK {
                return Err(refusal(self.client, self.repo, &response));
            }
            read_json(response)
        })
    }
}

fn read_json<T: DeserializeOwned>(response: Response) -> Attempt<(T, HeaderMap)> {
    let host = host_of(response.url());
    let headers = response.headers().clone();
    let bytes = read_all(response, MAX_ANSWER)?;
    let value = serde_json::from_slice(&bytes).map_err(|error| {
        let is_page = bytes.trim_ascii_start().starts_with(b"<");
        let kind = if is_page { "a web page" } else { "something" };
        let cause = format!("it sent {kind} that is not a hub's answer: {error}");
        Fault::passing(host, cause)
    })?;
    Ok((value, headers))
}
