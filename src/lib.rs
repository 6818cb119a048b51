//! **bundle** carries a large language model and the container image that serves it across an
//! air gap, and brings them up as one cluster on the other side.
//!
//! Layers, top to bottom: `cli` -> `pack`, `verify`, `install`, `cluster` -> `agent` -> `hub`,
//! `image`, `ssh`, `relay` -> `bundle` -> `digest`, `path`, `fs`, `nss`, `http`, `parallel`,
//! `error`. A module uses only modules below its own row; `tests/layers.rs` keeps it so.

pub mod agent;
pub mod bundle;
pub mod cli;
pub mod cluster;
pub mod digest;
pub mod error;
pub mod fs;
pub mod http;
pub mod hub;
pub mod image;
pub mod install;
pub mod nss;
pub mod pack;
pub mod parallel;
pub mod path;
pub mod relay;
pub mod ssh;
pub mod verify;

#[cfg(test)]
#[path = "../tests/support/weights.rs"]
mod weights;
