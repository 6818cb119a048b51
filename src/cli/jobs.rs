//! `--jobs` of the verbs that compute.

use super::output::cores;

/// How many threads compute.
#[derive(clap::Args)]
pub struct JobsArgs {
    /// Threads that code and hash [default: one per core].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    jobs: Option<u16>,
}

impl JobsArgs {
    /// The number that is meant.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.jobs.map_or_else(cores, usize::from)
    }
}
