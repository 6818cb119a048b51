//! What `auto` in the spec comes to, given the image and the nodes.

use super::compatibility::{Extras, Feature, extras, numbers};
use crate::bundle::cluster_spec::{ClusterSpec, Executor, Gpus};
use crate::bundle::manifest::ImageFacts;
use crate::error::{Error, Result};

/// Compute capability from which GPUs have bfloat16 (Ampere).
const FIRST_WITH_BFLOAT16: (u32, u32) = (8, 0);

/// Ray from which its nodes can ask each other for a token (docs.ray.io, "Ray token authentication").
const FIRST_RAY_WITH_TOKENS: [u32; 2] = [2, 52];

/// How the processes of one server find each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A Ray cluster over all nodes.
    Ray,
    /// vLLM's own processes; over several nodes with `--nnodes`.
    Mp,
}

/// The parts of the plan that `auto` leaves open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// How the processes find each other.
    pub mode: Mode,
    /// GPUs that share one layer.
    pub tensor_parallel: u32,
    /// Pipeline stages.
    pub pipeline_parallel: u32,
    /// What `--dtype` says, if anything.
    pub dtype: Option<String>,
    /// Why.
    pub dtype_reason: String,
    /// What this vLLM needs on these GPUs.
    pub extras: Extras,
    /// Whether this vLLM has the command `vllm serve`.
    pub serve_command: bool,
    /// Whether this vLLM has `--distributed-executor-backend`.
    pub backend_option: bool,
    /// Whether Ray's nodes ask each other for a token.
    pub ray_token: bool,
}

/// What matters of one node.
#[derive(Clone, Debug)]
pub struct NodeGpus {
    /// How messages call it.
    pub node: String,
    /// GPUs that the server may use.
    pub count: u32,
    /// Compute capabilities as `nvidia-smi` writes them, e.g. `7.5`.
    pub capabilities: Vec<String>,
}

/// Fills in what the spec leaves to us; refuses what cannot work.
pub fn choose(spec: &ClusterSpec, image: &ImageFacts, nodes: &[NodeGpus]) -> Result<Choice> {
    let vllm = image.vllm.as_deref();
    let mode = choose_mode(spec.executor, image, nodes.len())?;
    let per_node = gpus_per_node(nodes)?;
    if spec.gpus == Gpus::All && per_node == 0 {
        return Err(Error::Usage(format!(
            "{} has no GPU that nvidia-smi shows; install the driver, or set gpus = \"none\" for a CPU image",
            nodes.first().map_or("the cluster", |node| &node.node)
        )));
    }
    let node_count = u32::try_from(nodes.len()).unwrap_or(u32::MAX);
    let tensor_parallel = spec
        .tensor_parallel
        .fixed()
        .copied()
        .unwrap_or(per_node.max(1));
    let pipeline_parallel = spec
        .pipeline_parallel
        .fixed()
        .copied()
        .unwrap_or(node_count);
    let (wanted, have) = (
        u64::from(tensor_parallel) * u64::from(pipeline_parallel),
        per_node.max(1) * node_count,
    );
    if wanted == 0 || wanted > u64::from(have) {
        return Err(Error::Usage(format!(
            "tensor_parallel {tensor_parallel} x pipeline_parallel {pipeline_parallel} needs {wanted} GPUs, \
             the nodes have {have}; set both to \"auto\" to use what is there"
        )));
    }
    if pipeline_parallel > 1 && !Feature::Pipeline.in_vllm(vllm)? {
        return Err(Error::Usage(format!(
            "vLLM {} cannot serve pipeline_parallel {pipeline_parallel}; set pipeline_parallel = 1 and \
             tensor_parallel = {have}, or pack vLLM 0.5.1 or later",
            vllm.unwrap_or_default()
        )));
    }
    let (dtype, dtype_reason) = choose_dtype(spec, nodes);
    let least = nodes
        .iter()
        .flat_map(|node| &node.capabilities)
        .min_by_key(|capability| numbers(capability));
    Ok(Choice {
        mode,
        tensor_parallel,
        pipeline_parallel,
        dtype,
        dtype_reason,
        extras: extras(vllm, least.map(String::as_str), &spec.serve_args)?,
        serve_command: Feature::Serve.in_vllm(vllm)?,
        backend_option: Feature::ExecutorBackend.in_vllm(vllm)?,
        ray_token: mode == Mode::Ray && has_tokens(image),
    })
}

