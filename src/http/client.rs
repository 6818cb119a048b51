//! One client for many threads: keeps connections alive, obeys rate limits, retries.

use std::collections::HashMap;
use std::error::Error as StdError;
use std::io::Read as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use reqwest::blocking::{Client, RequestBuilder, Response};
use reqwest::header::{ACCEPT_ENCODING, HeaderMap, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{NoProxy, Proxy, StatusCode, Url};

use super::fault::{Attempt, Fault, Remedy};
use super::limits::pause_asked;
use super::patience::Patience;
use super::tls;
use crate::error::{Error, Result};

/// A server that asks for a longer pause is not worth waiting for.
const LONGEST_PAUSE: Duration = Duration::from_mins(15);
/// Attempts at most while nobody has answered yet.
const FIRST_ATTEMPTS: u32 = 4;
/// How soon a wait notices that the operator wants to stop.
const TICK: Duration = Duration::from_millis(100);

/// How to reach the network.
#[derive(Debug, Clone)]
pub struct Options {
    /// A proxy for all requests; `HTTPS_PROXY` and the like decide when absent. `NO_PROXY` is
    /// obeyed in both cases.
    pub proxy: Option<String>,
    /// PEM file of authorities to trust besides the usual ones.
    pub ca_file: Option<PathBuf>,
    /// A connection that moves no byte for so long is given up.
    pub stall: Duration,
    /// How often to try.
    pub patience: Patience,
    /// Set by the caller when waits shall end with [`Error::Interrupted`].
    pub stop: Arc<AtomicBool>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            proxy: None,
            ca_file: None,
            stall: Duration::from_secs(30),
            patience: Patience::default(),
            stop: Arc::default(),
        }
    }
}

/// The client; share it by reference.
#[derive(Debug)]
pub struct Http {
    client: Client,
    patience: Patience,
    stop: Arc<AtomicBool>,
    /// Whether any server has answered yet.
    reached: AtomicBool,
    /// The proxy in use, for messages.
    via: Option<String>,
    /// Hosts that asked for a pause, and its end.
    pauses: Mutex<HashMap<String, Instant>>,
}

impl Http {
    /// Sets up TLS and proxies; asks nobody anything.
    pub fn new(options: &Options) -> Result<Self> {
        let mut headers = HeaderMap::new();
        // A compressed answer would have another length than the file.
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let mut builder = Client::builder()
            .user_agent(concat!("bundle/", env!("CARGO_PKG_VERSION")))
            .default_headers(headers)
            .redirect(Policy::none())
            .retry(reqwest::retry::never())
            .timeout(options.stall)
            .connect_timeout(options.stall)
            .tls_backend_preconfigured(tls::config(options.ca_file.as_deref())?);
        if let Some(url) = &options.proxy {
            // The URL is not repeated: it may hold a password.
            let proxy = Proxy::all(url).map_err(|error| {
                Error::Usage(format!(
                    "--proxy is no URL of a proxy: {}",
                    root_cause(&error)
                ))
            })?;
            builder = builder.proxy(proxy.no_proxy(NoProxy::from_env()));
        }
        let client = builder.build().map_err(|error| {
            Error::Failed(format!("cannot set up HTTP: {}", root_cause(&error)))
        })?;
        Ok(Self {
            client,
            patience: options.patience,
            stop: Arc::clone(&options.stop),
            reached: AtomicBool::new(false),
            via: options
                .proxy
                .as_ref()
                .map_or_else(proxy_variable, |_| Some("--proxy".into())),
            pauses: Mutex::default(),
        })
    }

    /// Starts a request; hand it to [`Http::send`].
    pub fn get(&self, url: &Url) -> RequestBuilder {
        self.client.get(url.clone())
    }

    /// Starts a request that posts something; hand it to [`Http::send`].
    pub fn post(&self, url: &Url) -> RequestBuilder {
        self.client.post(url.clone())
    }

    /// Sends a request, after any pause that its host asked for. Answers that only another attempt
    /// can improve (429, 5xx) are faults already; other statuses are the caller's to judge.
    pub fn send(&self, request: RequestBuilder) -> Attempt<Response> {
        let request = request
            .build()
            .map_err(|error| Fault::lasting("", root_cause(&error)))?;
        let host = host_of(request.url());
        self.wait_for(&host)?;
        let response = self
            .client
            .execute(request)
            .map_err(|error| self.unreachable(&host, &error))?;
        self.reached.store(true, Ordering::Relaxed);
        self.heed(&host, &response)?;
        Ok(response)
    }

    /// Runs `attempt` until it succeeds, cannot succeed, or patience ends. `what` completes
    /// "cannot fetch ...".
    pub fn patiently<T>(&self, what: &str, mut attempt: impl FnMut() -> Attempt<T>) -> Result<T> {
        let mut failures = 0;
        loop {
            let fault = match attempt() {
                Ok(value) => return Ok(value),
                Err(fault) => fault,
            };
            failures += 1;
            let wait = match fault.remedy {
                Remedy::Stopped => return Err(Error::Interrupted("stopped".into())),
                Remedy::Nothing => None,
                Remedy::Again | Remedy::After(_) => self.patience().wait_after(failures),
            };
            let Some(wait) = wait else {
                return Err(give_up(what, &fault, failures));
            };
            tracing::info!("{what}: {}: {}; trying again", fault.host, fault.cause);
            // A wait that the server asked for is kept by `send`, for all threads.
            if fault.remedy == Remedy::Again {
                self.sleep(wait)?;
            }
        }
    }

