//! Images straight from a registry, without a daemon. `docs/REGISTRY.md` tells what is asked of a
//! server, and why.

mod auth;
mod challenge;
mod client;
mod endpoint;
mod gunzip;
mod layers;
mod login;
mod name;
mod plain;
mod refusal;
mod resolve;
mod source;
mod turns;

pub use name::Name;
pub use source::{Options, RegistrySource};
