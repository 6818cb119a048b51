//! An image in a registry as a source for `pack`.

use std::collections::HashSet;
use std::io::{self, Read as _};
use std::thread;

use super::client::{Blob, Client};
use super::endpoint::Endpoint;
use super::gunzip::Gunzip;
use super::layers::{Compressed, Pieces};
use super::name::Name;
use super::plain::Plain;
use super::resolve::{Resolved, resolve};
use crate::bundle::manifest::{Image, LayerFacts};
use crate::error::{Error, Result};
use crate::http;
use crate::image::archive::ImageWish;
use crate::image::config::Config;
use crate::image::entries::{is_gzip, is_zstd, start_of, uncompressed};
use crate::image::facts::Watch;
use crate::image::layer::{copy, copy_rest};
use crate::image::{ImageSource, Layer, Point, Promise, Sink, blob_label};

/// Layers of programs are about so many times as large as their gzip.
const UNCOMPRESSED: u64 = 2;

/// How to reach registries.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Tried in this order before the registry itself: `HOST`, `HOST/PREFIX` or a URL.
    pub mirrors: Vec<String>,
    /// What the name was found to mean earlier: `sha256:HEX`.
    pub pinned: Option<String>,
    /// How to reach the network.
    pub http: http::Options,
}

/// An image whose manifest and config are here, and whose layers are not.
pub struct RegistrySource {
    client: Client,
    wish: ImageWish,
    config_bytes: Vec<u8>,
    layers: Vec<Blob>,
    promise: Promise,
}

impl RegistrySource {
    /// Asks the mirrors, then the image's own registry, until one knows the image.
    pub fn find(name: &Name, platform: &str, options: &Options) -> Result<Self> {
        let mirrors = options.mirrors.iter().map(|mirror| Endpoint::parse(mirror));
        let endpoints: Vec<Endpoint> =
            mirrors.chain([Endpoint::of(name)]).collect::<Result<_>>()?;
        let wanted = options.pinned.as_deref().unwrap_or(name.wanted());
        let mut refusals = Vec::new();
        for endpoint in endpoints {
            let client = Client::new(endpoint, name.repository(), &options.http)?;
            match resolve(&client, wanted, platform) {
                Ok(resolved) => return Ok(Self::new(client, name, resolved, platform)),
                Err(error @ Error::Interrupted(_)) => return Err(error),
                Err(error) => refusals.push(error),
            }
        }
        Err(all_refused(&refusals))
    }

    fn new(client: Client, name: &Name, resolved: Resolved, platform: &str) -> Self {
        let layers = resolved.config.diff_ids.iter().zip(&resolved.layers);
        let layers = layers.map(|(diff_id, blob)| Layer {
            diff_id: *diff_id,
            compressed: blob.size,
        });
        Self {
            client,
            wish: ImageWish {
                reference: name.tag(),
                platform: platform.to_owned(),
            },
            config_bytes: resolved.config_bytes,
            promise: Promise {
                digest: resolved.digest,
                layers: layers.collect(),
            },
            layers: resolved.layers,
        }
    }

    /// Positions of the layers that must be streamed, each content once.
    fn missing(&self, sink: &dyn Sink) -> Vec<usize> {
        let mut seen = HashSet::new();
        let layers = self.promise.layers.iter().enumerate();
        layers
            .filter(|(_, layer)| seen.insert(layer.diff_id) && sink.has(layer.diff_id).is_none())
            .map(|(position, _)| position)
            .collect()
    }

    fn stream_layers(&self, sink: &mut dyn Sink) -> Result<Vec<LayerFacts>> {
        let missing = self.missing(sink);
        let blobs: Vec<&Blob> = missing
            .iter()
            .map(|&position| &self.layers[position])
            .collect();
        let left_at = missing
            .first()
            .and_then(|&position| self.left_at(position, sink));
        thread::scope(|scope| {
            let from = left_at.map_or(0, |point| point.compressed);
            let mut pieces = Pieces::fetch(scope, &self.client, &blobs, from);
            let mut all: Vec<LayerFacts> = Vec::new();
            let ids = self.promise.layers.iter().map(|layer| layer.diff_id);
            for (position, diff_id) in ids.enumerate() {
                let layers = &self.promise.layers[..position];
                let before = layers.iter().position(|layer| layer.diff_id == diff_id);
                all.push(if missing.contains(&position) {
                    let left_at = left_at.filter(|_| missing.first() == Some(&position));
                    self.stream_layer(&mut pieces, position, left_at, sink)?
                } else if let Some(before) = before {
                    all[before].clone()
                } else {
                    let known = sink.has(diff_id).unwrap_or_default();
                    sink.keep(diff_id)?;
                    known
                });
            }
            Ok(all)
        })
    }

