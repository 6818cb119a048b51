//! `bundle agent`: the far side of install, started over ssh; not for people.

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process;

use crate::agent::serve::serve;
use crate::agent::start::Executable;
use crate::agent::tunnel;
use crate::digest::Sha256;
use crate::error::Error;

/// What `bundle agent` takes.
#[derive(clap::Args)]
pub struct Args {
    /// The node's `/`, where several nodes share a machine.
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
    /// Be the entry of a tunnel: carry connections to a loopback port over standard output.
    #[arg(long)]
    tunnel_entry: bool,
    /// Be the exit of a tunnel: carry the entry's connections on to this address.
    #[arg(long, value_name = "ADDRESS", conflicts_with = "tunnel_entry")]
    tunnel_exit: Option<SocketAddr>,
    /// Only say whether this executable has the SHA-256.
    #[arg(long, value_name = "SHA256")]
    is: Option<Sha256>,
}

/// Serves calls from standard input until it ends.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let give_up = || process::exit(1);
    if let Some(sha256) = args.is {
        let is_it = Executable::this()?.is(sha256);
        let other = || Error::Damaged("this executable is another one, or damaged".into());
        return Ok(is_it.then_some(()).ok_or_else(other)?);
    }
    if args.tunnel_entry {
        let (listener, address) = tunnel::loopback()?;
        greet(address.port())?;
        return Ok(tunnel::enter(listener, io::stdin(), io::stdout(), give_up)?);
    }
    if let Some(address) = args.tunnel_exit {
        greet(0)?;
        return Ok(tunnel::leave(address, io::stdin(), io::stdout(), give_up)?);
    }
    Ok(serve(io::stdin().lock(), io::stdout(), &args.root)?)
}

fn greet(port: u16) -> io::Result<()> {
    let mut output = io::stdout();
    writeln!(output, "{}{port}", tunnel::GREETING)?;
    output.flush()
}
