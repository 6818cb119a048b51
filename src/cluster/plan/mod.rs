//! The plan: whether a model fits the GPUs, how it is cut, and what that leaves for requests.

use serde::Serialize;

pub mod architecture;
mod fit;
pub mod hardware;
pub mod memory;
pub mod nodes;
pub mod report;
pub mod subject;

use architecture::Architecture;
use fit::{fit, refusal};
use memory::{Cut, Memory};

use crate::error::{Error, Result};

/// The share of a GPU's memory that vLLM uses when it is not told.
const DEFAULT_UTILISATION: f64 = 0.9;

/// Bytes per second at which a node is assumed to read weights, for the time to load.
const READ_RATE: u64 = 1_000_000_000;

/// The GPUs that a plan is for.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Nodes.
    pub nodes: u32,
    /// GPUs of each.
    pub gpus_per_node: u32,
    /// Memory of each GPU in MiB.
    pub memory_mib: u64,
    /// Compute capability of each GPU.
    pub capability: String,
    /// NVIDIA driver, when known.
    pub driver: Option<String>,
}

/// The model and the image that a plan is for.
#[derive(Clone, Debug)]
pub struct Subject {
    /// The text of `config.json`.
    pub config: String,
    /// Bytes of all tensors.
    pub weights: u64,
    /// CUDA version of the image, when known.
    pub cuda: Option<String>,
    /// `serve_args` of the spec.
    pub serve_args: Vec<String>,
}

/// What a plan comes to.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    /// How the model is cut.
    pub cut: Cut,
    /// Where memory goes; none when `config.json` speaks of an unknown architecture.
    pub memory: Option<Memory>,
    /// Requests of the longest context that fit at once.
    pub full_requests: Option<f64>,
    /// Seconds to read the weights at 1 GB/s per node.
    pub load_seconds: u64,
    /// What the operator should know besides.
    pub remarks: Vec<String>,
}

/// Checks a cut against model and machine. A refusal gives the reason, and the nearest cut that
/// works.
pub fn plan(subject: &Subject, machine: &Machine, cut: Cut) -> Result<Plan> {
    if let (Some(cuda), Some(driver)) = (&subject.cuda, &machine.driver)
        && let Some(reason) = hardware::driver_too_old(cuda, driver)?
    {
        return Err(Error::Usage(format!(
            "{reason}; update the driver or pack an older image"
        )));
    }
    let Some(shape) = Architecture::parse(&subject.config) else {
        return plan_by_size(subject, machine, cut);
    };
    if let Some(quantisation) = &shape.quantisation
        && let Some(reason) = hardware::lacks_method(&quantisation.method, &machine.capability)?
    {
        return Err(Error::Usage(format!(
            "{reason}; pack another quantisation of this model"
        )));
    }
    let usable = usable(machine, &subject.serve_args);
    let memory = fit(&shape, subject.weights, cut, usable)
        .map_err(|reason| refusal(&reason, &shape, subject, machine, usable))?;
    let longest = wished_context(&subject.serve_args).unwrap_or(memory.longest_context);
    if longest > memory.cache_tokens {
        return Err(Error::Usage(format!(
            "--max-model-len {longest} does not fit: there is room for {} tokens; lower it or use more GPUs",
            memory.cache_tokens
        )));
    }
    #[allow(clippy::cast_precision_loss, reason = "shown with one decimal")]
    let full_requests = memory.cache_tokens as f64 / longest.max(1) as f64;
    Ok(Plan {
        cut,
        full_requests: Some(full_requests),
        load_seconds: load_seconds(subject, cut),
        remarks: remarks(&shape, &memory),
        memory: Some(memory),
    })
}

