//! Options that a vLLM version needs on some GPUs; data in `compatibility.toml`.

use serde::Deserialize;

use crate::error::{Error, Result};

#[derive(Deserialize)]
struct Table {
    rule: Vec<Rule>,
}

#[derive(Deserialize)]
struct Rule {
    below_capability: String,
    from_vllm: String,
    option: String,
    value: String,
}

/// The options for this vLLM on GPUs of which the least has this compute capability. An unknown
/// version gets none.
pub fn options(
    vllm: Option<&str>,
    capability: Option<&str>,
    own: &[String],
) -> Result<Vec<String>> {
    let (Some(vllm), Some(capability)) = (vllm, capability) else {
        return Ok(Vec::new());
    };
    let table: Table = toml::from_str(include_str!("compatibility.toml")).map_err(|error| {
        Error::Failed(format!("the built-in table of options is broken: {error}"))
    })?;
    let applies = |rule: &&Rule| {
        numbers(capability) < numbers(&rule.below_capability)
            && numbers(vllm) >= numbers(&rule.from_vllm)
            && !own
                .iter()
                .any(|argument| argument.split('=').next() == Some(&rule.option))
    };
    let rules = table.rule.iter().filter(applies);
    Ok(rules
        .flat_map(|rule| [rule.option.clone(), rule.value.clone()])
        .collect())
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
    fn old_gpus_get_another_attention_on_new_versions_only() {
        let triton = ["--attention-backend", "TRITON_ATTN"]
            .map(String::from)
            .to_vec();
        let cases: [(Option<&str>, Option<&str>, &[String]); 3] = [
            (Some("0.32.0"), Some("7.5"), &triton),
            (Some("0.6.4.post1"), Some("7.5"), &[]),
            (Some("0.32.0"), Some("10.0"), &[]),
        ];
        for (vllm, capability, expected) in cases {
            assert_eq!(
                options(vllm, capability, &[]).unwrap(),
                expected,
                "{vllm:?} {capability:?}"
            );
        }
        assert!(options(None, Some("7.5"), &[]).unwrap().is_empty());
    }

    #[test]
    fn the_operators_own_choice_stands() {
        for own in [
            vec!["--attention-backend".to_owned()],
            vec!["--attention-backend=X".to_owned()],
        ] {
            assert!(
                options(Some("0.32.0"), Some("7.5"), &own)
                    .unwrap()
                    .is_empty()
            );
        }
    }
}
