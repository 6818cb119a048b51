//! HTTP for everything that is fetched: TLS roots, proxies, ranged reads, rate limits, and
//! patience with servers that fail for a while. It never follows a redirect by itself, because
//! only the caller knows which host may see a token.

mod base;
mod client;
mod fault;
mod limits;
mod patience;
mod range;
mod redirect;
mod tls;

pub use base::{base_url, below};
pub use client::{Http, Options, describe, host_of, read_all};
pub use fault::{Attempt, Fault, Remedy};
pub use patience::Patience;
pub use range::{Body, Span, read_span};
pub use redirect::{Direct, MAX_HOPS, redirect_target};
