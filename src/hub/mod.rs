//! The Hugging Face hub, its mirrors, and ModelScope, as sources of files of which any range can be
//! read at any time. `docs/HUB.md` tells what is asked of a server, and why.

mod client;
mod endpoint;
mod huggingface;
mod listing;
mod modelscope;
mod read;
mod refusal;
mod repository;
mod source;
mod token;

pub use client::{Client, Options};
pub use endpoint::Endpoint;
pub use repository::{Expected, RemoteFile, Repository};
pub use source::Source;
pub use token::Token;
