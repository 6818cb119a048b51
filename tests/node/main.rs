//! The far side, on real files and real processes: the store of a node, and `bundle agent`.

#![cfg(test)]

mod process;
mod store;

#[path = "../support/bundles.rs"]
mod bundles;
