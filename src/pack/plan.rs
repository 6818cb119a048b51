//! What one run of pack is asked to do, and how a later run knows that it is the same.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::base::Base;
use super::local_files::LocalFiles;
use super::preflight::Work;
use super::source::{Expected, RangeSource, SourceFile};
use super::spec::Spec;
use super::state::State;
use crate::bundle::cluster_spec::ClusterSpec;
use crate::bundle::manifest::ImageFacts;
use crate::bundle::parity::Share;
use crate::bundle::sign::Signer;
use crate::digest::{Hasher, Sha256};
use crate::error::Result;
use crate::image::{ImageSource, Layer};
use crate::path::AbsPath;

/// No `config.json` is larger, in bytes.
const MAX_CONFIG: u64 = 1 << 20;

/// Everything that decides what a bundle holds, and where and how it is made.
pub struct Plan {
    /// What the operator wants.
    pub spec: Spec,
    /// The bundle that the far side has.
    pub base: Option<Base>,
    /// The bundle's directory.
    pub out: PathBuf,
    /// The most bytes of a volume.
    pub volume_size: u64,
    /// How much of the bundle can be rebuilt on the far side.
    pub parity: Option<Share>,
    /// Encoding threads.
    pub jobs: usize,
    /// Whether to throw away what an earlier run has packed.
    pub fresh: bool,
    /// Where each model of the spec comes from.
    pub models: Vec<ModelPlan>,
    /// Where the image comes from, if one travels.
    pub image: Option<Box<dyn ImageSource>>,
    /// The extra directories.
    pub extras: Vec<ExtraPlan>,
    /// Judges the image once its inside was seen, before anything else is fetched; returns remarks.
    pub judge: fn(&ClusterSpec, &ImageFacts) -> Result<Vec<String>>,
    /// The key that signs the bundle.
    pub signer: Option<Signer>,
}

/// Where a model comes from.
pub struct ModelPlan {
    /// Its files.
    pub source: Box<dyn RangeSource>,
    /// The commit that its revision means; absent for a local directory.
    pub commit: Option<String>,
}

impl ModelPlan {
    /// The model's `config.json`; empty when it has none.
    pub fn config(&self) -> Result<String> {
        let files = self.source.files();
        let found = files
            .iter()
            .position(|file| file.path.as_str() == "config.json" && file.size <= MAX_CONFIG);
        let Some(index) = found else {
            return Ok(String::new());
        };
        let mut text = vec![0; usize::try_from(files[index].size).unwrap_or_default()];
        self.source.read(index, 0, &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

/// A directory of other files.
pub struct ExtraPlan {
    /// Where it stands on every node.
    pub path: AbsPath,
    /// Its files.
    pub source: LocalFiles,
}

/// The first line of the journal: what must be the same for a later run to go on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// Version of the executable: another one may encode otherwise.
    pub version: String,
    /// The most bytes of a volume.
    pub volume_size: u64,
    /// The models in order.
    pub models: Vec<StartModel>,
    /// The image, if one travels.
    pub image: Option<StartImage>,
    /// The extra directories in order, each with the digest of its list of files.
    pub extras: Vec<(AbsPath, Sha256)>,
    /// Of the base's manifest.
    pub base: Option<Sha256>,
}

/// An image at the start of a pack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartImage {
    /// As in the spec.
    pub reference: Option<String>,
    /// As in the spec.
    pub platform: String,
    /// What the reference meant, if its source has promised that.
    pub digest: Option<String>,
}

/// A model at the start of a pack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartModel {
    /// The hub's name for it.
    pub repo: String,
    /// Branch, tag or commit of the spec.
    pub revision: String,
    /// What it meant.
    pub commit: Option<String>,
    /// Digest of the list of files: paths, sizes and promises.
    pub files: Sha256,
}

impl Plan {
    /// What a journal of this plan starts with.
    #[must_use]
    pub fn start(&self) -> Start {
        let models = self.spec.models.iter().zip(&self.models);
        Start {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            volume_size: self.volume_size,
            models: models
                .map(|(spec, model)| StartModel {
                    repo: spec.repo.clone(),
                    revision: spec.revision.clone(),
                    commit: model.commit.clone(),
                    files: digest(model.source.files()),
                })
                .collect(),
            image: self.spec.image.as_ref().map(|image| StartImage {
                reference: image.reference.clone(),
                platform: image.platform.clone(),
                digest: self.image.as_ref().and_then(|source| {
                    let promise = source.promise()?;
                    Some(promise.digest.clone())
                }),
            }),
            extras: self
                .extras
                .iter()
                .map(|extra| (extra.path.clone(), digest(extra.source.files())))
                .collect(),
            base: self.base.as_ref().map(|base| base.reference.sha256),
        }
    }

