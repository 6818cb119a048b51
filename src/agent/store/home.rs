//! Where a bundle keeps what on a node.

use std::path::{Path, PathBuf};

use crate::bundle::manifest::Name;
use crate::digest::Sha256;
use crate::path::AbsPath;

/// Below the node's root.
const STATE: &str = "var/lib/bundle";

/// Name of the directory beside models, on the same filesystem as they are.
pub const BESIDE: &str = ".bundle";

/// The places of one bundle on a node.
#[derive(Clone)]
pub struct Home {
    root: PathBuf,
    name: Name,
}

/// A directory beside a model's final place, for content that is not in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Slot {
    /// Being filled.
    Staging,
    /// The generation to go back to.
    Previous,
    /// Out of the way for a moment, during a switch.
    Aside,
    /// To be removed.
    Trash,
}

impl Slot {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Staging, Self::Previous, Self::Aside, Self::Trash];
}

impl Home {
    /// The bundle `name` on the node whose `/` is `root`.
    pub fn new(root: &Path, name: Name) -> Self {
        Self {
            root: root.to_owned(),
            name,
        }
    }

    /// Another bundle on the same node.
    pub fn sibling(&self, name: Name) -> Self {
        Self::new(&self.root, name)
    }

    /// The directory that holds the state of all bundles.
    pub fn all(root: &Path) -> PathBuf {
        root.join(STATE)
    }

    /// The bundle's name.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// Records, manifests and image blobs.
    pub fn dir(&self) -> PathBuf {
        Self::all(&self.root).join(self.name.as_str())
    }

    /// Held while something changes.
    pub fn lock_file(&self) -> PathBuf {
        self.dir().join("lock")
    }

    /// See [`super::state::State`].
    pub fn state_file(&self) -> PathBuf {
        self.dir().join("state.json")
    }

    /// Exact bytes of the manifests of all generations.
    pub fn manifests(&self) -> PathBuf {
        self.dir().join("manifests")
    }

    /// Exact bytes of one manifest.
    pub fn manifest(&self, identity: Sha256) -> PathBuf {
        self.manifests().join(format!("{identity}.json"))
    }

    /// Proven image blobs of all generations.
    pub fn blobs(&self) -> PathBuf {
        self.dir().join("images/blobs/sha256")
    }

    /// A proven image blob.
    pub fn blob(&self, digest: Sha256) -> PathBuf {
        self.blobs().join(digest.to_string())
    }

    /// Image blobs that are being filled.
    pub fn staged_blobs(&self) -> PathBuf {
        self.dir().join("images/staging")
    }

    /// A model's final place.
    pub fn place(&self, model: &AbsPath) -> PathBuf {
        model.below(&self.root)
    }

    /// The directory beside a model that holds all of its slots.
    pub fn beside(&self, model: &AbsPath) -> PathBuf {
        let parent = model.parent().trim_start_matches('/');
        self.root.join(parent).join(BESIDE).join(self.name.as_str())
    }

    /// A model's content outside of its final place.
    pub fn slot(&self, model: &AbsPath, slot: Slot) -> PathBuf {
        let dir = match slot {
            Slot::Staging => "staging",
            Slot::Previous => "previous",
            Slot::Aside => "aside",
            Slot::Trash => "trash",
        };
        self.beside(model).join(dir).join(model.name())
    }
}