fn has_tokens(image: &ImageFacts) -> bool {
    image
        .ray
        .as_ref()
        .is_some_and(|version| numbers(version) >= FIRST_RAY_WITH_TOKENS.to_vec())
}

/// How the processes find each other; refuses what the image cannot do on so many nodes.
pub(super) fn choose_mode(wish: Executor, image: &ImageFacts, nodes: usize) -> Result<Mode> {
    let mode = match wish {
        Executor::Ray if image.ray.is_none() => {
            return Err(Error::Usage(
                "executor = \"ray\", but the image has no Ray (official images stopped shipping it around \
                 vLLM 0.18); set executor = \"auto\" or pack an image with Ray"
                    .into(),
            ));
        }
        Executor::Ray => Mode::Ray,
        Executor::Auto if image.ray.is_some() && nodes > 1 => Mode::Ray,
        Executor::Auto | Executor::Mp => Mode::Mp,
    };
    let vllm = image.vllm.as_deref();
    if mode == Mode::Mp && nodes > 1 && !Feature::Nnodes.in_vllm(vllm)? {
        let ray = match image.ray {
            Some(_) => "set executor = \"ray\"",
            None => "pack an image with Ray, or vLLM 0.12 or later",
        };
        return Err(Error::Usage(format!(
            "vLLM {} serves on {nodes} nodes with Ray only; {ray}",
            vllm.unwrap_or_default()
        )));
    }
    Ok(mode)
}

/// The number that all nodes share: stages of one server are equally wide.
fn gpus_per_node(nodes: &[NodeGpus]) -> Result<u32> {
    let Some(first) = nodes.first() else {
        return Err(Error::Usage("hosts.txt names no node".into()));
    };
    match nodes.iter().find(|node| node.count != first.count) {
        None => Ok(first.count),
        Some(other) => Err(Error::Usage(format!(
            "{} has {} GPUs, {} has {}; every node must have as many: limit the larger with gpus=N in hosts.txt",
            first.node, first.count, other.node, other.count
        ))),
    }
}

/// What `--dtype` says, and why.
fn choose_dtype(spec: &ClusterSpec, nodes: &[NodeGpus]) -> (Option<String>, String) {
    if let Some(dtype) = spec.dtype.fixed() {
        return (Some(dtype.clone()), "as the spec says".into());
    }
    let lacks =
        |text: &&String| parse_capability(text).is_some_and(|found| found < FIRST_WITH_BFLOAT16);
    let old = nodes
        .iter()
        .find_map(|node| Some((node, node.capabilities.iter().find(lacks)?)));
    match old {
        Some((node, capability)) => (
            Some("float16".into()),
            format!(
                "the GPUs of {} have compute capability {capability}, bfloat16 begins at 8.0",
                node.node
            ),
        ),
        None => (None, "as in the model".into()),
    }
}

