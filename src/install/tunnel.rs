//! A way through ssh from one machine to a node's data port: two ends of a tunnel, joined here.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr};
use std::os::unix::net::UnixStream;
use std::thread;

use crate::agent::fleet::Member;
use crate::agent::tunnel::{enter, leave, loopback};
use crate::error::{Error, Result};

/// Bytes that are moved at once.
const BUFFER: usize = 256 << 10;

/// An open tunnel; it ends, with its commands on the nodes, when this is dropped.
pub struct Tunnel {
    /// Where the machine that feeds finds the other's data port.
    pub entry: SocketAddr,
    ends: [UnixStream; 2],
}

/// How a tunnel reaches the data port.
pub enum Exit<'a> {
    /// Straight from this machine, which can.
    Here(SocketAddr),
    /// From the node itself, whose data port has this number.
    Node(&'a Member, u16),
}

impl Tunnel {
    /// Opens one with its entry on a node, or on this machine.
    pub fn open(entry: Option<&Member>, exit: &Exit) -> Result<Self> {
        let (near, port) = match entry {
            Some(member) => member.place.tunnel("--tunnel-entry")?,
            None => entry_here()?,
        };
        let far = match exit {
            Exit::Here(address) => exit_here(*address)?,
            Exit::Node(member, port) => {
                let address = SocketAddr::from((Ipv4Addr::LOCALHOST, *port));
                let exit = format!("--tunnel-exit {address}");
                member.place.tunnel(&exit)?.0
            }
        };
        let ends = [near, far];
        for (from, to) in [(&ends[0], &ends[1]), (&ends[1], &ends[0])] {
            let (from, to) = (copy(from)?, copy(to)?);
            start(move || pass_on(&from, &to))?;
        }
        Ok(Self {
            entry: (Ipv4Addr::LOCALHOST, port).into(),
            ends,
        })
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        for end in &self.ends {
            // It may have ended by itself.
            let _ = end.shutdown(Shutdown::Both);
        }
    }
}

fn entry_here() -> Result<(UnixStream, u16)> {
    let (listener, address) = loopback()?;
    let (near, far) = UnixStream::pair().map_err(|cause| no_tunnel(&cause))?;
    let output = copy(&far)?;
    start(move || drop(enter(listener, far, output, || ())))?;
    Ok((near, address.port()))
}

fn exit_here(address: SocketAddr) -> Result<UnixStream> {
    let (near, far) = UnixStream::pair().map_err(|cause| no_tunnel(&cause))?;
    let output = copy(&far)?;
    start(move || drop(leave(address, far, output, || ())))?;
    Ok(near)
}

/// Until either end is gone; then neither is of use.
fn pass_on(mut from: &UnixStream, mut to: &UnixStream) {
    let mut buffer = vec![0; BUFFER];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    for end in [from, to] {
        let _ = end.shutdown(Shutdown::Both);
    }
}

fn copy(stream: &UnixStream) -> Result<UnixStream> {
    stream.try_clone().map_err(|cause| no_tunnel(&cause))
}

fn start(work: impl FnOnce() + Send + 'static) -> Result<()> {
    let started = thread::Builder::new().name("tunnel".into()).spawn(work);
    started.map(drop).map_err(|cause| no_tunnel(&cause))
}

fn no_tunnel(cause: &io::Error) -> Error {
    Error::Failed(format!("cannot open a way through ssh: {cause}"))
}
