//! The command line: a file per verb with its `Args` and `run`. Nothing else prints.
//!
//! Results go to standard output, everything else (progress, advice, errors) to standard error.
//! Exit codes are those of [`Error::exit_code`]; a wrong command line is 2.

use std::io;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::error::Error;

mod agent;
mod check;
mod extract;
mod generations;
mod inspect;
mod install;
mod jobs;
mod locate;
mod logs;
mod nodes;
pub mod output;
mod pack;
mod plan;
pub mod progress;
mod repair;
mod sheet;
mod shell;
mod status;
mod support;
mod target;
mod terminal;
mod trust;
mod up;
mod verify;

/// Carries a large language model and the image that serves it across an air gap, and brings
/// them up as one cluster on the other side.
#[derive(Parser)]
#[command(version, arg_required_else_help = true, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Fetch models and image and pack them into a bundle.
    Pack(pack::Args),
    /// Prove that a bundle is complete and intact.
    Verify(verify::Args),
    /// Rebuild what is lost or damaged from the recovery volumes.
    Repair(repair::Args),
    /// Say whether the nodes can take a bundle.
    Check(check::Args),
    /// Bring a bundle to every node, start it, and prove that it answers.
    Install(install::Args),
    /// Say what runs where, and whether it answers.
    Status(status::Args),
    /// Print what the containers say, of all nodes in the order of time.
    Logs(logs::Args),
    /// Collect what somebody outside needs to help, without secrets.
    Support(support::Args),
    /// Say whether the model fits the GPUs, and what is left for requests.
    Plan(plan::Args),
    /// Start what is installed.
    Up(up::UpArgs),
    /// Stop it and start it again.
    Restart(up::RestartArgs),
    /// Stop it.
    Down(up::DownArgs),
    /// Go back to what was installed before.
    Rollback(generations::RollbackArgs),
    /// Remove what was installed before.
    Prune(generations::PruneArgs),
    /// Unpack models and images into a directory.
    Extract(extract::Args),
    /// Say what a bundle holds.
    Inspect(inspect::Args),
    /// Make a key pair to sign bundles with.
    Keygen(trust::KeygenArgs),
    /// Print a completion script for a shell.
    Completions(shell::CompletionArgs),
    /// Write the manual pages.
    #[command(hide = true)]
    Man(shell::ManArgs),
    /// Serve an origin's calls on standard input and output.
    #[command(hide = true)]
    Agent(agent::Args),
}

/// Parses the command line, runs the verb, and turns its error into a sentence and an exit code.
#[must_use]
pub fn main() -> ExitCode {
    let result = match Cli::parse().verb {
        Verb::Pack(args) => pack::run(&args),
        Verb::Verify(args) => verify::run(&args),
        Verb::Repair(args) => repair::run(&args),
        Verb::Check(args) => check::run(&args),
        Verb::Install(args) => install::run(&args),
        Verb::Status(args) => status::run(&args),
        Verb::Logs(args) => logs::run(&args),
        Verb::Support(args) => support::run(&args),
        Verb::Plan(args) => plan::run(&args),
        Verb::Up(args) => up::up(&args),
        Verb::Restart(args) => up::restart(&args),
        Verb::Down(args) => up::down(&args),
        Verb::Rollback(args) => generations::rollback(&args),
        Verb::Prune(args) => generations::prune(&args),
        Verb::Extract(args) => extract::run(&args),
        Verb::Inspect(args) => inspect::run(&args),
        Verb::Keygen(args) => trust::keygen(&args),
        Verb::Completions(args) => shell::completions(&args),
        Verb::Man(args) => shell::man(&args),
        Verb::Agent(args) => agent::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            output::error(&format!("{error:#}"));
            ExitCode::from(exit_code(&error))
        }
    }
}

/// The code of the library's error in the chain, or 1.
fn exit_code(error: &anyhow::Error) -> u8 {
    error
        .chain()
        .find_map(|cause| cause.downcast_ref::<Error>())
        .map_or(1, Error::exit_code)
}

/// `bundle inspect | head` is no failure.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_verb_and_argument_is_explained() {
        for verb in Cli::command().get_subcommands() {
            assert!(verb.get_about().is_some(), "{}", verb.get_name());
            for argument in verb.get_arguments() {
                let name = argument.get_id();
                assert!(argument.get_help().is_some(), "{} {name}", verb.get_name());
            }
        }
    }

    #[test]
    fn exit_codes_survive_context() {
        let error = anyhow::Error::new(Error::Damaged("x".into())).context("while reading y");
        assert_eq!(exit_code(&error), 10);
        assert_eq!(exit_code(&anyhow::anyhow!("no idea")), 1);
    }
}