    /// Where an earlier run has left a layer.
    fn left_at(&self, position: usize, sink: &dyn Sink) -> Option<Point> {
        let point = sink.left_at(self.promise.layers[position].diff_id)?;
        (point.compressed < self.layers[position].size).then_some(point)
    }

    fn stream_layer(
        &self,
        pieces: &mut Pieces,
        position: usize,
        left_at: Option<Point>,
        sink: &mut dyn Sink,
    ) -> Result<LayerFacts> {
        let blob = &self.layers[position];
        let diff_id = self.promise.layers[position].diff_id;
        sink.begin(&blob_label(diff_id)?, Some(diff_id))?;
        let place = || format!("layer {} from {}", blob.digest, self.client.endpoint());
        let mut compressed = pieces.layer(blob.size - left_at.map_or(0, |point| point.compressed));
        let copied = match left_at {
            Some(point) => go_on(&mut compressed, point, sink),
            None => copy_whole(&mut compressed, sink),
        };
        let facts = match copied {
            Err(error @ Error::Damaged(_)) => {
                self.check(blob, left_at, compressed)?;
                return Err(error.at(place()));
            }
            copied => copied?,
        };
        self.check(blob, left_at, compressed)?;
        sink.end(facts.clone())?;
        Ok(facts)
    }

    /// The blob's digest tells whether the registry or the image is wrong. It cannot be told without
    /// the blob's start; then the layer's own digest, which counts anyway, is left alone.
    fn check(&self, blob: &Blob, left_at: Option<Point>, all: Compressed<'_>) -> Result<()> {
        let found = all.finish()?;
        match left_at {
            Some(_) => Ok(()),
            None => self.client.check(blob, found),
        }
    }
}

impl ImageSource for RegistrySource {
    fn size(&self) -> u64 {
        let layers = self.promise.layers.iter().map(|layer| layer.compressed);
        layers.sum::<u64>() * UNCOMPRESSED + self.config_bytes.len() as u64
    }

    fn promise(&self) -> Option<&Promise> {
        Some(&self.promise)
    }

    fn stream(&mut self, sink: &mut dyn Sink) -> Result<Image> {
        let facts = self.stream_layers(sink)?;
        let config = Config::read(&self.config_bytes, &self.wish.platform)?;
        sink.begin(&blob_label(config.id)?, Some(config.id))?;
        sink.write(&self.config_bytes)?;
        sink.end(LayerFacts::default())?;
        Ok(config.image(&self.wish, facts, Some(self.promise.digest.clone())))
    }
}

/// Copies a layer from its start.
fn copy_whole(compressed: &mut Compressed<'_>, sink: &mut dyn Sink) -> Result<LayerFacts> {
    let fail = |cause: io::Error| {
        cause
            .downcast()
            .unwrap_or_else(|cause| Error::Damaged(cause.to_string()))
    };
    let start = start_of(compressed).map_err(fail)?;
    let (gzip, zstd) = (is_gzip(&start), is_zstd(&start));
    let whole = io::Cursor::new(start).chain(compressed);
    if gzip {
        copy_rest(Watch::new(), &mut Gunzip::new(whole), sink, Gunzip::point)
    } else if zstd {
        copy(&mut uncompressed(whole).map_err(fail)?, sink)
    } else {
        copy_plain(Watch::new(), Plain::new(whole, 0), sink)
    }
}

/// Copies what an earlier run has not packed of a layer.
fn go_on(rest: &mut Compressed<'_>, point: Point, sink: &mut dyn Sink) -> Result<LayerFacts> {
    let mut watch = Watch::new();
    let history = sink.take_packed(&mut |bytes| watch.update(bytes))?;
    match point.gzip {
        Some(cut) => {
            let mut layer = Gunzip::resume(rest, point, cut, &history);
            copy_rest(watch, &mut layer, sink, Gunzip::point)
        }
        None => copy_plain(watch, Plain::new(rest, point.raw), sink),
    }
}

/// Copies what is left of a layer that is not compressed.
fn copy_plain(
    watch: Watch,
    mut layer: Plain<impl io::Read>,
    sink: &mut dyn Sink,
) -> Result<LayerFacts> {
    copy_rest(watch, &mut layer, sink, |layer| Some(layer.point()))
}

/// Why no registry could serve the image.
fn all_refused(refusals: &[Error]) -> Error {
    let code = refusals.last().map_or(1, Error::exit_code);
    let texts: Vec<String> = refusals.iter().map(ToString::to_string).collect();
    Error::from_code(code, texts.join("; "))
}
