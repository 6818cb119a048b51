//! A node's store for one bundle: takes chunks, keeps them in a staging directory next to the
//! final place, and puts everything into place at once.
//!
//! There is no journal of chunks: the files themselves say what is there. So a first install, a
//! resumed one, the repair of a damaged file and an update that changes a few chunks are the same
//! code: compare each chunk with the manifest, fetch what differs, sync, switch.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, RwLock};

use crate::agent::child::lock;
use crate::bundle::codec::Decoder;
use crate::bundle::manifest::Manifest;
use crate::digest::Sha256;
use crate::error::{Error, Result};
use crate::fs::Lock;
use crate::parallel::Buffers;
use crate::relay::Put;

mod base;
mod fill;
mod generations;
mod give;
mod home;
mod inventory;
mod look;
mod parallel;
mod place;
mod prepare;
mod seal;
mod state;
mod switch;
mod targets;
mod versions;

pub use generations::{blob, installed, manifest, names, prune, verify};
pub use versions::{Prepared, versions};

pub use look::{Look, look};

use fill::Filling;
use home::Home;
use state::State;
use targets::Targets;

/// An opened store; its lock is held until it is dropped.
pub struct Store {
    home: Home,
    manifest: Manifest,
    manifest_text: String,
    identity: Sha256,
    targets: Targets,
    in_place: bool,
    state: Mutex<State>,
    /// What is there of each target, in their order; empty before the inventory.
    fillings: RwLock<Vec<Mutex<Filling>>>,
    decoders: Mutex<Vec<Decoder>>,
    buffers: Buffers,
    _lock: Lock,
}

impl Store {
    /// Opens the store of a bundle for the node whose `/` is `root`, and ends a switch that a
    /// crash interrupted. [`Error::Locked`] when another process has it open.
    pub fn open(root: &Path, manifest_text: String) -> Result<Self> {
        let manifest = Manifest::parse(manifest_text.as_bytes())?;
        let home = Home::new(root, manifest.name.clone());
        for root in manifest.roots() {
            place::check(root)?;
            place::check_no_mount(&home.place(root))?;
        }
        let (guard, mut state) = open_state(&home)?;
        let identity = Sha256::of(manifest_text.as_bytes());
        let targets = Targets::of(&manifest, &home)?;
        let in_place = state.holds(identity, &targets);
        if !in_place {
            state.remember_staging(manifest.roots());
            state.write(&home)?;
        }
        Ok(Self {
            home,
            manifest,
            manifest_text,
            identity,
            targets,
            in_place,
            state: Mutex::new(state),
            fillings: RwLock::default(),
            decoders: Mutex::default(),
            buffers: Buffers::default(),
            _lock: guard,
        })
    }

    /// The manifest that it was opened with.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Whether everything is published already and looks unchanged (sizes, times, inodes).
    #[must_use]
    pub fn in_place(&self) -> bool {
        self.in_place
    }

    /// Refuses the bundle when one with a higher serial is installed under its name. Content that
    /// cannot be read any more keeps nobody from installing.
    pub fn refuse_older(&self) -> Result<()> {
        refuse_older(&self.manifest, &lock(&self.state), &self.home)
    }

    /// Where an image blob is once the store is sealed.
    #[must_use]
    pub fn blob(&self, digest: Sha256) -> PathBuf {
        self.home.blob(digest)
    }
}

impl crate::relay::Store for Store {
    fn put(&self, chunk: u32, stored: &[u8]) -> Result<Put> {
        self.keep(chunk, stored)
    }
}

fn refuse_older(manifest: &Manifest, state: &State, home: &Home) -> Result<()> {
    let installed = state.current_manifest(home);
    match installed.filter(|installed| installed.serial > manifest.serial) {
        None => Ok(()),
        Some(newer) => Err(Error::Untrusted(format!(
            "{} has serial {}, but serial {} is installed: it may be an old copy that came back; install a newer one, or say --allow-older",
            manifest.name, manifest.serial, newer.serial
        ))),
    }
}

/// Takes a bundle's lock, reads its state and ends an interrupted switch.
fn open_state(home: &Home) -> Result<(Lock, State)> {
    crate::fs::create_dir_all(&home.dir())?;
    let guard = Lock::take(
        &home.lock_file(),
        &format!("working on {} on this node", home.name()),
    )?;
    let mut state = State::read(home)?;
    switch::finish(home, &mut state)?;
    Ok((guard, state))
}
