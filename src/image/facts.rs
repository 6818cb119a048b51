//! What an image is, as far as the names in its layers and its environment tell.

use serde_json::Value;

use super::scanner::Scanner;
use crate::bundle::manifest::{ImageFacts, LayerFacts};

/// Watches a layer while it streams past.
pub struct Watch {
    scanner: Scanner,
    facts: LayerFacts,
}

impl Watch {
    /// At the start of a layer.
    pub fn new() -> Self {
        Self {
            scanner: Scanner::new(),
            facts: LayerFacts::default(),
        }
    }

    /// The next bytes of the layer, uncompressed.
    pub fn update(&mut self, bytes: &[u8]) {
        self.scanner
            .update(bytes, &mut |name| see(&mut self.facts, name));
    }

    /// What was seen.
    pub fn finish(self) -> LayerFacts {
        self.facts
    }
}

/// Notes what the name of an entry tells.
fn see(facts: &mut LayerFacts, path: &str) {
    let mut parts = path.trim_end_matches('/').rsplit('/');
    let (name, parent) = (
        parts.next().unwrap_or_default(),
        parts.next().unwrap_or_default(),
    );
    match name {
        "ray" if parent == "bin" => facts.ray_executable = true,
        ".wh.ray" if parent == "bin" => facts.ray_removed = true,
        _ => {}
    }
    if let Some(version) = distribution(name, "vllm").or(distribution(parent, "vllm")) {
        facts.vllm = Some(version);
    }
    if let Some(version) = distribution(name, "ray").or(distribution(parent, "ray")) {
        facts.ray = Some(version);
    }
}

/// The version in `NAME-VERSION.dist-info`.
fn distribution(directory: &str, name: &str) -> Option<String> {
    let version = directory
        .strip_suffix(".dist-info")?
        .strip_prefix(name)?
        .strip_prefix('-')?;
    Some(version.to_owned())
}

/// The facts of an image: its layers lowest first, and its config.
pub fn combine(layers: &[LayerFacts], config: &Value) -> ImageFacts {
    let (mut vllm, mut version, mut executable) = (None, None, false);
    for layer in layers {
        vllm = layer.vllm.clone().or(vllm);
        version = layer.ray.clone().or(version);
        executable = (executable && !layer.ray_removed) || layer.ray_executable;
    }
    let ray = executable.then(|| version.unwrap_or_else(|| "of unknown version".to_owned()));
    ImageFacts {
        vllm,
        ray,
        cuda: environment(config, "CUDA_VERSION"),
    }
}

fn environment(config: &Value, name: &str) -> Option<String> {
    let variables = config["config"]["Env"].as_array()?;
    let mut pairs = variables
        .iter()
        .filter_map(|variable| variable.as_str()?.split_once('='));
    pairs
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(names: &[&str]) -> LayerFacts {
        let mut facts = LayerFacts::default();
        for name in names {
            see(&mut facts, name);
        }
        facts
    }

    #[test]
    fn vllm_and_ray_are_recognised_by_their_files() {
        let layers = [
            layer(&[
                "usr/local/bin/ray",
                "usr/lib/python3/ray-2.9.0.dist-info/METADATA",
            ]),
            layer(&[
                "usr/lib/python3/vllm-0.6.4.post1.dist-info/",
                "usr/bin/vllm",
            ]),
        ];
        let config = serde_json::json!({"config": {"Env": ["PATH=/bin", "CUDA_VERSION=12.4.1"]}});
        let facts = combine(&layers, &config);
        let expected = ImageFacts {
            vllm: Some("0.6.4.post1".into()),
            ray: Some("2.9.0".into()),
            cuda: Some("12.4.1".into()),
        };
        assert_eq!(facts, expected);
    }

    #[test]
    fn a_library_alone_is_no_ray_and_a_later_layer_may_remove_it() {
        let none = |layers: &[LayerFacts]| combine(layers, &Value::Null).ray.is_none();
        assert!(none(&[layer(&[
            "x/ray-2.9.0.dist-info/METADATA",
            "share/ray",
            "bin/raylet"
        ])]));
        assert!(none(&[
            layer(&["usr/bin/ray"]),
            layer(&["usr/bin/.wh.ray"])
        ]));
        assert!(!none(&[
            layer(&["usr/bin/ray"]),
            layer(&["usr/bin/.wh.ray", "opt/bin/ray"])
        ]));
    }
}
