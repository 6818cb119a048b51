//! SSH: hosts.txt, host keys, authentication and command channels.

mod fan_out;
pub mod hosts;

pub use fan_out::{MAX_PARALLEL, fan_out};
pub use hosts::{Hosts, Node};
