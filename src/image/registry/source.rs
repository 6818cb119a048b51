//! An image in a registry as a source for `pack`.

use std::collections::HashSet;
use std::thread;

use super::client::{Blob, Client};
use super::endpoint::Endpoint;
use super::layers::Pieces;
use super::name::Name;
use super::resolve::{Resolved, resolve};
use crate::bundle::manifest::{Image, LayerFacts};
use crate::digest::Sha256;
use crate::error::{Error, Result};
use crate::http;
use crate::image::archive::ImageWish;
use crate::image::config::Config;
use crate::image::entries::uncompressed;
use crate::image::layer::copy;
use crate::image::{ImageSource, Layer, Promise, Sink, blob_label};

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
        thread::scope(|scope| {
            let mut pieces = Pieces::fetch(scope, &self.client, &blobs);
            let mut all: Vec<LayerFacts> = Vec::new();
            let ids = self.promise.layers.iter().map(|layer| layer.diff_id);
            for (position, diff_id) in ids.enumerate() {
                let layers = &self.promise.layers[..position];
                let before = layers.iter().position(|layer| layer.diff_id == diff_id);
                all.push(if missing.contains(&position) {
                    self.stream_layer(&mut pieces, &self.layers[position], diff_id, sink)?
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

    fn stream_layer(
        &self,
        pieces: &mut Pieces,
        blob: &Blob,
        diff_id: Sha256,
        sink: &mut dyn Sink,
    ) -> Result<LayerFacts> {
        let mut compressed = pieces.layer(blob.size);
        sink.begin(&blob_label(diff_id)?, Some(diff_id))?;
        let place = || format!("layer {} from {}", blob.digest, self.client.endpoint());
        let copied = uncompressed(&mut compressed)
            .map_err(|cause| {
                cause
                    .downcast()
                    .unwrap_or_else(|cause| Error::Damaged(cause.to_string()))
            })
            .and_then(|mut layer| copy(&mut layer, sink));
        let facts = match copied {
            // The blob's digest tells whether the registry or the image is wrong.
            Err(error @ Error::Damaged(_)) => {
                self.client.check(blob, compressed.finish()?)?;
                return Err(error.at(place()));
            }
            copied => copied?,
        };
        self.client.check(blob, compressed.finish()?)?;
        sink.end(facts.clone())?;
        Ok(facts)
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

/// Why no registry could serve the image.
fn all_refused(refusals: &[Error]) -> Error {
    let code = refusals.last().map_or(1, Error::exit_code);
    let texts: Vec<String> = refusals.iter().map(ToString::to_string).collect();
    Error::from_code(code, texts.join("; "))
}
