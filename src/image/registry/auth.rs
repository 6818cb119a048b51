//! Proves to a registry who asks: nobody, a password, or a token that another server gives out.

use std::sync::{Mutex, MutexGuard, PoisonError};

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{StatusCode, Url};
use serde::Deserialize;

use super::challenge::Challenge;
use super::endpoint::Endpoint;
use super::login::{Login, Secret};
use crate::error::Result;
use crate::http::{Attempt, Fault, Http, describe, host_of, read_all};

/// No token is longer, by far.
const MAX_ANSWER: u64 = 1 << 20;

/// Who asks for the parts of one repository.
#[derive(Debug)]
pub struct Auth {
    login: Option<Login>,
    /// What is allowed by default: reading this repository.
    scope: String,
    /// The `Authorization` header in use.
    current: Mutex<Option<HeaderValue>>,
}

/// The answer of a token server.
#[derive(Deserialize)]
struct Answer {
    token: Option<String>,
    access_token: Option<String>,
}

impl Auth {
    /// Looks for a login; asks nobody anything yet.
    pub fn new(endpoint: &Endpoint, repository: &str) -> Result<Self> {
        let repository = endpoint.repository(repository);
        Ok(Self {
            login: Login::find(endpoint.account(), &repository)?,
            scope: format!("repository:{repository}:pull"),
            current: Mutex::default(),
        })
    }

    /// The login that is used.
    pub fn login(&self) -> Option<&Login> {
        self.login.as_ref()
    }

    /// The header to send, once the registry has asked for one. Only for its own origin.
    pub fn header(&self) -> Option<HeaderValue> {
        self.lock().clone()
    }

    /// Answers the challenge of a 401 to a request that was sent with `used`; none if it cannot be
    /// answered. Many threads may meet one expired token; the first gets the new one.
    pub fn renew(
        &self,
        http: &Http,
        endpoint: &Endpoint,
        headers: &HeaderMap,
        used: Option<&HeaderValue>,
    ) -> Attempt<Option<HeaderValue>> {
        let mut current = self.lock();
        if current.as_ref() != used {
            return Ok(current.clone());
        }
        *current = match Challenge::of(headers) {
            Some(Challenge::Basic) => self.basic(),
            Some(Challenge::Bearer {
                realm,
                service,
                scope,
            }) => {
                let realm = realm_url(endpoint, &realm)?;
                let scope = scope.as_ref().unwrap_or(&self.scope);
                self.token(http, &realm, service.as_deref(), scope)?
            }
            None => None,
        };
        // The same answer again would be refused again.
        Ok(current.clone().filter(|new| Some(new) != used))
    }

    fn basic(&self) -> Option<HeaderValue> {
        match &self.login.as_ref()?.secret {
            Secret::Password(user, password) => {
                use base64::Engine as _;
                let pair = format!("{user}:{password}");
                let coded = base64::engine::general_purpose::STANDARD.encode(pair);
                secret_header(&format!("Basic {coded}"))
            }
            Secret::Identity(token) => secret_header(&format!("Bearer {token}")),
        }
    }

    /// Asks the token server, as the Docker registry's token specification says.
    fn token(
        &self,
        http: &Http,
        realm: &Url,
        service: Option<&str>,
        scope: &str,
    ) -> Attempt<Option<HeaderValue>> {
        let asked = [("scope", Some(scope)), ("service", service)];
        let secret = self.login.as_ref().map(|login| &login.secret);
        let request = if let Some(Secret::Identity(token)) = secret {
            let more = [
                ("grant_type", Some("refresh_token")),
                ("client_id", Some("bundle")),
                ("refresh_token", Some(token)),
            ];
            let form = with_query(realm, asked.into_iter().chain(more));
            let form = form.query().unwrap_or_default().to_owned();
            let kind = "application/x-www-form-urlencoded";
            http.post(realm).header(CONTENT_TYPE, kind).body(form)
        } else {
            let request = http.get(&with_query(realm, asked));
            match self.basic() {
                Some(header) => request.header(AUTHORIZATION, header),
                None => request,
            }
        };
        let host = host_of(realm);
        let response = http.send(request)?;
        let status = response.status();
        if status != StatusCode::OK {
            return Err(Fault::lasting(host, self.refused(status)));
        }
        let bytes = read_all(response, MAX_ANSWER)?;
        // The answer is not repeated: it may hold a token.
        let answer: Option<Answer> = serde_json::from_slice(&bytes).ok();
        let token = answer.and_then(|answer| answer.token.or(answer.access_token));
        let header = token.and_then(|token| secret_header(&format!("Bearer {token}")));
        let none = || Fault::passing(host, "it sent something that holds no token");
        header.map(Some).ok_or_else(none)
    }

    fn refused(&self, status: StatusCode) -> String {
        match &self.login {
            Some(login) if matches!(status.as_u16(), 400 | 401 | 403) => format!(
                "it does not accept the login in {} ({}): log in again with `docker login`, \
                 or log out for public images",
                login.place.display(),
                describe(status)
            ),
            _ => format!("it gives no token: it answered {}", describe(status)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<HeaderValue>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The token server's URL, if a login may go there.
fn realm_url(endpoint: &Endpoint, realm: &str) -> Attempt<Url> {
    let url = Url::parse(realm).ok();
    url.filter(|url| endpoint.may_send_login_to(url))
        .ok_or_else(|| {
            let cause = format!("it sends to {realm:?} for a token, which is no https URL");
            Fault::lasting(endpoint.to_string(), cause)
        })
}

fn with_query<'a>(url: &Url, pairs: impl IntoIterator<Item = (&'a str, Option<&'a str>)>) -> Url {
    let mut url = url.clone();
    let pairs = pairs.into_iter();
    url.query_pairs_mut()
        .extend_pairs(pairs.filter_map(|(name, value)| Some((name, value?))));
    url
}

fn secret_header(text: &str) -> Option<HeaderValue> {
    let mut header = HeaderValue::from_str(text).ok()?;
    header.set_sensitive(true);
    Some(header)
}
