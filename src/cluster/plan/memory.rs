//! Where the memory of each GPU goes: weights of its pipeline stage, a reserve, and the KV cache.

use serde::Serialize;

use super::architecture::{Architecture, Cache};

/// Kept free per GPU for CUDA context, activations and graphs, in bytes. vLLM measures it at start;
/// 1 GiB is what its profile run takes for the models of the tests at 16-bit.
pub const RESERVE: u64 = 1 << 30;

/// Bytes of an element of the KV cache and of unquantised weights: float16 or bfloat16.
const ELEMENT: u64 = 2;

/// How a server is cut over GPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Cut {
    /// GPUs that share one layer.
    pub tensor_parallel: u32,
    /// Pipeline stages.
    pub pipeline_parallel: u32,
}

/// Memory of one pipeline stage, per GPU, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Stage {
    /// Layers of this stage.
    pub layers: u32,
    /// Weights, embedding and head included.
    pub weights: u64,
    /// KV cache per token of context.
    pub cache_per_token: u64,
}

/// What a cut comes to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// Stages, first to last.
    pub stages: Vec<Stage>,
    /// Tokens for which every stage has room in its cache.
    pub cache_tokens: u64,
    /// Longest context of one request.
    pub longest_context: u64,
}

/// The layers of each stage as vLLM deals them: what does not divide goes to the stages before the
/// last, from behind (`get_pp_indices` in `vllm/distributed/utils.py`).
#[must_use]
pub fn deal_layers(layers: u32, stages: u32) -> Vec<u32> {
    let stages = stages.max(1);
    let (each, rest) = (layers / stages, layers % stages);
    // One left over per stage, counted from the last but one.
    (0..stages)
        .map(|stage| {
            let from_behind = stages - 1 - stage;
            each + u32::from(from_behind >= 1 && from_behind <= rest)
        })
        .collect()
}

/// Cuts a model; `weights` are the bytes of its tensors, `usable` the bytes that vLLM may use of
/// each GPU. The error is the reason why it does not fit.
pub fn cut_model(
    shape: &Architecture,
    weights: u64,
    cut: Cut,
    usable: u64,
) -> Result<Memory, String> {
    let stages = stages(shape, weights, cut);
    let mut cache_tokens = u64::MAX;
    for (number, stage) in (1..).zip(&stages) {
        let needed = stage.weights + RESERVE;
        let Some(room) = usable
            .checked_sub(needed)
            .filter(|&room| room > stage.cache_per_token)
        else {
            return Err(format!(
                "stage {number} of {} needs {} MiB of weights per GPU and {} MiB besides; {} MiB are usable",
                stages.len(),
                stage.weights >> 20,
                RESERVE >> 20,
                usable >> 20
            ));
        };
        cache_tokens = cache_tokens.min(room / stage.cache_per_token.max(1));
    }
    Ok(Memory {
        longest_context: cache_tokens.min(shape.context),
        stages,
        cache_tokens,
    })
}

fn stages(shape: &Architecture, weights: u64, cut: Cut) -> Vec<Stage> {
    let tensor_parallel = u64::from(cut.tensor_parallel.max(1));
    let embedding = shape.vocabulary * shape.hidden * ELEMENT;
    let outside = if shape.tied { embedding } else { 2 * embedding };
    let in_files = u64::from(shape.layers.saturating_add(shape.left_out).max(1));
    let per_layer = weights.saturating_sub(outside) / in_files;
    let dealt = deal_layers(shape.layers, cut.pipeline_parallel);
    let last = dealt.len() - 1;
    let stage = |(number, &layers): (usize, &u32)| {
        let own = u64::from(layers) * per_layer;
        let input = if number == 0 { embedding } else { 0 };
        // A tied head on another stage than the embedding is a copy of it.
        let output = if number == last && !(shape.tied && last == 0) {
            embedding
        } else {
            0
        };
        Stage {
            layers,
            weights: (own + input + output) / tensor_parallel,
            cache_per_token: u64::from(layers) * cache_per_layer(shape.cache, tensor_parallel),
        }
    };
    dealt.iter().enumerate().map(stage).collect()
}

