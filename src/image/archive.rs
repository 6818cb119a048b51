//! Images out of a tar stream, in one pass: `docker save` of 20.10 and of 25 and later, podman's
//! archives, OCI layouts.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use super::config::Config;
use super::directory;
use super::entries::{Kind, kind_of, name_of};
use super::layer::copy;
use super::layout::{Layout, Metadata, find, own_name};
use super::{ImageSource, Point, Sink};
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

/// Bytes that are read at once.
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
        let index = index(&self.open()?).map_err(at)?;
        let wanted = index.wanted(&self.wish).map_err(at)?;
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
pub(super) struct Seen {
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
    seen.image(wish, sink)
}

/// What an archive, or a directory with an OCI layout, calls its image.
pub fn name_in(path: &Path) -> Result<String> {
    let seen = if path.is_dir() {
        directory::index(path)
    } else {
        File::open(path)
            .map_err(Error::io("open", path))
            .and_then(|file| index(&file))
    };
    let name = seen.and_then(|seen| own_name(&seen.metadata));
    name.map_err(|error| error.at(path.display()))
}

/// All but the layers.
fn index(file: &File) -> Result<Seen> {
    let mut seen = Seen::default();
    let mut archive = tar::Archive::new(file);
    for entry in archive
        .entries_with_seek()
        .map_err(|cause| unreadable(&cause))?
    {
        let entry = entry.map_err(|cause| unreadable(&cause))?;
        seen.take(entry, Some(&BTreeSet::new()), &mut Nowhere)?;
    }
    Ok(seen)
}

/// Takes nothing: no layer is wanted while the index is looked for.
pub(super) struct Nowhere;

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

    fn point(&mut self, _: Point) {}

    fn left_at(&self, _: Sha256) -> Option<Point> {
        None
    }

    fn take_packed(&mut self, _: &mut dyn FnMut(&[u8])) -> Result<Vec<u8>> {
        Ok(Vec::new())
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
        self.take_file(name, entry, size, wanted, sink)
    }

    /// Takes a file of the archive: keeps it when it is small, passes it on when it is a wanted
    /// layer.
    pub(super) fn take_file(
        &mut self,
        name: String,
        file: impl Read,
        size: u64,
        wanted: Option<&BTreeSet<String>>,
        sink: &mut dyn Sink,
    ) -> Result<()> {
        match kind_of(file, size).map_err(|cause| unreadable(&cause))? {
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

    /// The names of the entries that make up the wished image.
    pub(super) fn wanted(&self, wish: &ImageWish) -> Result<BTreeSet<String>> {
        let layers = self.layout(wish)?.layers;
        Ok(layers
            .iter()
            .map(|layer| self.resolve(layer).to_owned())
            .collect())
    }

    fn layout(&self, wish: &ImageWish) -> Result<Layout> {
        find(&self.metadata, Some(&wish.reference), &wish.platform)
    }

    /// Checks config and layers against each other and passes the config on.
    pub(super) fn image(mut self, wish: &ImageWish, sink: &mut dyn Sink) -> Result<Image> {
        let layout = self.layout(wish)?;
        let bytes = self.metadata.remove(&layout.config).ok_or_else(|| {
            Error::Damaged(format!(
                "the archive lacks the image's config {}",
                layout.config
            ))
        })?;
        let config = Config::read(&bytes, &wish.platform)?;
        check_config_name(&layout.config, config.id)?;
        let found = layout
            .layers
            .iter()
            .map(|name| self.layers.get(self.resolve(name)));
        let found: Vec<Option<&(Sha256, LayerFacts)>> = found.collect();
        if found.len() != config.diff_ids.len() {
            return Err(Error::Damaged(format!(
                "the image's config names {} layers, the archive {}",
                config.diff_ids.len(),
                found.len()
            )));
        }
        for ((name, layer), wanted) in layout.layers.iter().zip(&found).zip(&config.diff_ids) {
            check_layer(name, layer.map(|(digest, _)| *digest), *wanted)?;
        }
        sink.begin(&"config".parse()?, None)?;
        sink.write(&bytes)?;
        sink.end(LayerFacts::default())?;
        let layer_facts = found.iter().flatten().map(|(_, facts)| facts.clone());
        Ok(config.image(wish, layer_facts.collect(), None))
    }
}

/// Streams one layer to the sink, and looks at it meanwhile.
fn pass_on(mut layer: impl Read, name: &str, sink: &mut dyn Sink) -> Result<(Sha256, LayerFacts)> {
    let label = name
        .parse()
        .map_err(|error: Error| Error::Damaged(error.to_string()))?;
    sink.begin(&label, None)?;
    let facts = copy(&mut layer, sink).map_err(|error| error.at(name))?;
    Ok((sink.end(facts.clone())?, facts))
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

fn unreadable(cause: &std::io::Error) -> Error {
    Error::Damaged(format!("the image archive cannot be read: {cause}"))
}

#[cfg(test)]
#[path = "archive_tests.rs"]
mod tests;
