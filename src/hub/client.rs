//! The client: an endpoint, a token, and how to reach the network.

use std::sync::Arc;

use reqwest::Url;
use reqwest::blocking::{RequestBuilder, Response};
use reqwest::header::COOKIE;

use super::endpoint::Endpoint;
use super::listing;
use super::repository::Repository;
use super::source::Source;
use super::token::Token;
use crate::error::Result;
use crate::http::{self, Attempt, Http};

/// What a client needs to know.
#[derive(Debug, Clone)]
pub struct Options {
    /// Which hub.
    pub endpoint: Endpoint,
    /// Who asks; only the endpoint's own origin ever sees it.
    pub token: Option<Token>,
    /// How to reach it.
    pub http: http::Options,
}

/// A client of one hub; clones share connections.
#[derive(Debug, Clone)]
pub struct Client(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    endpoint: Endpoint,
    token: Option<Token>,
    http: Http,
}

impl Client {
    /// Sets up TLS and proxies; asks nobody anything.
    pub fn new(options: Options) -> Result<Self> {
        let http = Http::new(&options.http)?;
        Ok(Self(Arc::new(Inner {
            endpoint: options.endpoint,
            token: options.token,
            http,
        })))
    }

    /// Lists a model (`owner/name`) at a branch, tag or commit, and pins it to its commit.
    pub fn repository(&self, repo: &str, revision: &str) -> Result<Repository> {
        listing::list(self, repo, revision)
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.0.endpoint
    }

    pub(super) fn has_token(&self) -> bool {
        self.0.token.is_some()
    }

    pub(super) fn http(&self) -> &Http {
        &self.0.http
    }

    /// Sends a GET request, with the token if the URL is on the endpoint's origin.
    pub(super) fn get(
        &self,
        url: &Url,
        with: impl FnOnce(RequestBuilder) -> RequestBuilder,
    ) -> Attempt<Response> {
        let mut request = with(self.0.http.get(url));
        if let Some(token) = self.0.token.as_ref().filter(|_| self.0.endpoint.owns(url)) {
            let secret = token.secret();
            request = request.bearer_auth(secret);
            if self.0.endpoint.source() == Source::ModelScope {
                // Its older endpoints know only the cookie; its own client sends both, too.
                request = request.header(COOKIE, format!("m_session_id={secret}"));
            }
        }
        self.0.http.send(request)
    }
}
