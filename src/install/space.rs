//! Whether what is missing on a node fits its disks, before the first byte is sent.

use std::collections::BTreeMap;

use crate::agent::facts::{Facts, Space};
use crate::bundle::manifest::{Manifest, Tree};
use crate::error::{Error, Result};
use crate::path::AbsPath;

/// Left free on every filesystem: logs, and what others write meanwhile.
const SLACK: u64 = 256 << 20;

/// Where image blobs and state are kept on a node.
pub const STATE_DIR: &str = "/var/lib/bundle";

/// The directories whose filesystems the node's facts must cover, in this order.
pub fn paths(manifest: &Manifest) -> Result<Vec<AbsPath>> {
    let parent_of = |root: &AbsPath| match root.parent() {
        "/" => Ok(root.clone()),
        parent => parent.parse(),
    };
    manifest
        .roots()
        .map(parent_of)
        .chain([STATE_DIR.parse()])
        .collect()
}

/// Checks one node. `missing` are half-open ranges of chunk indices, `load` says of each image
/// whether it has yet to go into the runtime's own storage.
pub fn check(
    node: &str,
    manifest: &Manifest,
    facts: &Facts,
    missing: &[(u32, u32)],
    load: &[bool],
) -> Result<()> {
    let state = manifest.roots().count();
    let mut roots = 0..state;
    let mut uses: Vec<(usize, u64)> = Vec::new();
    for tree in manifest.trees() {
        let bytes = missing_bytes(manifest, tree, missing);
        if let Tree::Image(_) = tree {
            uses.push((state, bytes));
        } else {
            uses.extend(roots.next().map(|root| (root, bytes)));
        }
    }
    let unpacked = manifest.images.iter().zip(load).map(|(image, load)| {
        let bytes = image.files.iter().map(|file| file.size).sum();
        if *load { bytes } else { 0 }
    });
    let unpacked: Vec<u64> = unpacked.collect();
    uses.push((state + 1, unpacked.iter().sum()));
    // One image is loaded after another.
    let largest = unpacked.iter().copied().max().unwrap_or(0);
    uses.push((state + 2, copies_while_loading(facts) * largest));
    let mut needs: BTreeMap<u64, (u64, &Space)> = BTreeMap::new();
    for (place, bytes) in uses {
        // What a node could not measure cannot be held against it.
        if let Some(space) = facts.space.get(place) {
            needs.entry(space.device).or_insert((0, space)).0 += bytes;
        }
    }
    for (bytes, space) in needs.values() {
        if *bytes > 0 && bytes + SLACK > space.free {
            return Err(Error::NoSpace(format!(
                "{node}: the filesystem of {} has {} MiB free, {} MiB are needed; free some space there",
                space.path,
                space.free >> 20,
                (bytes + SLACK) >> 20
            )));
        }
    }
    Ok(())
}

/// How often the runtime has an image beside its own storage while it loads it. Docker and
/// containerd keep the archive that they were sent; podman 4.3 keeps it, unpacks it and sets every
/// layer aside (measured: 1717 MiB in /var/tmp for an image of 573).
fn copies_while_loading(facts: &Facts) -> u64 {
    match &facts.runtime {
        Some(runtime) if runtime.command == "podman" => 3,
        _ => 1,
    }
}

