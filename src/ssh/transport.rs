//! The byte stream below SSH: TCP, or a local ssh client that jumps over other hosts.

use std::fs::File;
use std::io::{self, Seek as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::os::fd::{AsFd as _, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use super::settings::Settings;
use crate::error::{Error, Result};

/// For one TCP connection, per address of the host.
const CONNECT: Duration = Duration::from_secs(10);

/// An open stream to an SSH server.
pub(super) struct Transport {
    socket: OwnedFd,
    /// The ssh client at the other end of the socket, and what it says on standard error.
    jump: Option<(Child, File)>,
}

/// How a local ssh client treats the hosts that it jumps over.
pub(super) struct JumpTrust<'a> {
    /// Instead of its configured `known_hosts`.
    pub known_hosts: Option<&'a Path>,
    /// Whether new hosts are accepted.
    pub accept_new: bool,
}

impl Transport {
    /// Opens the stream that the settings describe.
    pub fn open(settings: &Settings, trust: &JumpTrust) -> Result<Self> {
        match &settings.jump {
            Some(jump) => through(jump, settings, trust),
            None => Ok(Self {
                socket: connect(&settings.host, settings.port)?.into(),
                jump: None,
            }),
        }
    }

    /// Another handle of the socket, to wait for it.
    pub fn handle(&self) -> Result<OwnedFd> {
        self.socket
            .as_fd()
            .try_clone_to_owned()
            .map_err(|cause| no_handle(&cause))
    }

    /// Where the ssh client in between writes its complaints.
    pub fn complaints(&self) -> Result<Option<Complaints>> {
        let log = self.jump.as_ref().map(|(_, log)| log.try_clone());
        Ok(log
            .transpose()
            .map_err(|cause| no_handle(&cause))?
            .map(Complaints))
    }
}

impl AsRawFd for Transport {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl Drop for Transport {
    fn drop(&mut self) {
        if let Some((child, _)) = &mut self.jump {
            // It may have ended by itself; either way it is gone after `wait`.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Standard error of the ssh client in between.
pub(super) struct Complaints(File);

impl Complaints {
    /// All that was written so far, on one line.
    pub fn read(mut self) -> String {
        let text = self.0.rewind().and_then(|()| io::read_to_string(self.0));
        let text = text.unwrap_or_default();
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

fn no_handle(cause: &io::Error) -> Error {
    Error::Failed(format!(
        "no file handle is left ({cause}); raise the limit with `ulimit -n`"
    ))
}

/// Tries every address of the host.
fn connect(host: &str, port: u16) -> Result<TcpStream> {
    let addresses = (host, port).to_socket_addrs().map_err(|cause| {
        Error::Failed(format!(
            "the name {host} has no address here ({cause}); write the IP address in hosts.txt"
        ))
    })?;
    let mut failure = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in addresses {
        match TcpStream::connect_timeout(&address, CONNECT) {
            Ok(stream) => {
                // Calls are small; waiting to fill packets would delay each.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Err(cause) => failure = cause,
        }
    }
    Err(Error::Failed(connect_failure(&failure, port)))
}

/// The sentence for a failed connection.
fn connect_failure(cause: &io::Error, port: u16) -> String {
    match cause.kind() {
        io::ErrorKind::ConnectionRefused => format!(
            "nothing listens on port {port}; start sshd there, or give its port with port= in hosts.txt"
        ),
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => format!(
            "no answer on port {port} within {} s; is the node up, and does a firewall drop the port?",
            CONNECT.as_secs()
        ),
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            format!("the node cannot be reached ({cause}); check its address, cable and routing")
        }
        _ => format!("cannot connect to port {port}: {cause}"),
    }
}

/// Starts `ssh -W` on this machine: it knows how to log in on the hosts in between.
fn through(jump: &str, settings: &Settings, trust: &JumpTrust) -> Result<Transport> {
    let failed =
        |cause: io::Error| Error::Failed(format!("cannot start ssh to jump over {jump}: {cause}"));
    let (near, far) = UnixStream::pair().map_err(failed)?;
    let far = OwnedFd::from(far);
    let log = tempfile::tempfile().map_err(failed)?;
    let child = Command::new("ssh")
        .args(jump_arguments(jump, settings, trust))
        .stdin(far.try_clone().map_err(failed)?)
        .stdout(far)
        .stderr(log.try_clone().map_err(failed)?)
        .spawn()
        .map_err(failed)?;
    Ok(Transport {
        socket: near.into(),
        jump: Some((child, log)),
    })
}

/// `JUMP` may name several hosts, the last of which connects to the node.
fn jump_arguments(jump: &str, settings: &Settings, trust: &JumpTrust) -> Vec<String> {
    let checking = if trust.accept_new {
        "accept-new"
    } else {
        "yes"
    };
    let mut arguments = vec![
        "-oBatchMode=yes".to_owned(),
        format!("-oConnectTimeout={}", CONNECT.as_secs()),
        format!("-oStrictHostKeyChecking={checking}"),
    ];
    if let Some(file) = trust.known_hosts {
        arguments.push(format!("-oUserKnownHostsFile={}", file.display()));
    }
    let (before, last) = match jump.rsplit_once(',') {
        Some((before, last)) => (Some(before), last),
        None => (None, jump),
    };
    if let Some(before) = before {
        arguments.push(format!("-J{before}"));
    }
    arguments.push(format!("-W[{}]:{}", settings.host, settings.port));
    arguments.push("--".to_owned());
    // With a port, only the URI form is understood as a destination.
    arguments.push(if last.contains("://") {
        last.to_owned()
    } else {
        format!("ssh://{last}")
    });
    arguments
}
