//! `bundle.json`: which files travel, as which chunks, in which volumes, and what they are for.

use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::cluster_spec::ClusterSpec;
use super::{CHUNK_SIZE, volume_name};
use crate::digest::{Sha256, Xxh3};
use crate::error::{Error, Result};
use crate::path::{AbsPath, RelPath};

/// The format that this executable writes and the only one it reads.
pub const FORMAT: u32 = 1;

/// The whole manifest. A value from [`Manifest::parse`] is consistent in itself: every index is
/// in range and every size adds up. Whether the volumes match it is for `verify`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Always [`FORMAT`].
    pub format: u32,
    /// The bundle's name; containers and directories are named after it.
    pub name: Name,
    /// Models, in the order of the spec.
    pub models: Vec<Model>,
    /// Container images, in the order of the spec.
    pub images: Vec<Image>,
    /// What to start on the far side.
    pub cluster: ClusterSpec,
    /// Every distinct chunk, in the order in which it stands in the volumes.
    pub chunks: Vec<Chunk>,
    /// The volumes, first to last.
    pub volumes: Vec<Volume>,
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
    /// Config and layers as `blobs/sha256/HEX`.
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

/// A file that travels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Path below its model or image.
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
    /// Fast check value of the raw bytes.
    pub xxh3: Xxh3,
    /// How the raw bytes became the stored ones.
    pub encoding: Encoding,
    /// Number of the volume, from 1.
    pub volume: u32,
    /// Where the stored bytes start in the volume.
    pub offset: u64,
}

/// How a chunk is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// As it is.
    Stored,
    /// One zstd frame.
    Zstd,
    /// Elements of `width` bytes split into byte planes, each plane its own zstd frame.
    Planes {
        /// Bytes per element: 2 or 4.
        width: u8,
        /// Whether each little-endian element was first rotated left by one bit.
        rotate: bool,
    },
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

/// A bundle's name: lower-case letters, digits, `.`, `_` and `-`, as container names allow.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

