//! Container images: where they come from, and the one archive form that every runtime loads.

pub mod archive;
pub mod daemon;
mod entries;
mod facts;
pub mod hybrid;
mod layout;
mod scanner;
mod source;

pub use source::{ImageSource, Layer, Promise, Sink, blob_label};
