//! What the spec wishes of the cluster. It travels in the manifest, so that the far side needs
//! no second file.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The `[cluster]` table of `bundle.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClusterSpec {
    /// How vLLM spreads over nodes.
    pub executor: Executor,
    /// `auto`, or a dtype that is passed to vLLM as it is.
    pub dtype: Auto<String>,
    /// GPUs that share one layer; `auto` is the GPUs per node.
    pub tensor_parallel: Auto<u32>,
    /// Pipeline stages; `auto` is the number of nodes.
    pub pipeline_parallel: Auto<u32>,
    /// Which GPUs a container gets.
    pub gpus: Gpus,
    /// TCP port of the OpenAI-compatible API on the head node.
    pub port: u16,
    /// Appended to `vllm serve` as they are.
    pub serve_args: Vec<String>,
    /// More environment for the containers.
    pub env: BTreeMap<String, String>,
    /// The machines that it is meant for: `pack` refuses what cannot work there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
}

impl Default for ClusterSpec {
    fn default() -> Self {
        Self {
            executor: Executor::Auto,
            dtype: Auto::Auto,
            tensor_parallel: Auto::Auto,
            pipeline_parallel: Auto::Auto,
            gpus: Gpus::All,
            port: 8000,
            serve_args: Vec::new(),
            env: BTreeMap::new(),
            target: None,
        }
    }
}

impl ClusterSpec {
    /// Whether vLLM is told to run the code that comes with a model.
    #[must_use]
    pub fn trusts_code(&self) -> bool {
        let mut names = self.serve_args.iter().map(|word| word.replace('_', "-"));
        names.any(|name| name == "--trust-remote-code")
    }
}

/// Equal machines, written `4x4xT4`: nodes, GPUs of each, which GPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Target {
    /// Nodes.
    pub nodes: u32,
    /// GPUs of each.
    pub gpus_per_node: u32,
    /// Short name of the GPU.
    pub gpu: String,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}x{}", self.nodes, self.gpus_per_node, self.gpu)
    }
}

impl From<Target> for String {
    fn from(target: Target) -> Self {
        target.to_string()
    }
}

impl TryFrom<String> for Target {
    type Error = String;

    fn try_from(text: String) -> std::result::Result<Self, String> {
        let number = |part: &str, most: u32| {
            let number = part.trim().parse().ok();
            number.filter(|number| (1..=most).contains(number))
        };
        let mut parts = text.splitn(3, ['x', 'X']);
        let mut next = || parts.next().unwrap_or_default();
        let (nodes, gpus, gpu) = (number(next(), 1024), number(next(), 64), next().trim());
        match (nodes, gpus) {
            (Some(nodes), Some(gpus_per_node)) if !gpu.is_empty() => Ok(Self {
                nodes,
                gpus_per_node,
                gpu: gpu.to_owned(),
            }),
            _ => Err(format!(
                "target {text:?} is not of the form \"4x4xT4\": nodes, GPUs of each, which GPU"
            )),
        }
    }
}

/// How vLLM spreads over nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Executor {
    /// Ray when the image has it, otherwise vLLM's own multi-node mode.
    Auto,
    /// A Ray cluster.
    Ray,
    /// vLLM's own multi-node mode (`--nnodes`).
    Mp,
}

/// Which GPUs a container gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Gpus {
    /// `--gpus all`.
    All,
    /// A CPU image: no `--gpus`.
    None,
}

/// The word `auto`, or a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Auto<T> {
    /// Left to the plan.
    Auto,
    /// Fixed by the spec.
    Fixed(T),
}

impl<T> Auto<T> {
    /// The value, when the spec fixes one.
    pub fn fixed(&self) -> Option<&T> {
        match self {
            Self::Auto => None,
            Self::Fixed(value) => Some(value),
        }
    }
}

impl<T: Serialize> Serialize for Auto<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::Fixed(value) => value.serialize(serializer),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Auto<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        #[derive(Deserialize)]
        enum Word {
            #[serde(rename = "auto")]
            Auto,
        }
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "expected \"auto\" or a value of the right kind")]
        enum Either<T> {
            Word(Word),
            Value(T),
        }
        Ok(match Either::deserialize(deserializer)? {
            Either::Word(Word::Auto) => Self::Auto,
            Either::Value(value) => Self::Fixed(value),
        })
    }
}

impl<T: fmt::Display> fmt::Display for Auto<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Fixed(value) => value.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_those_of_the_reference_deployment() {
        let spec: ClusterSpec = toml::from_str("").unwrap();
        assert_eq!(spec, ClusterSpec::default());
    }

    #[test]
    fn auto_is_a_word_and_values_are_typed() {
        let spec: ClusterSpec =
            toml::from_str("tensor_parallel = 4\ndtype = \"float16\"\ngpus = \"none\"").unwrap();
        assert_eq!(spec.tensor_parallel, Auto::Fixed(4));
        assert_eq!(spec.dtype, Auto::Fixed("float16".into()));
        assert_eq!(spec.pipeline_parallel, Auto::Auto);
        assert_eq!(spec.gpus, Gpus::None);
        assert!(toml::from_str::<ClusterSpec>("tensor_parallel = \"four\"").is_err());
    }

    #[test]
    fn a_target_is_nodes_gpus_and_their_name() {
        let parse = |text: &str| Target::try_from(text.to_owned());
        for (text, expected) in [
            ("4x4xT4", (4, 4, "T4")),
            ("2X8xrtx4090", (2, 8, "rtx4090")),
            ("1x1xv100-16", (1, 1, "v100-16")),
        ] {
            let target = parse(text).unwrap();
            let found = (target.nodes, target.gpus_per_node, target.gpu.as_str());
            assert_eq!(found, expected, "{text}");
        }
        for text in ["", "4x4", "4x4x", "0x4xT4", "4x65xT4", "x4xT4", "-1x4xT4"] {
            assert!(parse(text).unwrap_err().contains("4x4xT4"), "{text}");
        }
        let spec: ClusterSpec = toml::from_str("target = \"4x4xT4\"").unwrap();
        let json = serde_json::to_string(&spec).unwrap();
        assert!(json.contains("\"target\":\"4x4xT4\""), "{json}");
        let without = serde_json::to_string(&ClusterSpec::default()).unwrap();
        assert!(!without.contains("target"), "{without}");
    }

    #[test]
    fn an_unknown_key_is_named() {
        let error = toml::from_str::<ClusterSpec>("gpu = \"all\"").unwrap_err();
        assert!(error.to_string().contains("gpu"), "{error}");
    }
}