/// A group of files with a common root.
#[derive(Clone, Copy, Debug)]
pub enum Tree<'a> {
    /// Files of a model.
    Model(&'a Model),
    /// Blobs of an image.
    Image(&'a Image),
}

impl<'a> Tree<'a> {
    /// The files in manifest order.
    #[must_use]
    pub fn files(self) -> &'a [FileEntry] {
        match self {
            Self::Model(model) => &model.files,
            Self::Image(image) => &image.files,
        }
    }

    /// How messages call it: the repo or the image reference.
    #[must_use]
    pub fn label(self) -> &'a str {
        match self {
            Self::Model(model) => &model.repo,
            Self::Image(image) => &image.reference,
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
        manifest.check().map_err(|fault| {
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

    /// Models, then images: the order in which files stand in the volumes.
    pub fn trees(&self) -> impl Iterator<Item = Tree<'_>> {
        self.models
            .iter()
            .map(Tree::Model)
            .chain(self.images.iter().map(Tree::Image))
    }

    /// All files with their trees, in the order of the volumes.
    pub fn files(&self) -> impl Iterator<Item = (Tree<'_>, &FileEntry)> {
        self.trees()
            .flat_map(|tree| tree.files().iter().map(move |file| (tree, file)))
    }

    /// Bytes of all files once unpacked.
    #[must_use]
    pub fn raw_size(&self) -> u64 {
        self.files().map(|(_, file)| file.size).sum()
    }

    /// Bytes of all distinct chunks as stored.
    #[must_use]
    pub fn stored_size(&self) -> u64 {
        self.chunks
            .iter()
            .map(|chunk| u64::from(chunk.stored))
            .sum()
    }

    /// The first contradiction, if any.
    fn check(&self) -> std::result::Result<(), String> {
        if self.format != FORMAT {
            return Err(format!("format {} is not {FORMAT}", self.format));
        }
        self.check_volumes()?;
        self.check_chunks()?;
        let mut roots = Vec::new();
        for tree in self.trees() {
            check_files(tree, &self.chunks)?;
            if let Tree::Model(model) = tree {
                roots.push(model.path.as_str());
            }
        }
        check_disjoint(roots.into_iter())
    }

    fn check_volumes(&self) -> std::result::Result<(), String> {
        for (number, volume) in (1..).zip(&self.volumes) {
            if volume.name != volume_name(number) {
                return Err(format!("volume {number} is called {:?}", volume.name));
            }
        }
        Ok(())
    }

    /// Chunks stand in the volumes in order, one after the other, each within its volume.
    fn check_chunks(&self) -> std::result::Result<(), String> {
        let mut seen = HashSet::new();
        let mut end = (1, 0);
        for chunk in &self.chunks {
            let fail = |what: &str| Err(format!("chunk {} {what}", chunk.blob));
            let Some(volume) = chunk
                .volume
                .checked_sub(1)
                .and_then(|index| self.volumes.get(index as usize))
            else {
                return fail("is in a volume that does not exist");
            };
            let stop = chunk.offset.checked_add(u64::from(chunk.stored));
            if stop.is_none_or(|stop| stop > volume.size) {
                return fail("reaches past its volume");
            }
            if (chunk.volume, chunk.offset) < end {
                return fail("overlaps the one before");
            }
            if chunk.raw == 0 || u64::from(chunk.raw) > CHUNK_SIZE {
                return fail("has an impossible size");
            }
            if chunk.stored > max_stored(chunk.raw) {
                return fail("is stored larger than any encoding makes it");
            }
            if !seen.insert(chunk.blob) {
                return fail("is listed twice");
            }
            end = (chunk.volume, chunk.offset + u64::from(chunk.stored));
        }
        Ok(())
    }
}

/// The most bytes that a chunk may take when stored: noise in plane frames costs a little.
#[must_use]
pub fn max_stored(raw: u32) -> u32 {
    raw + raw / 256 + 1024
}

fn check_files(tree: Tree<'_>, chunks: &[Chunk]) -> std::result::Result<(), String> {
    for file in tree.files() {
        let mut size = 0;
        for (position, &index) in (1..).zip(&file.chunks) {
            let chunk = chunks
                .get(index as usize)
                .ok_or_else(|| format!("{} has a chunk that does not exist", file.path))?;
            if position < file.chunks.len() && u64::from(chunk.raw) != CHUNK_SIZE {
                return Err(format!("{} has a short chunk before its last", file.path));
            }
            size += u64::from(chunk.raw);
        }
        if size != file.size {
            return Err(format!(
                "{} has {} bytes but chunks of {size}",
                file.path, file.size
            ));
        }
    }
    check_disjoint(tree.files().iter().map(|file| file.path.as_str()))
}

/// No path may equal another, or be a directory of another.
fn check_disjoint<'a>(paths: impl Iterator<Item = &'a str>) -> std::result::Result<(), String> {
    let mut seen = BTreeSet::new();
    for path in paths {
        if !seen.insert(path) {
            return Err(format!("{path} is listed twice"));
        }
    }
    for path in &seen {
        let inside = path.match_indices('/').map(|(at, _)| &path[..at]);
        if let Some(parent) = inside.into_iter().find(|parent| seen.contains(parent)) {
            return Err(format!("{path} lies inside {parent}, which is listed too"));
        }
    }
    Ok(())
}

impl Name {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl FromStr for Name {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let fits = text.bytes().next().is_some_and(allowed)
            && text
                .bytes()
                .all(|byte| allowed(byte) || b"._-".contains(&byte))
            && text.len() <= 63;
        if fits {
            return Ok(Self(text.to_owned()));
        }
        Err(Error::Usage(format!(
            "name {text:?} must be 1 to 63 lower-case letters, digits, '.', '_' or '-', and start with a letter or digit"
        )))
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(<D::Error as serde::de::Error>::custom)
    }
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stored => f.write_str("stored"),
            Self::Zstd => f.write_str("zstd"),
            Self::Planes { width, rotate } => {
                write!(f, "planes{width}{}+zstd", if *rotate { "r" } else { "" })
            }
        }
    }
}

impl FromStr for Encoding {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Ok(match text {
            "stored" => Self::Stored,
            "zstd" => Self::Zstd,
            "planes2+zstd" => Self::Planes {
                width: 2,
                rotate: false,
            },
            "planes2r+zstd" => Self::Planes {
                width: 2,
                rotate: true,
            },
            "planes4+zstd" => Self::Planes {
                width: 4,
                rotate: false,
            },
            "planes4r+zstd" => Self::Planes {
                width: 4,
                rotate: true,
            },
            other => return Err(Error::Damaged(format!("unknown encoding {other:?}"))),
        })
    }
}

impl Serialize for Encoding {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Encoding {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(<D::Error as serde::de::Error>::custom)
    }
}
