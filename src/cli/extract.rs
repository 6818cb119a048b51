//! `bundle extract`: models and images as plain files, without ssh or docker.

use std::path::PathBuf;

use super::jobs::JobsArgs;
use super::output::print;
use super::progress::Meter;
use super::trust::TrustArgs;
use crate::error::Error;
use crate::verify::extract;

/// Arguments of `bundle extract`.
#[derive(clap::Args)]
pub struct Args {
    /// The bundle; by default the one here. Several directories when its volumes are on several
    /// media.
    path: Vec<PathBuf>,
    /// Where to unpack.
    #[arg(short = 'C', long, value_name = "DIR", default_value = ".")]
    directory: PathBuf,
    #[command(flatten)]
    jobs: JobsArgs,
    #[command(flatten)]
    trust: TrustArgs,
}

/// Runs `bundle extract`.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let media = args.trust.open(&args.path)?;
    let meter = Meter::new("extracting", media.manifest().raw_size());
    let jobs = args.jobs.threads();
    let extracted = extract(&media, &args.directory, jobs, &|done| meter.set(done))?;
    drop(meter);
    print(&format!(
        "{}: {} files written, {} were there already",
        args.directory.display(),
        extracted.written,
        extracted.kept
    ))?;
    if extracted.failed.is_empty() {
        return Ok(());
    }
    let lines: Vec<String> = extracted.failed.iter().map(ToString::to_string).collect();
    Err(Error::Damaged(format!(
        "{} files could not be unpacked:\n  {}",
        lines.len(),
        lines.join("\n  ")
    ))
    .into())
}
