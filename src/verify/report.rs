//! What a verification found, for people and for scripts.

use serde::Serialize;

use crate::bundle::manifest::Owner;
use crate::digest::Sha256;
use crate::error::{Error, Result};

/// The result of reading a whole bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The bundle's name.
    pub name: String,
    /// Bytes of the volumes that were read.
    pub bytes: u64,
    /// Every volume of the manifest.
    pub volumes: Vec<VolumeReport>,
    /// Faults of the files beside the volumes.
    pub beside: Vec<BesideFault>,
    /// Files that cannot be installed from what is intact, as `MODEL: PATH`.
    pub incomplete: Vec<String>,
}

/// A volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VolumeReport {
    /// `vol-0001.tar`.
    pub name: String,
    /// How it is.
    pub state: State,
    /// What is wrong with it, by offset.
    pub faults: Vec<Fault>,
}

/// How a volume is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Every byte is the right one.
    Intact,
    /// Some bytes are not.
    Damaged,
    /// It is not at hand.
    Missing,
}

/// Damage inside a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// First byte of the damaged part in the volume.
    pub offset: u64,
    /// What is wrong there.
    pub what: String,
    /// The blob that is damaged; absent for bytes around the blobs.
    pub chunk: Option<Sha256>,
    /// The files that it belongs to.
    pub owners: Vec<Owner>,
}

/// A file beside the volumes that is not as `SHA256SUMS` or the manifest says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BesideFault {
    /// The file.
    pub name: String,
    /// What is wrong with it.
    pub what: String,
}

impl Report {
    /// The volumes in this state.
    pub fn volumes_that_are(&self, state: State) -> impl Iterator<Item = &VolumeReport> {
        self.volumes
            .iter()
            .filter(move |volume| volume.state == state)
    }

    /// `Ok` when nothing is damaged or missing, else [`Error::Damaged`] with the counts and what
    /// to do.
    pub fn outcome(&self) -> Result<()> {
        let names = |state| -> Vec<&str> {
            self.volumes_that_are(state)
                .map(|volume| volume.name.as_str())
                .collect()
        };
        let beside = self.beside.iter().map(|fault| fault.name.as_str());
        let lists = [
            (
                "damaged",
                [names(State::Damaged), beside.collect()].concat(),
            ),
            ("missing", names(State::Missing)),
        ];
        let parts: Vec<String> = lists
            .iter()
            .filter(|(_, names)| !names.is_empty())
            .map(|(state, names)| format!("{state}: {}", names.join(", ")))
            .collect();
        if parts.is_empty() {
            return Ok(());
        }
        Err(Error::Damaged(format!(
            "bundle {} is not complete and intact; {}; carry these across again",
            self.name,
            parts.join("; ")
        )))
    }
}