/// Cache bytes per token and layer on one GPU.
fn cache_per_layer(cache: Cache, tensor_parallel: u64) -> u64 {
    match cache {
        // Heads are shared out; when there are fewer than GPUs, each GPU keeps a whole one.
        Cache::Heads { count, head_size } => {
            2 * u64::from(count).div_ceil(tensor_parallel).max(1) * head_size * ELEMENT
        }
        Cache::Latent { size } => size * ELEMENT,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::plan::tests::config;

    fn shape(name: &str) -> Architecture {
        Architecture::parse(&config(name)).unwrap()
    }

    #[test]
    fn layers_are_dealt_as_vllm_does() {
        assert_eq!(deal_layers(80, 4), [20, 20, 20, 20]);
        assert_eq!(deal_layers(61, 4), [15, 15, 16, 15]);
        assert_eq!(deal_layers(7, 4), [2, 2, 2, 1]);
        assert_eq!(deal_layers(5, 1), [5]);
        for (layers, stages) in [(61, 8), (80, 3), (24, 5), (3, 3)] {
            assert_eq!(deal_layers(layers, stages).iter().sum::<u32>(), layers);
        }
    }

    #[test]
    fn the_reference_deployment_fits_sixteen_t4() {
        let cut = Cut {
            tensor_parallel: 4,
            pipeline_parallel: 4,
        };
        let usable = (15360u64 << 20) * 9 / 10;
        let memory = cut_model(
            &shape("deepseek-r1-distill-llama-70b"),
            141_107_497_872,
            cut,
            usable,
        )
        .unwrap();
        // 20 layers x 2 of 8 heads x 128 x key and value x 2 bytes.
        assert_eq!(memory.stages[0].cache_per_token, 20 * 2 * 128 * 2 * 2);
        assert_eq!(memory.stages[0].weights >> 30, 8);
        assert!(memory.stages[0].weights > memory.stages[1].weights);
        assert_eq!(memory.longest_context, 131_072);
    }

    /// Weights of the first stage and cache per token on one GPU, worked out by hand from the shapes of the published
    /// tensors. Within 1 %: the norms are on every GPU, and the first layers of `DeepSeek` are smaller.
    #[test]
    fn published_models_weigh_what_their_shapes_say() {
        for (name, tensors, tensor_parallel, pipeline_parallel, weights, cache_per_token) in [
            (
                "deepseek-r1-distill-llama-70b",
                141_107_412_992,
                4,
                4,
                (20 * 855_654_400 + 128_256 * 8192) * 2 / 4,
                20 * 2 * 128 * 2 * 2,
            ),
            (
                "deepseek-r1-distill-qwen-32b",
                65_527_752_704,
                4,
                2,
                (32 * 487_605_248 + 152_064 * 5120) * 2 / 4,
                32 * 2 * 128 * 2 * 2,
            ),
            (
                "llama-3.1-8b",
                16_060_522_496,
                2,
                1,
                8_030_261_248,
                32 * 4 * 128 * 2 * 2,
            ),
            (
                "qwen2.5-0.5b",
                988_065_536,
                1,
                1,
                494_032_768 * 2,
                24 * 2 * 64 * 2 * 2,
            ),
            // 4 bits, and 16 + 4 for each group of 128.
            (
                "qwen2.5-72b-awq",
                41_595_518_976,
                4,
                1,
                (80 * 457_658_368 + 2 * 152_064 * 8192 * 2) / 4,
                80 * 2 * 128 * 2 * 2,
            ),
            // Without the 62nd layer, which the server leaves out.
            (
                "deepseek-r1",
                688_570_000_000,
                8,
                1,
                673_150_000_000 / 8,
                61 * 576 * 2,
            ),
            (
                "mixtral-8x7b",
                93_405_585_408,
                4,
                2,
                (16 * 1_451_270_144 + 32_000 * 4096) * 2 / 4,
                16 * 2 * 128 * 2 * 2,
            ),
        ] {
            let cut = Cut {
                tensor_parallel,
                pipeline_parallel,
            };
            let stage = &stages(&shape(name), tensors, cut)[0];
            let off = stage.weights.abs_diff(weights);
            assert!(
                off < weights / 100,
                "{name}: {} and {weights}",
                stage.weights
            );
            assert_eq!(stage.cache_per_token, cache_per_token, "{name}");
        }
    }

    #[test]
    fn too_large_weights_name_the_stage_and_the_numbers() {
        let cut = Cut {
            tensor_parallel: 4,
            pipeline_parallel: 2,
        };
        let usable = (15360u64 << 20) * 9 / 10;
        let reason = cut_model(
            &shape("deepseek-r1-distill-llama-70b"),
            141_107_497_872,
            cut,
            usable,
        )
        .unwrap_err();
        assert!(
            reason.contains("stage 1 of 2") && reason.contains("13824 MiB are usable"),
            "{reason}"
        );
    }

    #[test]
    fn latent_caches_are_whole_on_every_gpu_and_few_heads_are_copied() {
        let one = |name: &str, tensor_parallel| {
            let cut = Cut {
                tensor_parallel,
                pipeline_parallel: 1,
            };
            stages(&shape(name), 1 << 30, cut)[0].cache_per_token
        };
        assert_eq!(one("deepseek-r1", 1), one("deepseek-r1", 8));
        assert_eq!(one("deepseek-r1", 8), 61 * 576 * 2);
        assert_eq!(one("qwen2.5-0.5b", 2), one("qwen2.5-0.5b", 4));
    }

    #[test]
    fn a_tied_head_counts_once_on_one_stage_and_twice_on_two() {
        let shape = shape("qwen2.5-0.5b");
        let total = |pipeline_parallel| {
            let cut = Cut {
                tensor_parallel: 1,
                pipeline_parallel,
            };
            stages(&shape, 988_097_824, cut)
                .iter()
                .map(|stage| stage.weights)
                .sum::<u64>()
        };
        let embedding = 151_936 * 896 * 2;
        assert!(total(1).abs_diff(988_097_824) < 100);
        assert!(total(2).abs_diff(988_097_824 + embedding) < 100);
    }
}
