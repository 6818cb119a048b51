//! From a spec to a bundle: sources, the ordered pipeline, resume.

pub mod selection;
pub mod spec;
