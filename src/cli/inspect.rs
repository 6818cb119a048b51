//! `bundle inspect`: what a bundle holds, for people or scripts.

use std::fmt::Write as _;
use std::path::PathBuf;

use super::locate::media;
use super::output::{print, print_json, size, table};
use super::sheet::{Provenance, render};
use super::trust::TrustArgs;
use crate::bundle::manifest::{Extra, Image, Manifest, Model};
use crate::bundle::media::Media;
use crate::bundle::small_file;
use crate::digest::Sha256;
use crate::error::{Result, names_of};
use crate::fs::write_atomic;
use crate::pack::selection::{is_code, is_pickle};

/// Arguments of `bundle inspect`.
#[derive(clap::Args)]
pub struct Args {
    /// The bundle; by default the one here.
    path: Option<PathBuf>,
    /// Print the manifest as JSON.
    #[arg(long)]
    json: bool,
    /// Write a page for a security officer to sign: all that the bundle holds.
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    html: Option<PathBuf>,
    #[command(flatten)]
    trust: TrustArgs,
}

/// Runs `bundle inspect`.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let media = media(args.path.as_slice())?;
    if let Some(file) = &args.html {
        write_atomic(
            file,
            render(
                media.manifest(),
                &provenance(&media, args.trust.check(&media)?)?,
            )
            .as_bytes(),
        )?;
        return print(&format!("wrote {}", file.display()));
    }
    if args.json {
        print_json(media.manifest())
    } else {
        print(&describe(media.manifest()))
    }
}

/// What the sheet tells besides the manifest.
fn provenance(media: &Media, signer: Option<PathBuf>) -> Result<Provenance> {
    let models = &media.manifest().models;
    Ok(Provenance {
        manifest: Sha256::of(media.manifest_bytes()),
        licences: models
            .iter()
            .map(|model| licence(media, model))
            .collect::<Result<_>>()?,
        signer: signer.map(|key| key.display().to_string()),
    })
}

/// The licence in the front matter of a model's README, where the hub has it from.
fn licence(media: &Media, model: &Model) -> Result<Option<String>> {
    let readme = model
        .files
        .iter()
        .find(|file| file.path.as_str() == "README.md");
    let Some(readme) =
        readme.filter(|file| file.chunks.iter().all(|&chunk| media.has_chunk(chunk)))
    else {
        return Ok(None);
    };
    let text = String::from_utf8_lossy(&small_file::read(media, readme)?).into_owned();
    Ok(licence_in(&text))
}

fn licence_in(readme: &str) -> Option<String> {
    let matter = readme.strip_prefix("---")?.split("\n---").next()?;
    let value = |line: &str| {
        Some(
            line.strip_prefix("license:")?
                .trim()
                .trim_matches(['"', '\''])
                .to_owned(),
        )
    };
    matter
        .lines()
        .find_map(value)
        .filter(|licence| !licence.is_empty())
}

fn describe(manifest: &Manifest) -> String {
    let mut text = format!("bundle {}, serial {}\n", manifest.name, manifest.serial);
    if let Some(base) = &manifest.base {
        let _ = writeln!(text, "builds on {base}, bundle.json {}", base.sha256);
    }
    for model in &manifest.models {
        text += &describe_model(model);
    }
    for image in &manifest.images {
        text += &describe_image(image);
    }
    for extra in &manifest.extras {
        text += &describe_extra(extra);
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
    if let Some(parity) = &manifest.parity {
        let _ = write!(
            text,
            "recovery volumes: any {} of {} shards of {} can be rebuilt\n\n",
            parity.recovery.len(),
            parity.data.len(),
            size(parity.shard)
        );
    }
    let mut rows = vec![["volume", "size", "sha256"].map(String::from).to_vec()];
    let volumes = manifest.volumes.iter().chain(manifest.recovery_volumes());
    rows.extend(volumes.map(|volume| {
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
        "\nmodel {}\n  from  {source}\n  to    {} on every node\n  files {}, {}\n  code  {}\n",
        model.repo,
        model.path,
        model.files.len(),
        size(bytes),
        match &files_with_code(model)[..] {
            [] => "none".to_owned(),
            names => names_of(names),
        }
    )
}

/// Files that are code, or can run some when they are loaded.
pub fn files_with_code(model: &Model) -> Vec<&str> {
    let names = model.files.iter().map(|file| file.path.as_str());
    names
        .filter(|path| is_code(path) || is_pickle(path))
        .collect()
}

fn describe_extra(extra: &Extra) -> String {
    let bytes = extra.files.iter().map(|file| file.size).sum();
    let mut text = format!(
        "\nfiles\n  to    {} on every node\n  files {}, {}\n",
        extra.path,
        extra.files.len(),
        size(bytes)
    );
    if !extra.executable.is_empty() {
        let _ = writeln!(text, "  executable {}", extra.executable.len());
    }
    text
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn licences_stand_in_the_front_matter() {
        let cases = [
            ("---\nlicense: mit\ntags:\n- x\n---\n# M", Some("mit")),
            (
                "---\ntags:\n- x\nlicense: \"apache-2.0\"\n---\n",
                Some("apache-2.0"),
            ),
            ("---\ntags:\n- x\n---\nlicense: mit\n", None),
            ("# M\nlicense: mit\n", None),
        ];
        for (readme, licence) in cases {
            assert_eq!(licence_in(readme).as_deref(), licence, "{readme}");
        }
    }
}
