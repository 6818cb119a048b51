//! Images out of a tar stream, in one pass: `docker save` of 20.10 and of 25 and later, podman's
//! archives, OCI layouts.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::entries::{Kind, kind_of, name_of};
use super::facts::{Watch, combine};
use super::layout::{Layout, Metadata, find, platform_of};
use super::{ImageSource, Sink};
use crate::bundle::manifest::{Image, LayerFacts};
use crate::digest::Sha256;
use crate::error::{Error, Result};
use crate::path::RelPath;

/// Which image is wished for.
#[derive(Clone, Debug)]
pub struct ImageWish {
    /// The tag that it gets on the nodes; it also chooses among several images of an archive.
    pub reference: String,
    /// `linux/amd64`.
    pub platform: String,
}

/// Bytes that are passed on at once.
const PIECE: usize = 1 << 20;

/// A tar file on disk.
pub struct TarSource {
    path: PathBuf,
    wish: ImageWish,
    size: u64,
}

impl TarSource {
    /// Opens the file's metadata only.
    pub fn new(path: &Path, wish: ImageWish) -> Result<Self> {
        let size = path.metadata().map_err(Error::io("read", path))?.len();
        Ok(Self {
            path: path.to_owned(),
            wish,
            size,
        })
    }

    fn open(&self) -> Result<File> {
        File::open(&self.path).map_err(Error::io("open", &self.path))
    }
}

impl ImageSource for TarSource {
    fn size(&self) -> u64 {
        self.size
    }

    /// Reads the archive's index first, so that of several images only the wished one is packed.
    fn stream(&mut self, sink: &mut dyn Sink) -> Result<Image> {
        let at = |error: Error| error.at(self.path.display());
        let wanted = wanted(&self.open()?, &self.wish).map_err(at)?;
        stream(
            BufReader::with_capacity(PIECE, self.open()?),
            Some(&wanted),
            &self.wish,
            sink,
        )
        .map_err(at)
    }
}

/// What streaming past has shown.
#[derive(Default)]
struct Seen {
    metadata: Metadata,
    layers: BTreeMap<String, (Sha256, LayerFacts)>,
    /// Entries that are links to others: 20.10 stores a repeated layer so.
    links: BTreeMap<String, String>,
}

/// Reads an archive once and passes on the parts of the wished image. Of a pipe every layer is
/// taken (`wanted` is none): its index comes last.
pub fn stream(
    reader: impl Read,
    wanted: Option<&BTreeSet<String>>,
    wish: &ImageWish,
    sink: &mut dyn Sink,
) -> Result<Image> {
    let mut seen = Seen::default();
    let mut archive = tar::Archive::new(reader);
    for entry in archive.entries().map_err(|cause| unreadable(&cause))? {
        let entry = entry.map_err(|cause| unreadable(&cause))?;
        seen.take(entry, wanted, sink)?;
    }
    let layout = find(&seen.metadata, Some(&wish.reference), &wish.platform)?;
    seen.image(&layout, wish, sink)
}

/// The names of the entries that make up the wished image.
fn wanted(file: &File, wish: &ImageWish) -> Result<BTreeSet<String>> {
    let mut seen = Seen::default();
    let mut archive = tar::Archive::new(file);
    for entry in archive
        .entries_with_seek()
        .map_err(|cause| unreadable(&cause))?
    {
        let entry = entry.map_err(|cause| unreadable(&cause))?;
        seen.take(entry, Some(&BTreeSet::new()), &mut Nowhere)?;
    }
    let layout = find(&seen.metadata, Some(&wish.reference), &wish.platform)?;
    Ok(layout
        .layers
        .iter()
        .map(|layer| seen.resolve(layer).to_owned())
        .collect())
}

/// Takes nothing: no layer is wanted while the index is looked for.
struct Nowhere;

impl Sink for Nowhere {
    fn has(&self, _layer: Sha256) -> Option<LayerFacts> {
        None
    }

    fn keep(&mut self, _layer: Sha256) -> Result<()> {
        Ok(())
    }

    fn begin(&mut self, _label: &RelPath, _promised: Option<Sha256>) -> Result<()> {
        Ok(())
    }

    fn write(&mut self, _bytes: &[u8]) -> Result<()> {
        Ok(())
    }

    fn end(&mut self, _facts: LayerFacts) -> Result<Sha256> {
        Ok(Sha256::of(b""))
    }
}

impl Seen {
    fn take(
        &mut self,
        entry: tar::Entry<'_, impl Read>,
        wanted: Option<&BTreeSet<String>>,
        sink: &mut dyn Sink,
    ) -> Result<()> {
        let name = name_of(&entry)?;
        let kind = entry.header().entry_type();
        if kind.is_symlink() || kind.is_hard_link() {
            let target = entry.link_name_bytes().unwrap_or_default();
            let target = String::from_utf8_lossy(&target).into_owned();
            self.links
                .insert(name.clone(), link_target(&name, &target, kind.is_symlink()));
            return Ok(());
        }
        if !kind.is_file() {
            return Ok(());
        }
        let size = entry.size();
        match kind_of(entry, size).map_err(|cause| unreadable(&cause))? {
            Kind::Metadata(bytes) => {
                self.metadata.insert(name, bytes);
            }
            Kind::Layer(layer) if wanted.is_none_or(|wanted| wanted.contains(&name)) => {
                let found = pass_on(layer, &name, sink)?;
                self.layers.insert(name, found);
            }
            Kind::Layer(_) => {}
        }
        Ok(())
    }

