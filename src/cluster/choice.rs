//! What `auto` in the spec comes to, given the image and the nodes.

use super::compatibility::{numbers, options};
use crate::bundle::cluster_spec::{ClusterSpec, Executor, Gpus};
use crate::bundle::manifest::ImageFacts;
use crate::error::{Error, Result};

/// Compute capability from which GPUs have bfloat16 (Ampere).
const FIRST_WITH_BFLOAT16: (u32, u32) = (8, 0);

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
    /// Options that this vLLM needs on these GPUs.
    pub options: Vec<String>,
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
    let dtype = match spec.dtype.fixed() {
        Some(dtype) => Some(dtype.clone()),
        None => needs_float16(nodes).then(|| "float16".to_owned()),
    };
    let least = nodes
        .iter()
        .flat_map(|node| &node.capabilities)
        .min_by_key(|capability| numbers(capability));
    let options = options(
        image.vllm.as_deref(),
        least.map(String::as_str),
        &spec.serve_args,
    )?;
    Ok(Choice {
        mode,
        tensor_parallel,
        pipeline_parallel,
        dtype,
        options,
    })
}

fn choose_mode(wish: Executor, image: &ImageFacts, nodes: usize) -> Result<Mode> {
    match wish {
        Executor::Ray if image.ray.is_none() => Err(Error::Usage(
            "executor = \"ray\", but the image has no Ray (official images stopped shipping it around \
             vLLM 0.18); set executor = \"auto\" or pack an image with Ray"
                .into(),
        )),
        Executor::Ray => Ok(Mode::Ray),
        Executor::Auto if image.ray.is_some() && nodes > 1 => Ok(Mode::Ray),
        Executor::Auto | Executor::Mp => Ok(Mode::Mp),
    }
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

fn needs_float16(nodes: &[NodeGpus]) -> bool {
    let mut capabilities = nodes.iter().flat_map(|node| &node.capabilities);
    capabilities.any(|text| parse_capability(text).is_some_and(|found| found < FIRST_WITH_BFLOAT16))
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
            options: Vec::new(),
            mode: Mode::Ray,
            tensor_parallel: 4,
            pipeline_parallel: 4,
            dtype,
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
