//! `bundle.json`: which files travel, as which chunks, in which volumes, and what they are for.

mod check;
mod encoding;
mod name;
mod owners;

pub use encoding::Encoding;
pub use name::Name;
pub use owners::{Owner, Owners};

use std::fmt;

use serde::{Deserialize, Serialize};

use super::cluster_spec::ClusterSpec;
use crate::digest::{Blake3, Blake3Hasher, Sha256};
use crate::error::{Error, Result};
use crate::path::{AbsPath, RelPath};

/// The format that this executable writes and the only one it reads.
pub const FORMAT: u32 = 1;

/// The whole manifest. A value from [`Manifest::parse`] is consistent in itself: every index is
/// in range, every size adds up, and the place of every chunk is the one that the order of the
/// files demands. Whether the volumes match it is for `verify`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Always [`FORMAT`].
    pub format: u32,
    /// The bundle's name; containers and directories are named after it.
    pub name: Name,
    /// Grows from one edition of the bundle to the next; the far side does not go back unasked.
    pub serial: u64,
    /// The bundle that must be installed before this one, which leaves out what that one has.
    pub base: Option<Reference>,
    /// Models, in the order of the spec.
    pub models: Vec<Model>,
    /// Container images, in the order of the spec.
    pub images: Vec<Image>,
    /// Directories of other files, in the order of the spec.
    pub extras: Vec<Extra>,
    /// What to start on the far side.
    pub cluster: ClusterSpec,
    /// Every distinct chunk, in the order in which it stands in the volumes.
    pub chunks: Vec<Chunk>,
    /// The volumes, first to last.
    pub volumes: Vec<Volume>,
    /// Recovery volumes, if there are any.
    pub parity: Option<Parity>,
}

/// Names another bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reference {
    /// Its name.
    pub name: Name,
    /// Its serial.
    pub serial: u64,
    /// Of its `bundle.json`.
    pub sha256: Sha256,
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} serial {}", self.name, self.serial)
    }
}

/// A model: a directory of files at the same path on every node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// The hub's name for it, `owner/name`.
    pub repo: String,
    /// What the spec asked for: a branch, tag or commit.
    pub revision: String,
    /// The commit that it meant when packed; absent for a local directory.
    pub commit: Option<String>,
    /// Where it stands on every node.
    pub path: AbsPath,
    /// Its files, sorted by path.
    pub files: Vec<FileEntry>,
}

/// A container image: its config and its uncompressed layers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// The tag that it gets on every node, e.g. `vllm/vllm-openai:v0.6.4.post1`.
    pub reference: String,
    /// `linux/amd64`.
    pub platform: String,
    /// Digest of the config: the image's identity.
    pub config: Sha256,
    /// `diff_ids`: digests of the uncompressed layers, lowest first.
    pub layers: Vec<Sha256>,
    /// The registry's manifest digest, kept as provenance.
    pub registry_digest: Option<String>,
    /// What was seen inside while it was packed.
    pub facts: ImageFacts,
    /// The same by layer, as many as `layers`: a later bundle may hold the same layer without
    /// looking at it again.
    pub layer_facts: Vec<LayerFacts>,
    /// Config and layers as `blobs/sha256/HEX`.
    pub files: Vec<FileEntry>,
}

/// A directory of other files, at the same path on every node: drivers, packages, licences.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Extra {
    /// Where it stands on every node. The bundle owns it: nothing else stays there.
    pub path: AbsPath,
    /// Those of its files that may be executed, sorted.
    pub executable: Vec<RelPath>,
    /// Its files, sorted by path.
    pub files: Vec<FileEntry>,
}

/// What `pack` learned about an image from its layers and its environment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageFacts {
    /// Version of the installed `vllm` distribution.
    pub vllm: Option<String>,
    /// Version of the installed `ray` distribution; absent when there is no `ray` executable.
    pub ray: Option<String>,
    /// `CUDA_VERSION` of the image's environment.
    pub cuda: Option<String>,
}

/// What the names in one layer tell: what it adds to an image's facts, and what it takes away.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerFacts {
    /// Version of the `vllm` distribution that it installs.
    pub vllm: Option<String>,
    /// Version of the `ray` distribution that it installs.
    pub ray: Option<String>,
    /// Whether it has a `ray` executable.
    pub ray_executable: bool,
    /// Whether it removes one.
    pub ray_removed: bool,
}

/// A file that travels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Path below its model, image or extra directory.
    pub path: RelPath,
    /// Bytes.
    pub size: u64,
    /// Of the whole file; for LFS files the value that the hub publishes.
    pub sha256: Sha256,
    /// Indices into [`Manifest::chunks`], in file order; none for an empty file.
    pub chunks: Vec<u32>,
}

/// A piece of a file as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chunk {
    /// SHA-256 of the stored bytes; the entry in the volume is `blobs/sha256/BLOB`.
    pub blob: Sha256,
    /// Stored bytes.
    pub stored: u32,
    /// Raw bytes; [`CHUNK_SIZE`] unless it is a file's last chunk.
    pub raw: u32,
    /// Of the raw bytes. A file whose chunks all have theirs is intact.
    pub blake3: Blake3,
    /// How the raw bytes became the stored ones.
    pub encoding: Encoding,
    /// Number of the volume, from 1; 0 when only the base has it.
    pub volume: u32,
    /// Where the stored bytes start in the volume.
    pub offset: u64,
}

impl Chunk {
    /// Whether no volume has it, because the base does.
    #[must_use]
    pub fn is_in_base(&self) -> bool {
        self.volume == 0
    }

