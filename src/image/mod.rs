//! Container images: where they come from, and the one archive form that every runtime loads.

pub mod archive;
mod config;
pub mod daemon;
pub mod directory;
mod entries;
mod facts;
pub mod hybrid;
mod layer;
mod layout;
pub mod registry;
mod scanner;
mod source;

pub use source::{Cut, HISTORY, ImageSource, Layer, Point, Promise, Sink, blob_label};