    /// The entry that a name means, through links.
    fn resolve<'a>(&'a self, name: &'a str) -> &'a str {
        self.links.get(name).map_or(name, String::as_str)
    }

    /// Checks config and layers against each other and passes the config on.
    fn image(mut self, layout: &Layout, wish: &ImageWish, sink: &mut dyn Sink) -> Result<Image> {
        let bytes = self.metadata.remove(&layout.config).ok_or_else(|| {
            Error::Damaged(format!(
                "the archive lacks the image's config {}",
                layout.config
            ))
        })?;
        let id = Sha256::of(&bytes);
        check_config_name(&layout.config, id)?;
        let config: Value = serde_json::from_slice(&bytes)
            .map_err(|error| Error::Damaged(format!("the image's config is damaged: {error}")))?;
        let platform = platform_of(&config).unwrap_or_default();
        if platform != wish.platform {
            return Err(Error::Usage(format!(
                "the image is for {platform}, the spec wants {}; correct platform in [image] or pack another image",
                wish.platform
            )));
        }
        let diff_ids = diff_ids(&config)?;
        let found = layout
            .layers
            .iter()
            .map(|name| self.layers.get(self.resolve(name)));
        let found: Vec<Option<&(Sha256, LayerFacts)>> = found.collect();
        if found.len() != diff_ids.len() {
            return Err(Error::Damaged(format!(
                "the image's config names {} layers, the archive {}",
                diff_ids.len(),
                found.len()
            )));
        }
        for ((name, layer), wanted) in layout.layers.iter().zip(&found).zip(&diff_ids) {
            check_layer(name, layer.map(|(digest, _)| *digest), *wanted)?;
        }
        sink.begin(&"config".parse()?, None)?;
        sink.write(&bytes)?;
        sink.end(LayerFacts::default())?;
        let layer_facts = found.iter().flatten().map(|(_, facts)| facts.clone());
        let layer_facts: Vec<LayerFacts> = layer_facts.collect();
        Ok(Image {
            reference: wish.reference.clone(),
            platform,
            config: id,
            layers: diff_ids,
            registry_digest: None,
            facts: combine(&layer_facts, &config),
            layer_facts,
            files: Vec::new(),
        })
    }
}

/// Streams one layer to the sink, and looks at it meanwhile.
fn pass_on(mut layer: impl Read, name: &str, sink: &mut dyn Sink) -> Result<(Sha256, LayerFacts)> {
    let mut watch = Watch::new();
    let mut buffer = vec![0; PIECE];
    sink.begin(
        &name
            .parse()
            .map_err(|error: Error| Error::Damaged(error.to_string()))?,
        None,
    )?;
    loop {
        match layer
            .read(&mut buffer)
            .map_err(|cause| unreadable(&cause).at(name))?
        {
            0 => {
                let facts = watch.finish();
                return Ok((sink.end(facts.clone())?, facts));
            }
            length => {
                watch.update(&buffer[..length]);
                sink.write(&buffer[..length])?;
            }
        }
    }
}

/// Where a link in the archive leads: `../ID/layer.tar` is relative to the entry's directory.
fn link_target(name: &str, target: &str, symbolic: bool) -> String {
    if !symbolic {
        return target.trim_start_matches("./").to_owned();
    }
    let mut parts: Vec<&str> = name.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            ".." => {
                parts.pop();
            }
            "." | "" => {}
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// A config is named by its digest, in all forms.
fn check_config_name(name: &str, id: Sha256) -> Result<()> {
    let stem = name
        .rsplit('/')
        .next()
        .unwrap_or(name)
        .trim_end_matches(".json");
    match stem.parse::<Sha256>() {
        Ok(named) if named != id => Err(Error::Damaged(format!(
            "the image's config {name} has the digest {id}; save it again"
        ))),
        _ => Ok(()),
    }
}

fn check_layer(name: &str, found: Option<Sha256>, wanted: Sha256) -> Result<()> {
    match found {
        Some(found) if found == wanted => Ok(()),
        Some(found) => Err(Error::Damaged(format!(
            "layer {name} has the digest {found}, the image's config wants {wanted}; save the image again"
        ))),
        None => Err(Error::Damaged(format!(
            "the archive lacks layer {name}; save the image again"
        ))),
    }
}

fn diff_ids(config: &Value) -> Result<Vec<Sha256>> {
    let listed = config["rootfs"]["diff_ids"].as_array();
    let listed = listed.ok_or_else(|| {
        Error::Damaged("the image's config lists no layers (rootfs.diff_ids)".into())
    })?;
    listed
        .iter()
        .map(|id| {
            let id = id.as_str().unwrap_or_default();
            id.strip_prefix("sha256:")
                .unwrap_or(id)
                .parse()
                .map_err(|_| {
                    Error::Damaged(format!(
                        "the image's config names a layer {id:?}, which is no digest"
                    ))
                })
        })
        .collect()
}

fn unreadable(cause: &std::io::Error) -> Error {
    Error::Damaged(format!("the image archive cannot be read: {cause}"))
}

#[cfg(test)]
#[path = "archive_tests.rs"]
mod tests;
