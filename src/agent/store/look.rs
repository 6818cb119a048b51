//! What an install would find, for `check`: nothing is written, hashed or locked.

use std::fs;
use std::path::Path;

use super::home::Home;
use super::state::State;
use super::targets::{Target, Targets};
use super::{place, refuse_older};
use crate::bundle::manifest::Manifest;
use crate::bundle::ranges::ranges;
use crate::digest::Sha256;
use crate::error::Result;

/// What a look at a bundle's places shows.
pub struct Look {
    /// All content is published and unchanged since.
    pub in_place: bool,
    /// Half-open ranges of the chunks that no file of the right size can hold. More may be
    /// missing: only their hashes tell.
    pub lacking: Vec<(u32, u32)>,
}

/// Looks for a bundle on the node whose `/` is `root`; refuses an older edition of what is
/// installed, unless `allow_older`.
pub fn look(root: &Path, manifest_text: &str, allow_older: bool) -> Result<Look> {
    let manifest = Manifest::parse(manifest_text.as_bytes())?;
    let home = Home::new(root, manifest.name.clone());
    for path in manifest.roots() {
        place::check(path)?;
        place::check_no_mount(&home.place(path))?;
    }
    let targets = Targets::of(&manifest, &home)?;
    let identity = Sha256::of(manifest_text.as_bytes());
    let state = State::read(&home)?;
    if !allow_older {
        refuse_older(&manifest, &state, &home)?;
    }
    let in_place = state.holds(identity, &targets);
    let mut lacking = vec![false; manifest.chunks.len()];
    for target in targets.list.iter().filter(|target| !is_there(target)) {
        for &chunk in &target.entry.chunks {
            if let Some(chunk) = lacking.get_mut(chunk as usize) {
                *chunk = true;
            }
        }
    }
    Ok(Look {
        in_place,
        lacking: ranges(
            (0..)
                .zip(lacking)
                .filter_map(|(index, set)| set.then_some(index)),
        ),
    })
}

/// A file of its size stands in staging, where room is made at once, or at its place.
fn is_there(target: &Target) -> bool {
    [&target.staged, &target.published]
        .into_iter()
        .filter_map(|path| fs::metadata(path).ok())
        .any(|metadata| metadata.is_file() && metadata.len() == target.entry.size)
}
