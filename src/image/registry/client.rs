//! A client for one repository of one registry.

use std::sync::{Mutex, PoisonError};

use reqwest::blocking::{RequestBuilder, Response};
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderValue, RANGE};
use reqwest::{StatusCode, Url};

use super::auth::Auth;
use super::endpoint::Endpoint;
use super::refusal::sentence;
use crate::digest::Sha256;
use crate::error::{Error, Result};
use crate::http::{
    self, Attempt, Body, Direct, Fault, Http, MAX_HOPS, Span, describe, host_of, read_all,
    read_span, redirect_target,
};

/// Registries themselves refuse manifests above 4 MiB; configs of real images are far smaller.
const MAX_SMALL: u64 = 8 << 20;

/// A token that another thread has fetched may be used up or too old as well.
const RENEWALS: usize = 3;

/// Bytes that are skipped at once.
const WASTE: usize = 64 << 10;

/// The forms of manifests and indices that we read.
const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.v2+json";

/// One repository of one registry.
#[derive(Debug)]
pub struct Client {
    http: Http,
    endpoint: Endpoint,
    repository: String,
    auth: Auth,
}

/// A blob and where it was found.
#[derive(Debug)]
pub struct Blob {
    /// Of its bytes as stored.
    pub digest: Sha256,
    /// Bytes as stored.
    pub size: u64,
    /// Where a redirect has led.
    pub direct: Mutex<Direct>,
}

impl Client {
    /// Sets up TLS, proxies and login; asks nobody anything.
    pub fn new(endpoint: Endpoint, repository: &str, options: &http::Options) -> Result<Self> {
        Ok(Self {
            http: Http::new(options)?,
            auth: Auth::new(&endpoint, repository)?,
            repository: repository.to_owned(),
            endpoint,
        })
    }

    /// For messages.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The bytes of a manifest or index by tag or digest, and their digest.
    pub fn manifest(&self, reference: &str) -> Result<(Vec<u8>, Sha256)> {
        let separator = if reference.contains(':') { '@' } else { ':' };
        let image = format!("{}{separator}{reference}", self.repository);
        let url = self.endpoint.url(&self.repository, "manifests", reference);
        let bytes = self
            .http
            .patiently(&format!("the manifest of {image}"), || {
                let (response, _) =
                    self.fetch(&url, &|request| request.header(ACCEPT, MANIFESTS))?;
                if response.status() != StatusCode::OK {
                    return Err(self.refusal(&response, &image));
                }
                read_all(response, MAX_SMALL)
            })?;
        let digest = Sha256::of(&bytes);
        match reference.strip_prefix("sha256:") {
            Some(wanted) if wanted != digest.to_string() => Err(Error::Damaged(format!(
                "{} sent a manifest with the digest {digest} for {image}; use another mirror",
                self.endpoint
            ))),
            _ => Ok((bytes, digest)),
        }
    }

    /// A small blob as a whole, checked.
    pub fn small_blob(&self, blob: &Blob) -> Result<Vec<u8>> {
        if blob.size > MAX_SMALL {
            return Err(Error::Damaged(format!(
                "the config of {} has {} bytes, more than any image's",
                self.repository, blob.size
            )));
        }
        // At most 8 MiB.
        let mut bytes = vec![0; usize::try_from(blob.size).unwrap_or_default()];
        self.read_on(blob, &mut None, 0, &mut bytes)?;
        self.check(blob, Sha256::of(&bytes))?;
        Ok(bytes)
    }

    /// Refuses a blob that has not the digest of its name.
    pub fn check(&self, blob: &Blob, found: Sha256) -> Result<()> {
        if found == blob.digest {
            return Ok(());
        }
        Err(Error::Damaged(format!(
            "blob {} of {} arrived from {} with the digest {found}; it is not packed: \
             run again, or use another mirror",
            blob.digest, self.repository, self.endpoint
        )))
    }

    /// Fills `buffer` with the bytes of a blob from `offset` on. False when the server sends the
    /// whole blob instead, as some proxies do. Retries; the error names blob, host and cause.
    pub fn read(&self, blob: &Blob, offset: u64, buffer: &mut [u8]) -> Result<bool> {
        if buffer.is_empty() {
            return Ok(true);
        }
        let span = Span {
            offset,
            len: buffer.len() as u64,
            size: blob.size,
        };
        self.patiently(blob, || {
            let response = self.ask(blob, &|request| request.header(RANGE, span.header()))?;
            if span.is_ignored_by(&response) {
                return Ok(false);
            }
            read_span(response, span, buffer)?;
            Ok(true)
        })
    }

