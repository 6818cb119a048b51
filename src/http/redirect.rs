//! Redirects, which are followed by hand: only the caller knows which host may see a token.

use std::io::Read as _;
use std::time::{Duration, Instant};

use reqwest::Url;
use reqwest::blocking::Response;
use reqwest::header::LOCATION;

use super::client::host_of;
use super::fault::{Attempt, Fault};

/// A signed URL is asked for again after this time; the hub's live for an hour.
const SIGNED_URL_LIFE: Duration = Duration::from_mins(10);

/// Hosts in a row that may pass a request on; real ones pass it on once or twice.
pub const MAX_HOPS: usize = 6;

/// Where redirects from a file's own URL have led.
#[derive(Debug, Default)]
pub struct Direct(Option<(Url, Instant)>);

impl Direct {
    /// The URL, while it is fresh.
    #[must_use]
    pub fn fresh(&self) -> Option<Url> {
        let (url, found) = self.0.as_ref()?;
        let fresh = found.elapsed() < SIGNED_URL_LIFE;
        fresh.then(|| url.clone())
    }

    /// Remembers a URL, if none is known.
    pub fn learn(&mut self, url: Url) {
        self.0.get_or_insert((url, Instant::now()));
    }

    /// Forgets it, because it has failed.
    pub fn forget(&mut self) {
        self.0 = None;
    }
}

/// Where a redirect leads; never from https to http.
pub fn redirect_target(mut response: Response, from: &Url) -> Attempt<Url> {
    let host = host_of(from);
    let location = response.headers().get(LOCATION);
    let target = location
        .and_then(|value| value.to_str().ok())
        .and_then(|text| from.join(text).ok())
        .filter(|url| matches!(url.scheme(), "http" | "https"));
    // A connection is used again only when its last body was read; a redirect's is short.
    let _ = std::io::copy(&mut response.by_ref().take(64 << 10), &mut std::io::sink());
    let Some(target) = target else {
        return Err(Fault::passing(host, "it sent a redirect to nowhere"));
    };
    if from.scheme() == "https" && target.scheme() == "http" {
        let cause = format!("it redirects to unencrypted http on {}", host_of(&target));
        return Err(Fault::lasting(host, cause));
    }
    Ok(target)
}