/// Raw bytes of a tree's chunks that are in the ranges; a chunk counts where it is used.
fn missing_bytes(manifest: &Manifest, tree: Tree<'_>, missing: &[(u32, u32)]) -> u64 {
    let is_missing = |chunk: &u32| missing.iter().any(|(from, to)| (from..to).contains(&chunk));
    tree.files()
        .iter()
        .flat_map(|file| &file.chunks)
        .filter(|chunk| is_missing(chunk))
        .filter_map(|&chunk| manifest.chunks.get(chunk as usize))
        .map(|chunk| u64::from(chunk.raw))
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::facts::Runtime;
    use crate::bundle::cluster_spec::ClusterSpec;
    use crate::bundle::manifest::{
        Chunk, Encoding, Extra, FORMAT, FileEntry, Image, ImageFacts, Model,
    };
    use crate::digest::{Blake3, Sha256};

    const CHUNK: u32 = 16 << 20;

    fn chunk(number: u8) -> Chunk {
        Chunk {
            blob: Sha256::of(&[number]),
            stored: CHUNK,
            raw: CHUNK,
            blake3: Blake3::of(b""),
            encoding: Encoding::Stored,
            volume: 1,
            offset: 0,
        }
    }

    /// A model of 100 chunks, an image of 50 and an extra directory of 10.
    fn manifest() -> Manifest {
        let file = |chunks: std::ops::Range<u32>| FileEntry {
            path: "f".parse().unwrap(),
            size: u64::from(CHUNK) * chunks.len() as u64,
            sha256: Sha256::of(b""),
            chunks: chunks.collect(),
        };
        let model = Model {
            repo: "a/b".into(),
            revision: "main".into(),
            commit: None,
            path: "/data/m".parse().unwrap(),
            files: vec![file(0..100)],
        };
        let image = Image {
            reference: "i:1".into(),
            platform: "linux/amd64".into(),
            config: Sha256::of(b""),
            layers: Vec::new(),
            registry_digest: None,
            facts: ImageFacts::default(),
            layer_facts: Vec::new(),
            files: vec![file(100..150)],
        };
        let extra = Extra {
            path: "/opt/tools".parse().unwrap(),
            executable: Vec::new(),
            files: vec![file(150..160)],
        };
        Manifest {
            format: FORMAT,
            name: "x".parse().unwrap(),
            serial: 0,
            base: None,
            models: vec![model],
            images: vec![image],
            extras: vec![extra],
            cluster: ClusterSpec::default(),
            chunks: (0..160).map(chunk).collect(),
            volumes: Vec::new(),
            parity: None,
        }
    }

    /// Free MiB on the filesystems of /data, /opt, the state directory, docker and its archives.
    fn facts(devices: [u64; 5], free: [u64; 5]) -> Facts {
        let space = ["/data", "/opt", STATE_DIR, "/var/lib/docker", "/var/tmp"]
            .iter()
            .zip(devices)
            .zip(free)
            .map(|((path, device), free)| Space {
                path: path.parse().unwrap(),
                device,
                free: free << 20,
            })
            .collect();
        Facts {
            space,
            ..Facts::default()
        }
    }

    #[test]
    fn needs_of_one_filesystem_add_up() {
        let all = [(0, 160)];
        let fits = |devices, free, load: bool| {
            check("n1", &manifest(), &facts(devices, free), &all, &[load]).is_ok()
        };
        // 1600 MiB of model, 160 of extras, 800 of image blobs, 800 in docker, 800 more while it
        // loads, 256 of slack each.
        let exact = [1856, 416, 1056, 1056, 1056];
        assert!(fits([1, 2, 3, 4, 5], exact, true));
        for place in 0..5 {
            let mut less = exact;
            less[place] -= 1;
            assert!(!fits([1, 2, 3, 4, 5], less, true), "{place}");
        }
        assert!(fits([1; 5], [4416; 5], true));
        assert!(!fits([1; 5], [4415; 5], true));
        assert!(fits([1, 2, 3, 4, 4], [1856, 416, 1056, 1856, 1856], true));
        assert!(!fits([1, 2, 3, 4, 4], [1856, 416, 1056, 1855, 1855], true));
        // An image that is loaded already needs no room there.
        assert!(fits([1, 2, 3, 4, 4], [1856, 416, 1056, 0, 0], false));
    }

    #[test]
    fn podman_needs_three_times_the_image_while_it_loads() {
        let fits = |free| {
            let mut facts = facts([1, 2, 3, 4, 5], [1856, 416, 1056, 1056, free]);
            facts.runtime = Some(Runtime {
                command: "podman".into(),
                version: "4.3.1".into(),
            });
            check("n1", &manifest(), &facts, &[(0, 160)], &[true]).is_ok()
        };
        assert!(fits(2656));
        assert!(!fits(2655));
    }

    #[test]
    fn only_what_is_missing_counts() {
        let facts = facts([1, 2, 3, 4, 5], [300, 0, 0, 0, 0]);
        assert!(check("n1", &manifest(), &facts, &[(10, 12)], &[false]).is_ok());
        let error = check("n1", &manifest(), &facts, &[(10, 13)], &[false]).unwrap_err();
        assert_eq!(error.exit_code(), 13);
        assert!(
            error
                .to_string()
                .starts_with("n1: the filesystem of /data has 300 MiB"),
            "{error}"
        );
    }

    #[test]
    fn the_paths_asked_for_are_those_looked_up() {
        let paths: Vec<String> = super::paths(&manifest())
            .unwrap()
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(paths, ["/data", "/opt", STATE_DIR]);
    }
}
