//! Container images: where they come from, and the one archive form that every runtime loads.

mod source;

pub use source::{ImageSource, Sink};