    /// Until anybody has answered, the address or the network is probably wrong, and a long wait
    /// would only hide it.
    fn patience(&self) -> Patience {
        let attempts = if self.reached.load(Ordering::Relaxed) {
            self.patience.attempts
        } else {
            self.patience.attempts.min(FIRST_ATTEMPTS)
        };
        Patience {
            attempts,
            ..self.patience
        }
    }

    /// The fault of a request without an answer.
    fn unreachable(&self, host: &str, error: &reqwest::Error) -> Fault {
        let cause = root_cause(error);
        if cause.contains("invalid peer certificate") {
            let hint = "if a proxy opens TLS here, give its authority with --ca-file";
            return Fault::lasting(host, format!("{cause}; {hint}"));
        }
        let via = self.via.as_ref().filter(|_| error.is_connect());
        let via = via.map_or_else(String::new, |via| format!(" (through the proxy of {via})"));
        Fault::passing(host, cause + &via)
    }

    /// Learns from an answer when its host wants the next request.
    fn heed(&self, host: &str, response: &Response) -> Attempt<()> {
        let status = response.status();
        let refused = is_passing(status);
        let pause = pause_asked(refused, response.headers(), Timestamp::now());
        if let Some(pause) = pause.filter(|pause| *pause <= LONGEST_PAUSE) {
            let mut pauses = self.pauses.lock().unwrap_or_else(PoisonError::into_inner);
            pauses.insert(host.to_owned(), Instant::now() + pause);
        }
        if !refused {
            return Ok(());
        }
        let fault = Fault::passing(host, format!("it answered {}", describe(status)));
        Err(match pause {
            Some(pause) if pause > LONGEST_PAUSE => Fault::lasting(
                host,
                format!(
                    "it answered {} and wants {} minutes of pause; try again then",
                    describe(status),
                    pause.as_secs().div_ceil(60)
                ),
            ),
            Some(pause) => Fault {
                remedy: Remedy::After(pause),
                ..fault
            },
            None => fault,
        })
    }

    /// Sits out the pause that a host asked for.
    fn wait_for(&self, host: &str) -> Attempt<()> {
        let until = {
            let pauses = self.pauses.lock().unwrap_or_else(PoisonError::into_inner);
            pauses.get(host).copied()
        };
        let Some(left) = until.map(|until| until.saturating_duration_since(Instant::now())) else {
            return Ok(());
        };
        if left > Duration::from_secs(5) {
            tracing::warn!("{host} asks for a pause of {} s", left.as_secs());
        }
        self.sleep(left).map_err(|_| Fault {
            remedy: Remedy::Stopped,
            ..Fault::lasting(host, "stopped")
        })
    }

    /// Sleeps, unless the operator wants to stop.
    fn sleep(&self, duration: Duration) -> Result<()> {
        let end = Instant::now() + duration;
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return Err(Error::Interrupted("stopped".into()));
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            thread::sleep(left.min(TICK));
        }
    }
}

/// The environment variable that names a proxy, if one does.
fn proxy_variable() -> Option<String> {
    [
        "HTTPS_PROXY",
        "https_proxy",
        "HTTP_PROXY",
        "http_proxy",
        "ALL_PROXY",
        "all_proxy",
    ]
    .into_iter()
    .find(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()))
    .map(str::to_owned)
}

/// Statuses that say "not now" rather than "no".
fn is_passing(status: StatusCode) -> bool {
    status.is_server_error() || matches!(status.as_u16(), 408 | 425 | 429)
}

/// `429 Too Many Requests`.
#[must_use]
pub fn describe(status: StatusCode) -> String {
    status.canonical_reason().map_or_else(
        || status.as_str().to_owned(),
        |reason| format!("{} {reason}", status.as_str()),
    )
}

fn give_up(what: &str, fault: &Fault, failures: u32) -> Error {
    let tries = match failures {
        1 => String::new(),
        n => format!(" (tried {n} times)"),
    };
    Error::Failed(format!(
        "cannot fetch {what} from {}: {}{tries}",
        fault.host, fault.cause
    ))
}

/// Reads a whole answer that is not large, or its first `limit` bytes.
pub fn read_all(response: Response, limit: u64) -> Attempt<Vec<u8>> {
    let host = host_of(response.url());
    let mut bytes = Vec::new();
    response
        .take(limit)
        .read_to_end(&mut bytes)
        .map_err(|error| Fault::passing(host, format!("it broke off: {}", root_cause(&error))))?;
    Ok(bytes)
}

/// A URL's host, with its port if that is unusual.
#[must_use]
pub fn host_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port()
        .map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// The innermost cause, which names the real trouble; the outer ones repeat the URL, whose
/// signature is nobody's business.
pub fn root_cause(error: &(dyn StdError + 'static)) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
