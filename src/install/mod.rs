//! From a bundle to every node: preflight, rounds of distribution, publishing.

pub mod chain;
pub mod preflight;
pub mod space;