    /// As [`Client::read`], out of the stream of the whole blob: one that is not behind `offset`,
    /// else a new one. The stream is gone when it ends.
    pub fn read_on(
        &self,
        blob: &Blob,
        stream: &mut Option<Body>,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<()> {
        if buffer.is_empty() {
            return Ok(());
        }
        self.patiently(blob, || {
            // What fails is not put back: the next attempt opens another one.
            let mut body = match stream.take().filter(|body| body.at() <= offset) {
                Some(body) => body,
                None => Body::of_whole(self.ask(blob, &|request| request)?, blob.size)?,
            };
            skip(&mut body, offset)?;
            body.read(buffer)?;
            if body.at() == blob.size {
                return body.finish();
            }
            *stream = Some(body);
            Ok(())
        })
    }

    fn patiently<T>(&self, blob: &Blob, mut attempt: impl FnMut() -> Attempt<T>) -> Result<T> {
        let what = format!("blob {} of {}", blob.digest, self.repository);
        self.http.patiently(&what, || {
            let result = attempt();
            if result.is_err() {
                direct(blob, Direct::forget);
            }
            result
        })
    }

    /// Asks for a blob, where the last request was led to if that is known.
    fn ask(
        &self,
        blob: &Blob,
        with: &dyn Fn(RequestBuilder) -> RequestBuilder,
    ) -> Attempt<Response> {
        let name = format!("sha256:{}", blob.digest);
        let own = || self.endpoint.url(&self.repository, "blobs", &name);
        let start = direct(blob, |direct| direct.fresh()).unwrap_or_else(own);
        let (response, url) = self.fetch(&start, with)?;
        if !matches!(
            response.status(),
            StatusCode::OK | StatusCode::PARTIAL_CONTENT
        ) {
            return Err(self.refusal(&response, &format!("{}@{name}", self.repository)));
        }
        direct(blob, |direct| direct.learn(url));
        Ok(response)
    }

    /// Sends a GET request and follows redirects; returns the URL that has answered, too.
    fn fetch(
        &self,
        start: &Url,
        with: &dyn Fn(RequestBuilder) -> RequestBuilder,
    ) -> Attempt<(Response, Url)> {
        let mut url = start.clone();
        for _ in 0..MAX_HOPS {
            let response = self.get(&url, with)?;
            if !response.status().is_redirection() {
                return Ok((response, url));
            }
            url = redirect_target(response, &url)?;
        }
        Err(Fault::lasting(host_of(&url), "it redirects without end"))
    }

    /// Sends one GET request. The registry's own origin gets the token, and another one
    /// when it asks for that; no other origin ever sees it.
    fn get(&self, url: &Url, with: &dyn Fn(RequestBuilder) -> RequestBuilder) -> Attempt<Response> {
        let send = |header: Option<&HeaderValue>| {
            let request = with(self.http.get(url));
            self.http.send(match header {
                Some(header) => request.header(AUTHORIZATION, header.clone()),
                None => request,
            })
        };
        if !self.endpoint.owns(url) {
            return send(None);
        }
        let mut used = self.auth.header();
        let mut response = send(used.as_ref())?;
        for _ in 0..RENEWALS {
            if response.status() != StatusCode::UNAUTHORIZED {
                break;
            }
            let (http, headers) = (&self.http, response.headers());
            match self
                .auth
                .renew(http, &self.endpoint, headers, used.as_ref())?
            {
                Some(header) => response = send(Some(used.insert(header)))?,
                None => break,
            }
        }
        Ok(response)
    }

    fn refusal(&self, response: &Response, image: &str) -> Fault {
        let host = host_of(response.url());
        let status = response.status();
        if !self.endpoint.owns(response.url()) {
            // A storage host refuses URLs that have expired; the next attempt gets a fresh one.
            return Fault::passing(host, format!("it answered {}", describe(status)));
        }
        let account = self.endpoint.account();
        Fault::lasting(host, sentence(status, image, account, self.auth.login()))
    }
}

/// Reads up to a position and forgets what was read.
fn skip(body: &mut Body, to: u64) -> Attempt<()> {
    let mut waste = vec![0; WASTE];
    while body.at() < to {
        let left = usize::try_from(to - body.at()).unwrap_or(WASTE);
        body.read(&mut waste[..left.min(WASTE)])?;
    }
    Ok(())
}

fn direct<T>(blob: &Blob, with: impl FnOnce(&mut Direct) -> T) -> T {
    with(&mut blob.direct.lock().unwrap_or_else(PoisonError::into_inner))
}
