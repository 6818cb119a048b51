//! The bundle format as a whole: real bundles on disk, read, verified, damaged and unpacked.

#![cfg(test)]

#[path = "../support/bundles.rs"]
mod bundles;
#[path = "../support/three_volumes.rs"]
mod three_volumes;
#[path = "../support/weights.rs"]
mod weights;

mod extract;
mod hostile;
mod media;
mod parity;
mod python;
mod verify;
