//! `bundle completions` and `bundle man`: for the shell and the manual, made from the command
//! line's own definition.

use std::path::PathBuf;

use clap::CommandFactory as _;
use clap_complete::Shell;

use super::Cli;
use super::output::print;
use crate::error::Error;
use crate::fs::create_dir_all;

/// Arguments of `bundle completions`.
#[derive(clap::Args)]
pub struct CompletionArgs {
    /// Which shell.
    shell: Shell,
}

/// Arguments of `bundle man`.
#[derive(clap::Args)]
pub struct ManArgs {
    /// Where the pages go: bundle.1, bundle-pack.1, ...
    dir: PathBuf,
}

/// Runs `bundle completions`.
pub fn completions(args: &CompletionArgs) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "bundle", &mut script);
    print(&String::from_utf8_lossy(&script))
}

/// Runs `bundle man`.
pub fn man(args: &ManArgs) -> anyhow::Result<()> {
    create_dir_all(&args.dir)?;
    clap_mangen::generate_to(Cli::command(), &args.dir)
        .map_err(Error::io("write manual pages to", &args.dir))?;
    Ok(())
}
