//! The Hugging Face hub and its mirrors, as a source of files of which any range can be read at
//! any time. `docs/HUB.md` tells what is asked of a server, and why.

mod client;
mod endpoint;
mod listing;
mod read;
mod refusal;
mod repository;
mod token;

pub use client::{Client, Options};
pub use endpoint::Endpoint;
pub use repository::{Expected, RemoteFile, Repository};
pub use token::Token;
