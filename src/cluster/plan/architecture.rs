//! What a model's `config.json` says about its shape, as far as memory and divisibility need it.

use serde_json::Value;

/// The shape of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Architecture {
    /// Transformer layers.
    pub layers: u32,
    /// Further layers in the files, for guessing tokens ahead, that a server leaves out.
    pub left_out: u32,
    /// Width of the residual stream.
    pub hidden: u64,
    /// Attention heads.
    pub heads: u32,
    /// How keys and values are cached.
    pub cache: Cache,
    /// Rows of the embedding.
    pub vocabulary: u64,
    /// Width of the feed-forward part (of one expert, when there are experts).
    pub intermediate: u64,
    /// Whether embedding and head are one tensor.
    pub tied: bool,
    /// Longest context in tokens.
    pub context: u64,
    /// Experts per layer; none for a dense model.
    pub experts: Option<u32>,
    /// How the weights are quantised.
    pub quantisation: Option<Quantisation>,
    /// `torch_dtype`, e.g. `bfloat16`.
    pub dtype: String,
}

/// How keys and values are cached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cache {
    /// One key and one value of `head_size` per key-value head (MHA, GQA, MQA).
    Heads {
        /// Key-value heads.
        count: u32,
        /// Elements of each.
        head_size: u64,
    },
    /// One compressed vector for all heads (MLA); every GPU of a stage holds all of it.
    Latent {
        /// Elements: `kv_lora_rank` + `qk_rope_head_dim`.
        size: u64,
    },
}

/// `quantization_config`, reduced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quantisation {
    /// `awq`, `gptq`, `fp8`, ...
    pub method: String,
    /// Weights that share a scale, for methods that cut rows into groups.
    pub group: Option<u64>,
}

impl Architecture {
    /// Reads a `config.json`; none when it does not describe a transformer in the usual words.
    #[must_use]
    pub fn parse(config: &str) -> Option<Self> {
        let root: Value = serde_json::from_str(config).ok()?;
        // Multimodal models keep the language model's part one level down.
        let text = root
            .get("text_config")
            .filter(|part| part.is_object())
            .unwrap_or(&root);
        let number = |key: &str| text.get(key).and_then(Value::as_u64);
        let small = |key: &str| number(key).and_then(|value| u32::try_from(value).ok());
        let hidden = number("hidden_size")?;
        let heads = small("num_attention_heads").filter(|&heads| heads > 0)?;
        Some(Self {
            layers: small("num_hidden_layers")?,
            left_out: small("num_nextn_predict_layers").unwrap_or(0),
            hidden,
            heads,
            cache: cache(text, hidden, heads),
            vocabulary: number("vocab_size")?,
            intermediate: number("moe_intermediate_size").or(number("intermediate_size"))?,
            tied: flag(text, &root, "tie_word_embeddings"),
            context: number("max_position_embeddings")?,
            experts: ["n_routed_experts", "num_local_experts", "num_experts"]
                .iter()
                .find_map(|key| small(key)),
            quantisation: quantisation(
                text.get("quantization_config")
                    .or(root.get("quantization_config")),
            ),
            dtype: ["torch_dtype", "dtype"]
                .iter()
                .find_map(|key| text.get(key).or(root.get(key))?.as_str())
                .unwrap_or("bfloat16")
                .to_owned(),
        })
    }
}

fn flag(text: &Value, root: &Value, key: &str) -> bool {
    text.get(key)
        .or(root.get(key))
        .and_then(Value::as_bool)
        .unwrap_or(false)
}

fn cache(text: &Value, hidden: u64, heads: u32) -> Cache {
    let number = |key: &str| text.get(key).and_then(Value::as_u64);
    if let (Some(rank), Some(rope)) = (number("kv_lora_rank"), number("qk_rope_head_dim")) {
        return Cache::Latent { size: rank + rope };
    }
    let count = number("num_key_value_heads").and_then(|count| u32::try_from(count).ok());
    Cache::Heads {
        count: count.unwrap_or(heads),
        head_size: number("head_dim").unwrap_or(hidden / u64::from(heads)),
    }
}

fn quantisation(config: Option<&Value>) -> Option<Quantisation> {
    let config = config?;
    let method = config.get("quant_method")?.as_str()?.to_lowercase();
    let group = config
        .get("group_size")
        .and_then(Value::as_u64)
        .filter(|&group| group > 0);
    Some(Quantisation { method, group })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::plan::tests::config;

    #[test]
    fn grouped_heads_tied_embeddings_and_dtype_are_read() {
        let qwen = Architecture::parse(&config("qwen2.5-0.5b")).unwrap();
        assert_eq!(
            qwen.cache,
            Cache::Heads {
                count: 2,
                head_size: 64
            }
        );
        assert!(qwen.tied);
        assert_eq!((qwen.dtype.as_str(), qwen.experts), ("bfloat16", None));
    }

    #[test]
    fn latent_attention_and_experts_are_read() {
        let deepseek = Architecture::parse(&config("deepseek-r1")).unwrap();
        assert_eq!(deepseek.cache, Cache::Latent { size: 576 });
        assert_eq!((deepseek.experts, deepseek.intermediate), (Some(256), 2048));
        assert_eq!((deepseek.layers, deepseek.left_out), (61, 1));
        assert_eq!(deepseek.quantisation.unwrap().method, "fp8");
        assert_eq!(
            Architecture::parse(&config("mixtral-8x7b"))
                .unwrap()
                .experts,
            Some(8)
        );
    }

    #[test]
    fn quantisation_keeps_its_group() {
        let awq = Architecture::parse(&config("qwen2.5-72b-awq")).unwrap();
        assert_eq!(
            awq.quantisation,
            Some(Quantisation {
                method: "awq".into(),
                group: Some(128)
            })
        );
    }

    #[test]
    fn a_multimodal_model_is_its_language_part() {
        let text = config("llama-3.1-8b");
        let wrapped = format!("{{\"model_type\": \"llava\", \"text_config\": {text}}}");
        assert_eq!(Architecture::parse(&wrapped), Architecture::parse(&text));
    }

    #[test]
    fn other_words_are_not_guessed() {
        for unknown in [
            "",
            "[]",
            "{\"n_layer\": 12}",
            "{\"hidden_size\": 8, \"num_attention_heads\": 0}",
        ] {
            assert_eq!(Architecture::parse(unknown), None, "{unknown}");
        }
    }
}
