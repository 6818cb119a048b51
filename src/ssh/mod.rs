//! SSH: hosts.txt, host keys, authentication and command channels.
//!
//! [`Connector`] opens a [`Session`] to a node of [`Hosts`]; a session runs commands and copies
//! files. Names, ports, keys and jump hosts come from `hosts.txt` and the user's ssh configuration.

mod auth;
mod conduit;
mod connector;
mod fan_out;
pub mod hosts;
mod key_file;
pub mod known_hosts;
mod pump;
mod quote;
mod secrets;
pub mod session;
mod settings;
mod transport;

pub use connector::Connector;
pub use fan_out::{MAX_PARALLEL, fan_out};
pub use hosts::{Hosts, Node};
pub use quote::{quote, quote_for_people};
pub use secrets::{NoPrompt, Prompt};
pub use session::{Exit, Output, Session};
