//! Recovery volumes: what of the volumes is lost or damaged is worked out again from the rest.
//!
//! All volumes one after the other, filled up with zeros, are cut into equal *data shards*.
//! Reed-Solomon makes *recovery shards* of them: any lost data shard costs one of these. A shard
//! is coded byte by byte, so work goes on in rows: the same few bytes of every shard. That bounds
//! the memory whatever the bundle's size, and changes no byte of the result.

mod encode;
mod files;
mod geometry;
mod rebuild;
mod share;

pub use encode::{encode, publish};
pub use files::{Files, Volumes};
pub use geometry::Geometry;
pub use rebuild::{Loss, rebuild};
pub use share::Share;

/// File name of a recovery volume, counted from 1.
#[must_use]
pub fn recovery_name(number: u32) -> String {
    format!("par-{number:04}.tar")
}