    /// All there is to pack.
    #[must_use]
    pub fn work(&self) -> Work {
        let models = self.models.iter().flat_map(|model| model.source.files());
        let extras = self.extras.iter().flat_map(|extra| extra.source.files());
        Work {
            models: models.map(|file| file.size).sum(),
            images: self.image.as_ref().map_or(0, |image| image.size()),
            extras: extras.map(|file| file.size).sum(),
            parity: self.parity,
            ..Work::default()
        }
    }

    /// Bytes to download for so much of the models and of the image.
    fn download(&self, models: u64, images: u64) -> u64 {
        let is_remote = self.models.iter().any(|model| model.commit.is_some());
        let layers = scaled(images, self.promised(|_| true), self.work().images);
        layers + if is_remote { models } else { 0 }
    }

    /// Bytes to download for these of the layers that a registry promises.
    fn promised(&self, wanted: impl Fn(&Layer) -> bool) -> u64 {
        let promise = self.image.as_ref().and_then(|image| image.promise());
        let layers = promise.iter().flat_map(|promise| &promise.layers);
        let wanted = layers.filter(|layer| wanted(layer));
        wanted.map(|layer| layer.compressed).sum()
    }

    /// The bundle's serial: what the spec says, else one more than the base's.
    #[must_use]
    pub fn serial(&self) -> u64 {
        let next = self
            .base
            .as_ref()
            .map_or(0, |base| base.reference.serial.saturating_add(1));
        self.spec.serial.unwrap_or(next)
    }

    /// What will surely be stored: all there is to pack but what the base may have.
    fn new_work(&self) -> Work {
        let Some(base) = &self.base else {
            return self.work();
        };
        let is_new = |file: &&SourceFile| match file.expected {
            Expected::Sha256(sha256) => base.file(sha256).is_none(),
            _ => !base.has_size(file.size),
        };
        let models = self.models.iter().flat_map(|model| model.source.files());
        let extras = self.extras.iter().flat_map(|extra| extra.source.files());
        let layers = self.promised(|layer| base.layer(layer.diff_id).is_none());
        Work {
            models: models.filter(is_new).map(|file| file.size).sum(),
            images: scaled(layers, self.work().images, self.promised(|_| true)),
            extras: extras.filter(is_new).map(|file| file.size).sum(),
            ..self.work()
        }
    }

    /// What is left to be stored.
    pub(super) fn left(&self, state: &State) -> Work {
        let mut done = state.raw_in_volumes();
        let mut left = |all: u64| {
            let left = all.saturating_sub(done);
            done = done.saturating_sub(all);
            left
        };
        let all = self.new_work();
        let (images, models) = (left(all.images), left(all.models));
        Work {
            images,
            models,
            extras: left(all.extras),
            stored: state.stored(),
            download: self.download(models, images),
            ..all
        }
    }
}

impl Start {
    /// What keeps a journal that starts with `self` from being continued as `wanted`, if anything.
    #[must_use]
    pub fn difference(&self, wanted: &Self) -> Option<&'static str> {
        if self.version != wanted.version {
            Some("another version of bundle")
        } else if self.base != wanted.base {
            Some("another --base")
        } else if self.volume_size != wanted.volume_size {
            Some("another --volume-size")
        } else if self.image != wanted.image {
            Some("another image")
        } else if self.models != wanted.models {
            Some("other models, revisions or files")
        } else if self.extras != wanted.extras {
            Some("other extra files")
        } else {
            None
        }
    }
}

/// `bytes` times `to` by `from`; nothing of nothing.
fn scaled(bytes: u64, to: u64, from: u64) -> u64 {
    let product = u128::from(bytes) * u128::from(to);
    let scaled = product.checked_div(from.into()).unwrap_or(0);
    u64::try_from(scaled).unwrap_or(u64::MAX)
}

fn digest(files: &[SourceFile]) -> Sha256 {
    let mut hasher = Hasher::default();
    for file in files {
        let line = format!("{}\0{}\0{:?}\n", file.path, file.size, file.expected);
        hasher.update(line.as_bytes());
    }
    hasher.finish()
}
