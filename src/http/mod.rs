//! HTTP for everything that is fetched: TLS roots, proxies, ranged reads, rate limits, and
//! patience with servers that fail for a while. It never follows a redirect by itself, because
//! only the caller knows which host may see a token.

mod client;
mod fault;
mod limits;
mod patience;
mod range;
mod tls;

pub use client::{Http, Options, describe, host_of};
pub use fault::{Attempt, Fault, Remedy};
pub use patience::Patience;
pub use range::{Span, read_span};