    /// Whether these are its raw bytes.
    #[must_use]
    pub fn is(&self, raw: &[u8]) -> bool {
        raw.len() == self.raw as usize && Blake3::of(raw) == self.blake3
    }

    /// The same chunk in a manifest that builds on this one.
    #[must_use]
    pub fn in_base(&self) -> Self {
        Self {
            volume: 0,
            offset: 0,
            ..self.clone()
        }
    }
}

/// A volume: a plain tar file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Volume {
    /// `vol-0001.tar`.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// Of the whole tar file.
    pub sha256: Sha256,
}

/// Recovery volumes: equal shards of all volumes, and others made of them by Reed-Solomon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parity {
    /// Bytes of a shard.
    pub shard: u64,
    /// Digests of the data shards: all volumes one after the other, with zeros behind.
    pub data: Vec<Blake3>,
    /// Digests of the recovery shards, in the order in which they stand in the recovery volumes.
    pub recovery: Vec<Sha256>,
    /// The recovery volumes, first to last: `par-0001.tar`.
    pub volumes: Vec<Volume>,
}

/// A group of files with a common root.
#[derive(Clone, Copy, Debug)]
pub enum Tree<'a> {
    /// Files of a model.
    Model(&'a Model),
    /// Blobs of an image.
    Image(&'a Image),
    /// Other files.
    Extra(&'a Extra),
}

impl<'a> Tree<'a> {
    /// The files in manifest order.
    #[must_use]
    pub fn files(self) -> &'a [FileEntry] {
        match self {
            Self::Model(model) => &model.files,
            Self::Image(image) => &image.files,
            Self::Extra(extra) => &extra.files,
        }
    }

    /// The directory that it has on every node; images have none.
    #[must_use]
    pub fn path(self) -> Option<&'a AbsPath> {
        match self {
            Self::Model(model) => Some(&model.path),
            Self::Image(_) => None,
            Self::Extra(extra) => Some(&extra.path),
        }
    }

    /// Whether one of its files may be executed.
    #[must_use]
    pub fn is_executable(self, file: &RelPath) -> bool {
        matches!(self, Self::Extra(extra) if extra.executable.binary_search(file).is_ok())
    }

    /// How messages call it: the repo, the image reference or the directory.
    #[must_use]
    pub fn label(self) -> &'a str {
        match self {
            Self::Model(model) => &model.repo,
            Self::Image(image) => &image.reference,
            Self::Extra(extra) => extra.path.as_str(),
        }
    }
}

impl Manifest {
    /// Reads and checks the bytes of a `bundle.json`.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let manifest: Self = serde_json::from_slice(bytes).map_err(|error| {
            Error::Damaged(format!(
                "bundle.json is damaged or of another format: {error}"
            ))
        })?;
        check::check(&manifest).map_err(|fault| {
            Error::Damaged(format!(
                "bundle.json contradicts itself: {fault}; pack again"
            ))
        })?;
        Ok(manifest)
    }

    /// The exact bytes of `bundle.json`: deterministic, one line.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut bytes = serde_json::to_vec(self)
            .map_err(|error| Error::Failed(format!("cannot write the manifest: {error}")))?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Images, models, extras: the order in which files stand in the volumes.
    pub fn trees(&self) -> impl Iterator<Item = Tree<'_>> {
        self.images
            .iter()
            .map(Tree::Image)
            .chain(self.models.iter().map(Tree::Model))
            .chain(self.extras.iter().map(Tree::Extra))
    }

    /// The directories that the bundle owns on every node.
    pub fn roots(&self) -> impl Iterator<Item = &AbsPath> {
        self.trees().filter_map(Tree::path)
    }

    /// All files with their trees, in the order of the volumes.
    pub fn files(&self) -> impl Iterator<Item = (Tree<'_>, &FileEntry)> {
        self.trees()
            .flat_map(|tree| tree.files().iter().map(move |file| (tree, file)))
    }

    /// What stands for the raw bytes of a file's chunks: BLAKE3 of their digests, one after the
    /// other. Files are cut at fixed places, so equal files have equal ones, in any manifest.
    #[must_use]
    pub fn content(&self, file: &FileEntry) -> Blake3 {
        let mut hasher = Blake3Hasher::default();
        for chunk in self.chunks_of(file) {
            hasher.update(&chunk.blake3.0);
        }
        hasher.finish()
    }

    /// The chunks of a file, in order.
    pub fn chunks_of(&self, file: &FileEntry) -> impl Iterator<Item = &Chunk> {
        let indices = file.chunks.iter();
        indices.filter_map(|&index| self.chunks.get(index as usize))
    }

    /// Bytes of all volumes, without recovery volumes.
    #[must_use]
    pub fn volume_size(&self) -> u64 {
        self.volumes.iter().map(|volume| volume.size).sum()
    }

    /// The recovery volumes, first to last.
    #[must_use]
    pub fn recovery_volumes(&self) -> &[Volume] {
        self.parity.as_ref().map_or(&[], |parity| &parity.volumes)
    }

    /// Bytes of all files once unpacked.
    #[must_use]
    pub fn raw_size(&self) -> u64 {
        self.files().map(|(_, file)| file.size).sum()
    }

    /// Bytes of all distinct chunks as stored in the volumes.
    #[must_use]
    pub fn stored_size(&self) -> u64 {
        self.chunks
            .iter()
            .filter(|chunk| !chunk.is_in_base())
            .map(|chunk| u64::from(chunk.stored))
            .sum()
    }
}

/// The most bytes that a chunk may take when stored: noise in plane frames costs a little.
#[must_use]
pub fn max_stored(raw: u32) -> u32 {
    raw + raw / 256 + 1024
}
