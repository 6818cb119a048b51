//! `bundle inspect`: what a bundle holds, for people or scripts.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::locate::bundle_dir;
use super::output::{print, print_json, size, table};
use crate::bundle::MANIFEST_NAME;
use crate::bundle::manifest::{Image, Manifest, Model};
use crate::fs::read_limited;

/// A manifest of 100 TB has about this size; anything larger is something else.
const MAX_MANIFEST: u64 = 4 << 30;

/// Arguments of `bundle inspect`.
#[derive(clap::Args)]
pub struct Args {
    /// The bundle; by default the one here.
    path: Option<PathBuf>,
    /// Print the manifest as JSON.
    #[arg(long)]
    json: bool,
}

/// Runs `bundle inspect`.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let dir = bundle_dir(args.path.as_deref(), Path::new("."))?;
    let manifest = Manifest::parse(&read_limited(&dir.join(MANIFEST_NAME), MAX_MANIFEST)?)?;
    if args.json {
        print_json(&manifest)
    } else {
        print(&describe(&manifest))
    }
}

fn describe(manifest: &Manifest) -> String {
    let mut text = format!("bundle {}\n", manifest.name);
    for model in &manifest.models {
        text += &describe_model(model);
    }
    for image in &manifest.images {
        text += &describe_image(image);
    }
    let (raw, stored) = (manifest.raw_size(), manifest.stored_size());
    let percent = (stored * 100).checked_div(raw).unwrap_or(100);
    let _ = write!(
        text,
        "\n{} unpacked, {} stored ({percent} %), {} chunks\n\n",
        size(raw),
        size(stored),
        manifest.chunks.len()
    );
    let mut rows = vec![["volume", "size", "sha256"].map(String::from).to_vec()];
    rows.extend(manifest.volumes.iter().map(|volume| {
        vec![
            volume.name.clone(),
            size(volume.size),
            volume.sha256.to_string(),
        ]
    }));
    text + &table(&rows)
}

fn describe_model(model: &Model) -> String {
    let bytes = model.files.iter().map(|file| file.size).sum();
    let source = match &model.commit {
        Some(commit) => format!("{} at {commit}", model.revision),
        None => "a local directory".to_owned(),
    };
    format!(
        "\nmodel {}\n  from  {source}\n  to    {} on every node\n  files {}, {}\n",
        model.repo,
        model.path,
        model.files.len(),
        size(bytes)
    )
}

fn describe_image(image: &Image) -> String {
    let bytes = image.files.iter().map(|file| file.size).sum();
    let version = |found: &Option<String>| found.clone().unwrap_or_else(|| "none found".into());
    format!(
        "\nimage {}\n  id    sha256:{}\n  for   {}\n  size  {} in {} layers\n  vLLM  {}\n  Ray   {}\n  CUDA  {}\n",
        image.reference,
        image.config,
        image.platform,
        size(bytes),
        image.layers.len(),
        version(&image.facts.vllm),
        version(&image.facts.ray),
        version(&image.facts.cuda),
    )
}
