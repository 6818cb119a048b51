//! What differs between vLLM versions; data in `compatibility.toml`.

use serde::Deserialize;

use crate::error::{Error, Result};

#[derive(Deserialize)]
struct Table {
    feature: Vec<FeatureRule>,
    option: Vec<GpuRule>,
    variable: Vec<GpuRule>,
}

#[derive(Deserialize)]
struct FeatureRule {
    name: String,
    #[serde(flatten)]
    versions: Versions,
}

/// An option or variable that counts for GPUs below a compute capability.
#[derive(Deserialize)]
struct GpuRule {
    below_capability: String,
    name: String,
    value: String,
    #[serde(flatten)]
    versions: Versions,
}

#[derive(Deserialize)]
struct Versions {
    from_vllm: Option<String>,
    until_vllm: Option<String>,
}

/// Something that not every vLLM can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// The command `vllm serve`.
    Serve,
    /// `--distributed-executor-backend`.
    ExecutorBackend,
    /// `--pipeline-parallel-size` above one.
    Pipeline,
    /// Several nodes without Ray.
    Nnodes,
}

/// What a vLLM version needs on some GPUs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extras {
    /// More arguments of the server.
    pub options: Vec<String>,
    /// More environment of the containers.
    pub variables: Vec<(String, String)>,
}

impl Feature {
    fn name(self) -> &'static str {
        match self {
            Self::Serve => "serve",
            Self::ExecutorBackend => "executor-backend",
            Self::Pipeline => "pipeline",
            Self::Nnodes => "nnodes",
        }
    }

    /// Whether this vLLM can do it; an unknown version counts as new.
    pub fn in_vllm(self, vllm: Option<&str>) -> Result<bool> {
        let Some(vllm) = vllm else { return Ok(true) };
        let table = table()?;
        let rule = table.feature.iter().find(|rule| rule.name == self.name());
        Ok(rule.is_none_or(|rule| rule.versions.include(vllm)))
    }
}

/// What this vLLM needs on GPUs of which the least has this compute capability, unless `own`
/// arguments give the same option already. An unknown version gets nothing.
pub fn extras(vllm: Option<&str>, capability: Option<&str>, own: &[String]) -> Result<Extras> {
    let (Some(vllm), Some(capability)) = (vllm, capability) else {
        return Ok(Extras::default());
    };
    let table = table()?;
    let applies = |rule: &&GpuRule| {
        numbers(capability) < numbers(&rule.below_capability) && rule.versions.include(vllm)
    };
    let is_own = |option: &str| {
        own.iter()
            .any(|argument| argument.split('=').next() == Some(option))
    };
    let options = table
        .option
        .iter()
        .filter(applies)
        .filter(|rule| !is_own(&rule.name));
    let variables = table.variable.iter().filter(applies);
    Ok(Extras {
        options: options
            .flat_map(|rule| [rule.name.clone(), rule.value.clone()])
            .collect(),
        variables: variables
            .map(|rule| (rule.name.clone(), rule.value.clone()))
            .collect(),
    })
}

fn table() -> Result<Table> {
    toml::from_str(include_str!("compatibility.toml")).map_err(|error| {
        Error::Failed(format!(
            "the built-in table of vLLM versions is broken: {error}"
        ))
    })
}

impl Versions {
    fn include(&self, vllm: &str) -> bool {
        let vllm = numbers(vllm);
        let after =
            |bound: &Option<String>| bound.as_ref().is_some_and(|bound| vllm < numbers(bound));
        !after(&self.from_vllm) && (self.until_vllm.is_none() || after(&self.until_vllm))
    }
}

/// `0.6.4.post1` as numbers that compare in order; what is no number ends them.
#[must_use]
pub fn numbers(version: &str) -> Vec<u32> {
    version
        .split('.')
        .map_while(|part| part.trim().parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_gpus_get_another_attention_in_the_way_of_the_version() {
        let option = "--attention-backend TRITON_ATTN";
        let variable = "VLLM_ATTENTION_BACKEND=TRITON_ATTN";
        for (vllm, capability, expected) in [
            ("0.32.0", "7.5", vec![option]),
            ("0.13.0", "7.0", vec![option]),
            ("0.12.0", "7.5", vec![variable]),
            ("0.11.2", "7.5", vec![variable]),
            ("0.10.2", "7.5", vec![]),
            ("0.6.4.post1", "7.5", vec![]),
            ("0.32.0", "10.0", vec![]),
            ("0.12.0", "8.0", vec![]),
        ] {
            let extras = extras(Some(vllm), Some(capability), &[]).unwrap();
            let mut found: Vec<String> = extras
                .variables
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .filter(|pair| pair.contains("ATTENTION"))
                .collect();
            found.extend((!extras.options.is_empty()).then(|| extras.options.join(" ")));
            assert_eq!(found, expected, "{vllm} {capability}");
        }
        assert_eq!(extras(None, Some("7.5"), &[]).unwrap(), Extras::default());
    }

    #[test]
    fn the_operators_own_choice_stands() {
        for own in ["--attention-backend", "--attention-backend=X"] {
            let extras = extras(Some("0.32.0"), Some("7.5"), &[own.to_owned()]).unwrap();
            assert!(extras.options.is_empty(), "{own}");
        }
    }

    /// Version; then whether it has `vllm serve`, the backend option, pipelines, nodes without Ray.
    #[test]
    fn features_come_with_their_versions() {
        for (vllm, expected) in [
            (Some("0.4.2"), [false, false, false, false]),
            (Some("0.4.3"), [false, true, false, false]),
            (Some("0.5.4"), [false, true, true, false]),
            (Some("0.6.4.post1"), [true, true, true, false]),
            (Some("0.11.2"), [true, true, true, false]),
            (Some("0.12.0"), [true, true, true, true]),
            (Some("0.19.0"), [true, true, true, true]),
            (None, [true, true, true, true]),
        ] {
            let found = [
                Feature::Serve,
                Feature::ExecutorBackend,
                Feature::Pipeline,
                Feature::Nnodes,
            ]
            .map(|feature| feature.in_vllm(vllm).unwrap());
            assert_eq!(found, expected, "{vllm:?}");
        }
    }

    #[test]
    fn every_feature_has_its_rule() {
        let table = table().unwrap();
        for feature in [
            Feature::Serve,
            Feature::ExecutorBackend,
            Feature::Pipeline,
            Feature::Nnodes,
        ] {
            let name = feature.name();
            assert!(table.feature.iter().any(|rule| rule.name == name), "{name}");
        }
    }
}
