//! Tries TCP connections.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::ssh::fan_out;

/// How long one may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Connects to all of these at once, closing each immediately; why it cannot, where it cannot.
#[must_use]
pub fn dial(addresses: &[SocketAddr]) -> Vec<Option<String>> {
    fan_out(addresses, |address| {
        let connected = TcpStream::connect_timeout(address, TIMEOUT);
        let cause = connected.err()?;
        Some(format!("cannot connect to {address}: {cause}"))
    })
}
