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
    fn an_unknown_key_is_named() {
        let error = toml::from_str::<ClusterSpec>("gpu = \"all\"").unwrap_err();
        assert!(error.to_string().contains("gpu"), "{error}");
    }
}
