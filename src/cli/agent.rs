//! `bundle agent`: the far side of install, started over ssh; not for people.

use std::io;
use std::path::PathBuf;

use crate::agent::serve::serve;

/// What `bundle agent` takes.
#[derive(clap::Args)]
pub struct Args {
    /// The node's `/`, where several nodes share a machine.
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
}

/// Serves calls from standard input until it ends.
pub fn run(args: &Args) -> anyhow::Result<()> {
    Ok(serve(io::stdin().lock(), io::stdout(), &args.root)?)
}
