//! Tries the connections that the relay chain needs, before anything is sent.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::agent::fleet::Member;
use crate::agent::protocol::{Answer, Request};
use crate::error::{Error, Result};
use crate::ssh::fan_out;

/// How long the origin's own connection may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The origin to the first node, then each node to its next: one result per node, about the
/// connection towards it.
#[must_use]
pub fn chain(members: &[Member], port: u16) -> Vec<Result<()>> {
    let ports = fan_out(members, |member| listen(member, port));
    let numbers: Vec<usize> = (0..members.len()).collect();
    let results = fan_out(&numbers, |&number| {
        let port = ports[number]
            .as_ref()
            .map_err(|error| Error::Failed(error.to_string()))?;
        let address = SocketAddr::new(members[number].address, *port);
        match number.checked_sub(1) {
            None => TcpStream::connect_timeout(&address, TIMEOUT)
                .map(drop)
                .map_err(|error| Error::Failed(format!("cannot connect to {address}: {error}"))),
            Some(before) => members[before].perform(Request::Dial { address }),
        }
    });
    // The ports were opened for this only; a node that cannot answer is missed later anyway.
    fan_out(members, |member| member.perform(Request::Leave).is_ok());
    results
}

fn listen(member: &Member, port: u16) -> Result<u16> {
    match member.link.call(Request::Listen { port })? {
        Answer::Listening { port, .. } => Ok(port),
        _ => Err(member.link.unexpected()),
    }
}
