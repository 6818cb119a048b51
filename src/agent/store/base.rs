//! Chunks that need not come over the network because a file on this node holds them: one that
//! stands where ours will be, of this bundle's last generation, or of the base that it builds on.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Mutex;

use super::fill::Filling;
use super::home::Home;
use super::inventory::Found;
use super::state::State;
use super::targets::{Target, Targets};
use super::{Store, parallel};
use crate::agent::child::lock;
use crate::bundle::manifest::Manifest;
use crate::digest::Blake3;
use crate::error::Result;
use crate::fs::read_direct;
use crate::parallel::Buffers;

/// Where the raw bytes of chunks may stand.
#[derive(Default)]
struct Sources(HashMap<Blake3, (PathBuf, u64)>);

impl Sources {
    /// Adds what was found of a target outside of staging.
    fn add_found(&mut self, target: &Target, found: &Found, manifest: &Manifest) {
        let (path, marked) = match found {
            Found::Whole(_) => return,
            Found::Elsewhere(path, _) => (path, &vec![true; target.entry.chunks.len()]),
            Found::Parts { old, .. } => (&target.published, old),
        };
        let chunks = manifest.chunks_of(&target.entry).enumerate();
        for (position, chunk) in chunks.filter(|(position, _)| marked[*position]) {
            let (start, _) = target.span(position);
            self.0.insert(chunk.blake3, (path.clone(), start));
        }
    }

    /// Adds the chunks of what is installed in `home`.
    fn add(&mut self, home: &Home, state: &State) -> Result<()> {
        let Some(manifest) = state.current_manifest(home) else {
            return Ok(());
        };
        let targets = Targets::of(&manifest, home)?;
        for (chunk, uses) in manifest.chunks.iter().zip(&targets.uses) {
            if let Some(place) = uses.first() {
                let target = &targets.list[place.target];
                let (start, _) = target.span(place.position);
                let source = (target.published.clone(), start);
                self.0.entry(chunk.blake3).or_insert(source);
            }
        }
        Ok(())
    }
}

impl Store {
    /// The home of the bundle that this one builds on, when it has another name.
    pub(super) fn base_home(&self) -> Option<Home> {
        let base = self.manifest.base.as_ref()?;
        (base.name != *self.home.name()).then(|| self.home.sibling(base.name.clone()))
    }

    /// Copies chunks that are lacking from files that are here. What those no longer hold stays
    /// lacking.
    pub(super) fn fill_from_here(
        &self,
        found: &[Found],
        fillings: &[Mutex<Filling>],
    ) -> Result<()> {
        let mut sources = Sources::default();
        for (target, found) in self.targets.list.iter().zip(found) {
            sources.add_found(target, found, &self.manifest);
        }
        sources.add(&self.home, &lock(&self.state))?;
        if let Some(base) = self.base_home() {
            sources.add(&base, &State::read(&base)?)?;
        }
        let lacking: Vec<usize> = (0..self.manifest.chunks.len())
            .filter(|&index| sources.0.contains_key(&self.manifest.chunks[index].blake3))
            .filter(|&index| !self.lacking(index, fillings).is_empty())
            .collect();
        let buffers = Buffers::default();
        parallel::map(lacking.len(), |position| {
            self.copy_chunk(lacking[position], &sources, fillings, &buffers)
        })
        .map(drop)
    }

    fn copy_chunk(
        &self,
        index: usize,
        sources: &Sources,
        fillings: &[Mutex<Filling>],
        buffers: &Buffers,
    ) -> Result<()> {
        let chunk = &self.manifest.chunks[index];
        let Some((path, start)) = sources.0.get(&chunk.blake3) else {
            return Ok(());
        };
        let mut raw = buffers.aligned(chunk.raw as usize);
        if read_direct(path, &mut raw, *start).is_err() || !chunk.is(&raw) {
            return Ok(());
        }
        let uses = self.lacking(index, fillings);
        uses.into_iter()
            .try_for_each(|place| self.write(place, &raw, fillings))
    }
}
