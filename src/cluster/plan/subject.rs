//! What a plan is about, taken from a bundle.

use super::{Machine, Subject};
use crate::agent::facts::Facts;
use crate::bundle::manifest::{Manifest, Model};
use crate::cluster::compatibility::numbers;
use crate::error::{Error, Result};

/// Endings of files that hold tensors, and nothing else of size.
const WEIGHTS: [&str; 4] = [".safetensors", ".gguf", ".bin", ".pt"];

/// The first model of a bundle, with the text of its `config.json`.
#[must_use]
pub fn of_bundle(manifest: &Manifest, config: String) -> Subject {
    Subject {
        config,
        weights: manifest.models.first().map_or(0, of_model),
        cuda: manifest
            .images
            .first()
            .and_then(|image| image.facts.cuda.clone()),
        serve_args: manifest.cluster.serve_args.clone(),
    }
}

fn of_model(model: &Model) -> u64 {
    let files = model.files.iter();
    let sizes: Vec<_> = files.map(|file| (file.path.as_str(), file.size)).collect();
    weights(&sizes)
}

/// Bytes of a model's tensors, from the names and sizes of its files.
#[must_use]
pub fn weights(files: &[(&str, u64)]) -> u64 {
    let of = |ending: &str| -> u64 {
        let files = files.iter().filter(|(path, _)| path.ends_with(ending));
        files.map(|(_, size)| size).sum()
    };
    // A repository may hold the same weights in several formats; the first is the one that loads.
    WEIGHTS
        .iter()
        .map(|ending| of(ending))
        .find(|&bytes| bytes > 0)
        .unwrap_or(0)
}

/// The machine that these nodes are: the least of each fact counts.
pub fn machine(facts: &[Facts], gpus_per_node: u32) -> Result<Machine> {
    let gpus = || facts.iter().flat_map(|facts| &facts.gpus);
    let memory = gpus().map(|gpu| gpu.memory_mib).min();
    let capability = gpus()
        .map(|gpu| gpu.compute_capability.as_str())
        .min_by_key(|text| numbers(text));
    let (Some(memory_mib), Some(capability)) = (memory, capability) else {
        return Err(Error::Usage(
            "no node has a GPU, so there is nothing to plan".into(),
        ));
    };
    let drivers = facts.iter().filter_map(|facts| facts.driver.clone());
    Ok(Machine {
        nodes: u32::try_from(facts.len()).unwrap_or(u32::MAX),
        gpus_per_node,
        memory_mib,
        capability: capability.to_owned(),
        driver: drivers.min_by_key(|version| numbers(version)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::facts::Gpu;

    #[test]
    fn the_least_of_each_fact_counts() {
        let node = |memory_mib, capability: &str, driver: &str| Facts {
            gpus: vec![Gpu {
                name: String::new(),
                memory_mib,
                compute_capability: capability.into(),
            }],
            driver: Some(driver.into()),
            ..Facts::default()
        };
        let nodes = [
            node(81559, "10.0", "1000.1"),
            node(183_359, "9.0", "580.65.06"),
        ];
        let machine = machine(&nodes, 1).unwrap();
        assert_eq!(
            (machine.memory_mib, machine.capability.as_str()),
            (81559, "9.0")
        );
        assert_eq!(machine.driver.as_deref(), Some("580.65.06"));
    }

    #[test]
    fn the_format_that_loads_counts() {
        let files = [
            ("a.safetensors", 5),
            ("b.safetensors", 6),
            ("a.bin", 11),
            ("t.json", 3),
        ];
        assert_eq!(weights(&files), 11);
        assert_eq!(weights(&[("x.gguf", 7)]), 7);
        assert_eq!(weights(&[("x.txt", 7)]), 0);
    }
}
