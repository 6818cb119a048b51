//! A model that looks like one: bf16 safetensors shards with Gaussian weights, an index, and the
//! small files around them.

use serde_json::{Map, Value, json};

#[path = "../weights.rs"]
pub mod weights;

/// Bytes of weights in one shard.
const SHARD: usize = 64 << 20;
/// Bytes of one tensor; its shape is 1024 x 2048.
const TENSOR: usize = 4 << 20;

/// The files of a model of about `megabytes` MiB, different for each seed.
pub fn model(seed: u64, megabytes: usize) -> Vec<(String, Vec<u8>)> {
    let total = (megabytes << 20).max(TENSOR);
    let shards = total.div_ceil(SHARD);
    let mut files = small_files();
    let mut index = Map::new();
    for shard in 0..shards {
        let name = format!("model-{:05}-of-{shards:05}.safetensors", shard + 1);
        let tensors = SHARD.min(total - shard * SHARD) / TENSOR;
        let first = shard * (SHARD / TENSOR);
        for tensor in first..first + tensors {
            index.insert(tensor_name(tensor), json!(name));
        }
        files.push((name, safetensors(seed, first, tensors)));
    }
    let index = json!({"metadata": {"total_size": total}, "weight_map": index});
    files.push(("model.safetensors.index.json".into(), pretty(&index)));
    files
}

fn tensor_name(number: usize) -> String {
    format!("model.layers.{number}.mlp.gate_proj.weight")
}

/// A safetensors file: the length of a JSON header, the header, the tensors.
fn safetensors(seed: u64, first: usize, tensors: usize) -> Vec<u8> {
    let mut header = Map::new();
    header.insert("__metadata__".into(), json!({"format": "pt"}));
    for tensor in 0..tensors {
        let offsets = [tensor * TENSOR, (tensor + 1) * TENSOR];
        let entry = json!({"dtype": "BF16", "shape": [1024, 2048], "data_offsets": offsets});
        header.insert(tensor_name(first + tensor), entry);
    }
    let mut header = Value::Object(header).to_string();
    header += &" ".repeat(header.len().next_multiple_of(8) - header.len());
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    for tensor in first..first + tensors {
        let seed = seed.wrapping_mul(0x1_0000).wrapping_add(tensor as u64);
        file.extend(weights::bf16(&weights::weights(seed, TENSOR / 2)));
    }
    file
}

fn small_files() -> Vec<(String, Vec<u8>)> {
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "bfloat16",
        "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
        "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64,
        "vocab_size": 128_256, "max_position_embeddings": 131_072,
    });
    let tokenizer = json!({"version": "1.0", "model": {"type": "BPE", "vocab": {}, "merges": []}});
    vec![
        ("config.json".into(), pretty(&config)),
        ("tokenizer.json".into(), pretty(&tokenizer)),
        (
            "generation_config.json".into(),
            pretty(&json!({"temperature": 0.6})),
        ),
        (
            "README.md".into(),
            b"---\nlicense: mit\n---\n# A synthetic model\n".to_vec(),
        ),
        ("original/params.json".into(), pretty(&json!({"dim": 2048}))),
    ]
}

fn pretty(value: &Value) -> Vec<u8> {
    format!("{value:#}\n").into_bytes()
}
