//! Which cuts of a model work on a machine.

use super::architecture::{Architecture, Cache};
use super::memory::{self, Cut, Memory};
use super::{Machine, Subject};
use crate::error::Error;

/// Why this cut cannot work, or where memory goes.
pub(super) fn fit(
    shape: &Architecture,
    weights: u64,
    cut: Cut,
    usable: u64,
) -> std::result::Result<Memory, String> {
    let Cut {
        tensor_parallel,
        pipeline_parallel,
    } = cut;
    if !shape.heads.is_multiple_of(tensor_parallel) {
        return Err(format!(
            "{} attention heads are not divisible by tensor_parallel {tensor_parallel}",
            shape.heads
        ));
    }
    if let Cache::Heads { count, .. } = shape.cache
        && !count.is_multiple_of(tensor_parallel)
        && !tensor_parallel.is_multiple_of(count)
    {
        return Err(format!(
            "{count} key-value heads cannot be shared by tensor_parallel {tensor_parallel}"
        ));
    }
    if pipeline_parallel > shape.layers {
        return Err(format!(
            "pipeline_parallel {pipeline_parallel} is more than the model's {} layers",
            shape.layers
        ));
    }
    let group = shape
        .quantisation
        .as_ref()
        .and_then(|quantisation| quantisation.group);
    if let Some(group) = group
        && !shape
            .intermediate
            .is_multiple_of(group * u64::from(tensor_parallel))
    {
        return Err(format!(
            "quantisation groups of {group} do not divide the feed-forward width {} by tensor_parallel {tensor_parallel}",
            shape.intermediate
        ));
    }
    memory::cut_model(shape, weights, cut, usable)
}

/// The reason, and the largest cut that does work on this machine.
pub(super) fn refusal(
    reason: &str,
    shape: &Architecture,
    subject: &Subject,
    machine: &Machine,
    usable: u64,
) -> Error {
    let cuts = (1..=machine.gpus_per_node).flat_map(|tensor_parallel| {
        (1..=machine.nodes).map(move |pipeline_parallel| Cut {
            tensor_parallel,
            pipeline_parallel,
        })
    });
    let works = cuts
        .filter(|&cut| fit(shape, subject.weights, cut, usable).is_ok())
        .max_by_key(|cut| {
            (
                cut.tensor_parallel * cut.pipeline_parallel,
                cut.tensor_parallel,
            )
        });
    let advice = match works {
        Some(cut) => format!(
            "tensor_parallel = {} with pipeline_parallel = {} would work",
            cut.tensor_parallel, cut.pipeline_parallel
        ),
        None => format!(
            "no cut works on {} x {} of these GPUs; use more or larger GPUs, or a quantised model",
            machine.nodes, machine.gpus_per_node
        ),
    };
    Error::Usage(format!("{reason}; {advice}"))
}
