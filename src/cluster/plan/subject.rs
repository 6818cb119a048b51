//! What a plan is about, taken from a bundle.

use super::{Machine, Subject};
use crate::agent::facts::Facts;
use crate::bundle::manifest::{Manifest, Model};
use crate::error::{Error, Result};

/// Endings of files that hold tensors, and nothing else of size.
const WEIGHTS: [&str; 4] = [".safetensors", ".gguf", ".bin", ".pt"];

/// The first model of a bundle, with the text of its `config.json`.
#[must_use]
pub fn of_bundle(manifest: &Manifest, config: String) -> Subject {
    Subject {
        config,
        weights: manifest.models.first().map_or(0, weights),
        cuda: manifest
            .images
            .first()
            .and_then(|image| image.facts.cuda.clone()),
        serve_args: manifest.cluster.serve_args.clone(),
    }
}

/// Bytes of a model's tensors.
fn weights(model: &Model) -> u64 {
    let of = |ending: &str| -> u64 {
        let files = model
            .files
            .iter()
            .filter(|file| file.path.as_str().ends_with(ending));
        files.map(|file| file.size).sum()
    };
    // A repository may hold the same weights in several formats; the first is the one that loads.
    WEIGHTS
        .iter()
        .map(|ending| of(ending))
        .find(|&bytes| bytes > 0)
        .unwrap_or(0)
}

/// The machine that these nodes are: the weakest GPU counts.
pub fn machine(facts: &[Facts], gpus_per_node: u32) -> Result<Machine> {
    let gpus = facts.iter().flat_map(|facts| &facts.gpus);
    let weakest = gpus
        .min_by_key(|gpu| (gpu.memory_mib, gpu.compute_capability.clone()))
        .ok_or_else(|| Error::Usage("no node has a GPU, so there is nothing to plan".into()))?;
    Ok(Machine {
        nodes: u32::try_from(facts.len()).unwrap_or(u32::MAX),
        gpus_per_node,
        memory_mib: weakest.memory_mib,
        capability: weakest.compute_capability.clone(),
        driver: facts.iter().filter_map(|facts| facts.driver.clone()).min(),
    })
}