/// Without a known architecture only the sizes speak.
fn plan_by_size(subject: &Subject, machine: &Machine, cut: Cut) -> Result<Plan> {
    let gpus = u64::from(cut.tensor_parallel * cut.pipeline_parallel).max(1);
    let (each, usable) = (subject.weights / gpus, usable(machine, &subject.serve_args));
    if each + memory::RESERVE > usable {
        return Err(Error::Usage(format!(
            "the weights take {} MiB on each of {gpus} GPUs, {} MiB are usable; use more GPUs",
            each >> 20,
            usable >> 20
        )));
    }
    let remark = "config.json describes an architecture that is unknown here: sizes of the tensors only, \
                  no context or cache can be told";
    Ok(Plan {
        cut,
        memory: None,
        full_requests: None,
        load_seconds: load_seconds(subject, cut),
        remarks: vec![remark.into()],
    })
}

fn remarks(shape: &Architecture, memory: &Memory) -> Vec<String> {
    let mut remarks = Vec::new();
    if memory.longest_context < shape.context {
        remarks.push(format!(
            "the model's {} tokens of context do not fit: add \"--max-model-len\", \"{}\" to serve_args",
            shape.context, memory.longest_context
        ));
    }
    if let Some(experts) = shape.experts {
        remarks.push(format!(
            "{experts} experts per layer: all are in memory, few work on a token"
        ));
    }
    remarks
}

fn load_seconds(subject: &Subject, cut: Cut) -> u64 {
    // Each node reads its own stage; every GPU of a stage reads the same files.
    (subject.weights / u64::from(cut.pipeline_parallel.max(1))).div_ceil(READ_RATE)
}

/// Bytes of each GPU that vLLM may use.
fn usable(machine: &Machine, serve_args: &[String]) -> u64 {
    let share = option(serve_args, "--gpu-memory-utilization")
        .and_then(|text| text.parse().ok())
        .filter(|share| (0.0..=1.0).contains(share))
        .unwrap_or(DEFAULT_UTILISATION);
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of a memory size, to the MiB"
    )]
    let mib = (machine.memory_mib as f64 * share) as u64;
    mib << 20
}

fn wished_context(serve_args: &[String]) -> Option<u64> {
    option(serve_args, "--max-model-len")?.parse().ok()
}