/// `7.5` as (7, 5).
fn parse_capability(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.trim().split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::cluster_spec::Auto;

    fn nodes(count: usize, gpus: u32, capability: &str) -> Vec<NodeGpus> {
        (1..=count)
            .map(|number| NodeGpus {
                node: format!("n{number}"),
                count: gpus,
                capabilities: vec![capability.to_owned(); gpus as usize],
            })
            .collect()
    }

    fn image(ray: bool) -> ImageFacts {
        ImageFacts {
            ray: ray.then(|| "2.9.0".into()),
            ..ImageFacts::default()
        }
    }

    #[test]
    fn the_reference_deployment_is_what_auto_comes_to() {
        let choice = choose(&ClusterSpec::default(), &image(true), &nodes(4, 4, "7.5")).unwrap();
        let dtype = Some("float16".to_owned());
        let expected = Choice {
            mode: Mode::Ray,
            tensor_parallel: 4,
            pipeline_parallel: 4,
            dtype,
            dtype_reason: "the GPUs of n1 have compute capability 7.5, bfloat16 begins at 8.0"
                .into(),
            extras: Extras::default(),
            serve_command: true,
            backend_option: true,
            ray_token: false,
        };
        assert_eq!(choice, expected);
    }

    #[test]
    fn dtype_is_left_alone_from_ampere_on() {
        for (capability, float16) in [
            ("7.0", true),
            ("7.5", true),
            ("8.0", false),
            ("12.0", false),
        ] {
            let choice = choose(
                &ClusterSpec::default(),
                &image(true),
                &nodes(1, 1, capability),
            )
            .unwrap();
            assert_eq!(choice.dtype.is_some(), float16, "{capability}");
        }
    }

    #[test]
    fn ray_only_where_the_image_has_it_and_it_is_needed() {
        let spec = |executor| ClusterSpec {
            executor,
            ..ClusterSpec::default()
        };
        let mode = |executor, ray, count| {
            choose(&spec(executor), &image(ray), &nodes(count, 4, "8.0")).map(|choice| choice.mode)
        };
        assert_eq!(mode(Executor::Auto, true, 4).unwrap(), Mode::Ray);
        assert_eq!(mode(Executor::Auto, false, 4).unwrap(), Mode::Mp);
        assert_eq!(mode(Executor::Auto, true, 1).unwrap(), Mode::Mp);
        assert_eq!(mode(Executor::Ray, true, 1).unwrap(), Mode::Ray);
        assert_eq!(mode(Executor::Mp, true, 4).unwrap(), Mode::Mp);
        let refused = mode(Executor::Ray, false, 4).unwrap_err().to_string();
        assert!(refused.contains("no Ray"), "{refused}");
    }

    #[test]
    fn old_versions_cannot_do_everything() {
        let refusal = |vllm: &str, ray: bool, executor| {
            let image = ImageFacts {
                vllm: Some(vllm.into()),
                ..image(ray)
            };
            let spec = ClusterSpec {
                executor,
                ..ClusterSpec::default()
            };
            choose(&spec, &image, &nodes(4, 4, "8.0"))
                .map_err(|error| error.to_string())
                .err()
                .unwrap_or_default()
        };
        assert!(refusal("0.11.0", false, Executor::Auto).contains("pack an image with Ray"));
        assert!(refusal("0.11.0", true, Executor::Mp).contains("executor = \"ray\""));
        assert_eq!(refusal("0.12.0", false, Executor::Auto), "");
        assert!(refusal("0.4.2", true, Executor::Auto).contains("tensor_parallel = 16"));
        assert_eq!(refusal("0.6.4.post1", true, Executor::Auto), "");
    }

    #[test]
    fn ray_gets_a_token_from_the_version_on_that_knows_it() {
        for (version, token) in [
            ("2.51.1", false),
            ("2.52.0", true),
            ("2.60.0", true),
            ("of unknown version", false),
        ] {
            let image = ImageFacts {
                ray: Some(version.into()),
                ..ImageFacts::default()
            };
            let choice = choose(&ClusterSpec::default(), &image, &nodes(2, 4, "8.0")).unwrap();
            assert_eq!(choice.ray_token, token, "{version}");
        }
    }

    #[test]
    fn what_cannot_work_is_refused_with_the_reason() {
        let refusal = |spec: &ClusterSpec, nodes: &[NodeGpus]| {
            choose(spec, &image(true), nodes).unwrap_err().to_string()
        };
        let wide = ClusterSpec {
            tensor_parallel: Auto::Fixed(8),
            ..ClusterSpec::default()
        };
        assert!(refusal(&wide, &nodes(4, 4, "8.0")).contains("needs 32 GPUs, the nodes have 16"));
        let mut unequal = nodes(4, 4, "8.0");
        unequal[2].count = 3;
        assert!(refusal(&ClusterSpec::default(), &unequal).contains("n3 has 3"));
        assert!(refusal(&ClusterSpec::default(), &nodes(2, 0, "8.0")).contains("no GPU"));
        assert!(refusal(&ClusterSpec::default(), &[]).contains("no node"));
    }

    #[test]
    fn a_cpu_image_counts_one_worker_per_node() {
        let spec = ClusterSpec {
            gpus: Gpus::None,
            ..ClusterSpec::default()
        };
        let choice = choose(&spec, &image(true), &nodes(2, 0, "")).unwrap();
        assert_eq!((choice.tensor_parallel, choice.pipeline_parallel), (1, 2));
        assert_eq!(choice.dtype, None);
    }
}
