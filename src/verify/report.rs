//! What a verification found, for people and for scripts.

use serde::Serialize;

use crate::bundle::manifest::Owner;
use crate::digest::Sha256;
use crate::error::{Error, Result};

/// What to do about damage, as the end of a sentence.
const AGAIN: &str =
    "carry these across again, or ask for what is lost with `bundle verify --request FILE`";

/// The result of reading a whole bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The bundle's name.
    pub name: String,
    /// Bytes of the volumes that were read.
    pub bytes: u64,
    /// Every volume of the manifest.
    pub volumes: Vec<VolumeReport>,
    /// The recovery volumes, if the bundle has any.
    pub recovery: Option<RecoveryReport>,
    /// What the bundle leaves to another one, if it builds on one.
    pub base: Option<BaseReport>,
    /// The fill volumes that are at hand.
    pub fills: Vec<FillReport>,
    /// Chunks that neither a volume nor a fill volume has intact, ascending.
    #[serde(skip)]
    pub lacking: Vec<u32>,
    /// Faults of the files beside the volumes.
    pub beside: Vec<BesideFault>,
    /// Files that cannot be installed from what is intact, as `MODEL: PATH`.
    pub incomplete: Vec<String>,
}

/// What a bundle leaves out because the one that it builds on has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BaseReport {
    /// Name and serial of that one, which must be installed first.
    pub bundle: String,
    /// Chunks that are left out.
    pub chunks: usize,
    /// Raw bytes of them.
    pub bytes: u64,
}

/// A fill volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FillReport {
    /// `fill-0123456789ab-0001.tar`.
    pub name: String,
    /// How many intact blobs of this bundle it has.
    pub blobs: usize,
    /// What is wrong with it; that part is ignored.
    pub fault: Option<String>,
}

/// The recovery volumes, and what they are good for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RecoveryReport {
    /// Every recovery volume of the manifest.
    pub volumes: Vec<VolumeReport>,
    /// Bytes of a shard.
    pub shard: u64,
    /// Shards of the volumes that are damaged or missing.
    pub lost: usize,
    /// Recovery shards that are intact: so many lost shards can be rebuilt.
    pub intact: usize,
}

impl RecoveryReport {
    /// What `bundle repair` can do about lost shards, as the end of a sentence.
    fn advice(&self) -> Option<String> {
        let bytes = self.lost as u64 * self.shard;
        match (self.lost, self.intact) {
            (0, _) => None,
            (lost, intact) if lost <= intact => Some(format!(
                "{bytes} bytes are damaged or missing, and `bundle repair` can rebuild them"
            )),
            (lost, intact) => Some(format!(
                "{bytes} bytes ({lost} shards) are damaged or missing, too much for `bundle repair`: \
                 {intact} recovery shards are intact; {AGAIN}"
            )),
        }
    }
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
    /// Some of it is damaged or missing, and fill volumes have all chunks concerned.
    Filled,
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
    /// The volumes in this state, recovery volumes too.
    pub fn volumes_that_are(&self, state: State) -> impl Iterator<Item = &VolumeReport> {
        self.all_volumes()
            .filter(move |volume| volume.state == state)
    }

    /// All volumes, the recovery volumes behind the others.
    pub fn all_volumes(&self) -> impl Iterator<Item = &VolumeReport> {
        let recovery = self.recovery.iter().flat_map(|recovery| &recovery.volumes);
        self.volumes.iter().chain(recovery)
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
        let advice = self.recovery.as_ref().and_then(RecoveryReport::advice);
        Err(Error::Damaged(format!(
            "bundle {} is not complete and intact; {}; {}",
            self.name,
            parts.join("; "),
            advice.unwrap_or_else(|| AGAIN.into())
        )))
    }
}
