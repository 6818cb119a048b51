//! `bundle pack --only`: the fill volumes that a request asks for.

use std::path::{Path, PathBuf};

use super::Args;
use crate::cli::locate::media;
use crate::cli::output::print;
use crate::error::Error;

/// Packs them. What is lost here too is told behind what could be packed.
pub fn fill(args: &Args, request: &Path, dirs: &[PathBuf]) -> anyhow::Result<()> {
    let out = args.output.as_deref().unwrap_or(Path::new("."));
    let filled = crate::pack::fill::write(&media(dirs)?, request, out, args.volume_size)?;
    if let [first, ..] = &filled.volumes[..] {
        print(&format!(
            "packed {} chunks in {} volumes, from {} on\ncarry them across and put them beside the volumes",
            filled.chunks,
            filled.volumes.len(),
            out.join(&first.name).display()
        ))?;
    }
    if filled.faults.is_empty() {
        return Ok(());
    }
    let faults: Vec<&str> = filled.faults.values().map(String::as_str).collect();
    Err(Error::Damaged(format!(
        "{} of the chunks asked for cannot be had here either:\n  {}\nname the directory that has them, or pack the bundle again",
        filled.lacking,
        faults.join("\n  ")
    ))
    .into())
}
