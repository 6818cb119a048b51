//! Which versions of a bundle a node has, and the switch from one to another in two steps: every
//! node is prepared, and only then does any node switch. `docs/INSTALL.md` says why this is safe.

use std::path::{Path, PathBuf};

use super::home::{Home, Slot};
use super::state::{Generation, Stamp, State};
use super::{open_state, switch};
use crate::agent::protocol::{Version, Versions};
use crate::error::{Error, Result};
use crate::fs::Lock;

/// What a node has of a bundle. A switch that was begun counts as done: it always will be.
pub fn versions(root: &Path, name: &str) -> Result<Versions> {
    let state = State::read(&Home::new(root, name.parse()?))?;
    let version = |generation: Option<&Generation>| {
        generation.map(|generation| Version {
            manifest: generation.manifest,
        })
    };
    let (current, previous) = state.in_effect();
    Ok(Versions {
        current: version(current),
        previous: version(previous),
        sealed: version(state.sealed.as_ref()),
        prepared: state.prepared,
    })
}

/// A node that can put a version into place at once. It holds the bundle's lock.
pub struct Prepared {
    home: Home,
    state: State,
    version: Version,
    _lock: Lock,
}

impl Prepared {
    /// Makes sure that a version can be put into place, and writes down that it shall be: whoever
    /// finds this node behind the others then knows where it belongs.
    pub fn new(root: &Path, name: &str, version: Version) -> Result<Self> {
        let home = Home::new(root, name.parse()?);
        let (guard, mut state) = open_state(&home)?;
        let is_it = |generation: &Option<Generation>| {
            generation
                .as_ref()
                .is_some_and(|generation| generation.manifest == version.manifest)
        };
        if is_it(&state.sealed) && !is_whole(&home, state.sealed.as_ref()) {
            state.sealed = None;
        }
        if ![&state.current, &state.sealed, &state.previous]
            .into_iter()
            .any(is_it)
        {
            return Err(Error::Failed(format!(
                "this node does not have the version of {name} that shall be put into place; run `bundle install` again"
            )));
        }
        state.prepared = Some(version);
        state.write(&home)?;
        Ok(Self {
            home,
            state,
            version,
            _lock: guard,
        })
    }

    /// Puts the version into place. What was there becomes the previous generation, except for a
    /// repair of the same content: then it is dropped.
    pub fn activate(mut self) -> Result<()> {
        let wanted = |generation: &Generation| generation.manifest == self.version.manifest;
        self.state.prepared = None;
        if let Some(sealed) = self.state.sealed.clone().filter(wanted) {
            switch::publish(&self.home, &mut self.state, sealed)
        } else if self.state.current.as_ref().is_some_and(wanted) {
            self.state.write(&self.home)
        } else {
            switch::go_back(&self.home, &mut self.state)
        }
    }
}

/// Whether everything that was sealed still looks as it did then.
fn is_whole(home: &Home, sealed: Option<&Generation>) -> bool {
    let Some(sealed) = sealed else { return false };
    let staged = |published: &Path| -> PathBuf {
        let below = sealed.roots.iter().find_map(|root| {
            let rest = published.strip_prefix(home.place(root)).ok()?;
            Some(home.slot(root, Slot::Staging).join(rest))
        });
        below.unwrap_or_else(|| published.to_owned())
    };
    sealed
        .files
        .iter()
        .all(|(path, proof)| Stamp::at(&staged(path)) == Some(proof.stamp))
}
