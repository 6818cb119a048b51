//! `bundle repair`: rebuilds what is lost or damaged.

use std::fmt::Write as _;
use std::path::PathBuf;

use super::jobs::JobsArgs;
use super::output::print;
use super::progress::Meter;
use super::trust::TrustArgs;
use crate::fs::create_dir_all;
use crate::verify::{Repaired, repair};

/// Arguments of `bundle repair`.
#[derive(clap::Args)]
pub struct Args {
    /// The bundle; by default the one here. Several directories when its volumes are on several
    /// media.
    path: Vec<PathBuf>,
    /// Where rebuilt volumes go [default: beside the damaged ones, which are kept as
    /// NAME.damaged].
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    #[command(flatten)]
    jobs: JobsArgs,
    #[command(flatten)]
    trust: TrustArgs,
}

/// Runs `bundle repair`.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let media = args.trust.open(&args.path)?;
    if let Some(dir) = &args.output {
        create_dir_all(dir)?;
    }
    let meter = Meter::new("repairing", media.manifest().volume_size());
    let jobs = args.jobs.threads();
    let repaired = repair(&media, args.output.as_deref(), jobs, &|done| {
        meter.set(done);
    })?;
    drop(meter);
    print(&describe(&repaired, args))
}

fn describe(repaired: &Repaired, args: &Args) -> String {
    if repaired.rebuilt.is_empty() {
        return "all volumes are intact; there is nothing to repair".into();
    }
    let list = |paths: &[PathBuf]| {
        let lines = paths.iter().map(|path| format!("\n  {}", path.display()));
        lines.collect::<String>()
    };
    let mut text = format!(
        "rebuilt, with the right SHA-256:{}\n",
        list(&repaired.rebuilt)
    );
    if !repaired.kept.is_empty() {
        let _ = writeln!(
            text,
            "damaged, to be removed when you no longer need them:{}",
            list(&repaired.kept)
        );
    }
    if let Some(dir) = &args.output {
        let _ = writeln!(
            text,
            "name {} first from now on: bundle verify {0} BUNDLE",
            dir.display()
        );
    }
    text
}
