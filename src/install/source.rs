//! Where a bundle's chunks come from: its media, or a node that has it in place.

use super::activate;
use crate::agent::fleet::Member;
use crate::agent::protocol::{Answer, Request, Versions};
use crate::bundle::manifest::{Manifest, Name};
use crate::bundle::media::Media;
use crate::error::{Error, Result};

/// A bundle to install.
pub enum Source {
    /// From its media.
    Media(Media),
    /// From the nodes that have it.
    Nodes {
        /// What it holds.
        manifest: Manifest,
        /// The exact bytes of its manifest.
        text: Vec<u8>,
    },
}

impl Source {
    /// The version that the nodes which have the bundle agree on.
    pub fn of_nodes(members: &[Member], name: &Name) -> Result<Self> {
        let known = activate::versions(members, name)?;
        let has_it = |node: &Versions| node.current.is_some();
        let having: Vec<activate::Known> = known
            .iter()
            .filter(|(_, node)| has_it(node))
            .cloned()
            .collect();
        let wanted = activate::agreed(name, &having)?;
        let giver = members
            .iter()
            .zip(&known)
            .find(|(_, (_, node))| node.current == Some(wanted));
        let Some((giver, _)) = giver else {
            return Err(no_giver(name));
        };
        let request = Request::Installed {
            name: name.to_string(),
        };
        match giver.link.call(request)? {
            Answer::Installed {
                manifest: Some(text),
            } => Ok(Self::Nodes {
                manifest: Manifest::parse(text.as_bytes())?,
                text: text.into_bytes(),
            }),
            Answer::Installed { manifest: None } => Err(no_giver(name)),
            _ => Err(giver.link.unexpected()),
        }
    }

    /// What the bundle holds.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        match self {
            Self::Media(media) => media.manifest(),
            Self::Nodes { manifest, .. } => manifest,
        }
    }

    /// The exact bytes of `bundle.json`.
    #[must_use]
    pub fn manifest_bytes(&self) -> &[u8] {
        match self {
            Self::Media(media) => media.manifest_bytes(),
            Self::Nodes { text, .. } => text,
        }
    }

    /// Whether a chunk can be had. Of nodes, that shows when they are asked for it.
    #[must_use]
    pub fn has_chunk(&self, index: u32) -> bool {
        match self {
            Self::Media(media) => media.has_chunk(index),
            Self::Nodes { .. } => true,
        }
    }
}

/// No node has all of it.
#[must_use]
pub fn no_giver(name: &Name) -> Error {
    Error::Damaged(format!(
        "no node has all of {name} in place; its media are needed"
    ))
}