/// The value of `--name VALUE` or `--name=VALUE`.
fn option<'a>(args: &'a [String], name: &str) -> Option<&'a str> {
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.strip_prefix(name) {
            Some("") => return args.next().map(String::as_str),
            Some(rest) if rest.starts_with('=') => return rest.get(1..),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
pub(crate) mod tests {
    use std::path::Path;

    use super::*;

    /// A published `config.json`, reduced to what describes the shape.
    pub fn config(name: &str) -> String {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/configs");
        std::fs::read_to_string(dir.join(format!("{name}.json"))).unwrap()
    }

    /// A model of this fixture and so many GB of tensors.
    pub fn subject(name: &str, gigabytes: f64) -> Subject {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let weights = (gigabytes * 1e9) as u64;
        Subject {
            config: config(name),
            weights,
            cuda: None,
            serve_args: Vec::new(),
        }
    }

    fn machine(nodes: u32, gpus_per_node: u32, gpu: &str) -> Machine {
        let gpu = hardware::gpu(gpu).unwrap();
        Machine {
            nodes,
            gpus_per_node,
            memory_mib: gpu.memory_mib,
            capability: gpu.capability,
            driver: None,
        }
    }

    fn verdict(subject: &Subject, machine: &Machine) -> std::result::Result<Plan, String> {
        let cut = Cut {
            tensor_parallel: machine.gpus_per_node,
            pipeline_parallel: machine.nodes,
        };
        plan(subject, machine, cut).map_err(|error| error.to_string())
    }

    /// Model, GB of tensors, machine; and a part of the reason when it cannot work.
    #[test]
    fn published_models_on_known_machines() {
        let cases = [
            ("deepseek-r1-distill-llama-70b", 141.1, (4, 4, "t4"), ""),
            (
                "deepseek-r1-distill-llama-70b",
                141.1,
                (2, 4, "t4"),
                "no cut works",
            ),
            ("deepseek-r1-distill-llama-70b", 141.1, (1, 4, "a100"), ""),
            ("deepseek-r1-distill-qwen-32b", 65.5, (2, 4, "t4"), ""),
            (
                "deepseek-r1-distill-qwen-32b",
                65.5,
                (1, 4, "t4"),
                "stage 1 of 1",
            ),
            ("llama-3.1-8b", 16.1, (1, 1, "t4"), "MiB are usable"),
            ("llama-3.1-8b", 16.1, (1, 2, "t4"), ""),
            (
                "llama-3.1-8b",
                16.1,
                (1, 3, "t4"),
                "32 attention heads are not divisible",
            ),
            ("qwen2.5-0.5b", 1.0, (1, 1, "t4"), ""),
            (
                "qwen2.5-0.5b",
                1.0,
                (1, 4, "t4"),
                "tensor_parallel = 2 with pipeline_parallel = 1",
            ),
            (
                "qwen2.5-0.5b",
                1.0,
                (32, 1, "t4"),
                "more than the model's 24 layers",
            ),
            ("qwen2.5-72b-awq", 41.6, (1, 4, "t4"), ""),
            (
                "qwen2.5-72b-awq",
                41.6,
                (1, 4, "v100"),
                "awq weights need compute capability 7.5",
            ),
            (
                "qwen2.5-72b-awq",
                41.6,
                (1, 16, "t4"),
                "quantisation groups of 128",
            ),
            ("deepseek-r1", 688.6, (2, 8, "h100"), ""),
            ("deepseek-r1", 688.6, (4, 8, "t4"), "fp8 weights need"),
            ("mixtral-8x7b", 93.4, (2, 4, "t4"), ""),
            ("mixtral-8x7b", 93.4, (1, 4, "t4"), "MiB are usable"),
            ("mixtral-8x7b", 93.4, (2, 2, "a100"), ""),
        ];
        for (name, gigabytes, (nodes, gpus, gpu), reason) in cases {
            let verdict = verdict(&subject(name, gigabytes), &machine(nodes, gpus, gpu));
            let case = format!("{name} on {nodes}x{gpus} {gpu}: {verdict:?}");
            match verdict {
                Ok(plan) => assert!(reason.is_empty() && plan.memory.is_some(), "{case}"),
                Err(text) => assert!(!reason.is_empty() && text.contains(reason), "{case}"),
            }
        }
    }

    #[test]
    fn an_old_driver_is_refused() {
        let mut subject = subject("llama-3.1-8b", 16.1);
        subject.cuda = Some("12.4.1".into());
        let mut machine = machine(1, 4, "t4");
        machine.driver = Some("470.57.02".into());
        assert!(
            verdict(&subject, &machine)
                .unwrap_err()
                .contains("driver 525")
        );
        machine.driver = Some("535.129.03".into());
        assert!(verdict(&subject, &machine).is_ok());
    }

    #[test]
    fn unknown_architectures_go_by_size_and_say_so() {
        let mut subject = subject("llama-3.1-8b", 16.1);
        subject.config = "{\"n_layer\": 32}".into();
        let plan = verdict(&subject, &machine(1, 4, "t4")).unwrap();
        assert!(plan.memory.is_none() && plan.remarks[0].contains("unknown"));
        assert!(
            verdict(&subject, &machine(1, 1, "t4"))
                .unwrap_err()
                .contains("more GPUs")
        );
    }

    #[test]
    fn serve_args_bound_memory_and_context() {
        let mut subject = subject("llama-3.1-8b", 16.1);
        let machine = machine(1, 2, "t4");
        let roomy = verdict(&subject, &machine)
            .unwrap()
            .memory
            .unwrap()
            .cache_tokens;
        subject.serve_args = vec!["--gpu-memory-utilization=0.7".into()];
        let tight = verdict(&subject, &machine).unwrap();
        assert!(tight.memory.as_ref().unwrap().cache_tokens < roomy);
        assert!(
            tight.remarks[0].contains("--max-model-len"),
            "{:?}",
            tight.remarks
        );
        subject
            .serve_args
            .extend(["--max-model-len".into(), "131072".into()]);
        assert!(
            verdict(&subject, &machine)
                .unwrap_err()
                .contains("does not fit")
        );
    }
}
