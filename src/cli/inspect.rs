//! `bundle inspect`: what a bundle holds, for people or scripts.

use std::fmt::Write as _;
use std::path::PathBuf;

use super::locate::media;
use super::output::{print, print_json, size, table};
use crate::bundle::manifest::{Image, Manifest, Model};

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
    let media = media(args.path.as_slice())?;
    if args.json {
        print_json(media.manifest())
    } else {
        print(&describe(media.manifest()))
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
