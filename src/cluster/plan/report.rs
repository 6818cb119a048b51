//! The whole plan: from spec, image and nodes to what is started, and what that leaves.

use serde::Serialize;

use super::memory::Cut;
use super::{Machine, Plan, Subject, hardware, plan};
use crate::bundle::cluster_spec::{ClusterSpec, Target};
use crate::bundle::manifest::ImageFacts;
use crate::cluster::choice::{Mode, NodeGpus, choose};
use crate::error::Result;

/// The answer of `bundle plan`.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// `ray` or `mp`.
    pub executor: &'static str,
    /// What `--dtype` says, if anything.
    pub dtype: Option<String>,
    /// Why.
    pub dtype_reason: String,
    /// Where memory goes.
    pub plan: Plan,
}

/// Plans for these nodes, which together are this machine; refuses what cannot work.
pub fn report(
    spec: &ClusterSpec,
    image: &ImageFacts,
    subject: &Subject,
    (machine, nodes): (&Machine, &[NodeGpus]),
) -> Result<Report> {
    let choice = choose(spec, image, nodes)?;
    let cut = Cut {
        tensor_parallel: choice.tensor_parallel,
        pipeline_parallel: choice.pipeline_parallel,
    };
    Ok(Report {
        executor: match choice.mode {
            Mode::Ray => "ray",
            Mode::Mp => "mp",
        },
        dtype: choice.dtype,
        dtype_reason: choice.dtype_reason,
        plan: plan(subject, machine, cut)?,
    })
}

/// The machine that a target describes, and its nodes.
pub fn of_target(target: &Target) -> Result<(Machine, Vec<NodeGpus>)> {
    let gpu = hardware::gpu(&target.gpu)?;
    let node = |number| NodeGpus {
        node: format!("node {number}"),
        count: target.gpus_per_node,
        capabilities: vec![gpu.capability.clone()],
    };
    let nodes = (1..=target.nodes).map(node).collect();
    let machine = Machine {
        nodes: target.nodes,
        gpus_per_node: target.gpus_per_node,
        memory_mib: gpu.memory_mib,
        capability: gpu.capability,
        driver: None,
    };
    Ok((machine, nodes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::plan::tests::subject;

    fn verdict(cluster: &str, target: &str, model: &str, gigabytes: f64) -> String {
        let spec: ClusterSpec = toml::from_str(cluster).unwrap();
        let target = Target::try_from(target.to_owned()).unwrap();
        let image = ImageFacts {
            ray: Some("2.9.0".into()),
            ..ImageFacts::default()
        };
        let (machine, nodes) = match of_target(&target) {
            Ok(found) => found,
            Err(error) => return error.to_string(),
        };
        let subject = subject(model, gigabytes);
        match report(&spec, &image, &subject, (&machine, &nodes)) {
            Ok(report) => format!(
                "{} {:?} {}x{}",
                report.executor,
                report.dtype,
                report.plan.cut.tensor_parallel,
                report.plan.cut.pipeline_parallel
            ),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn targets_are_planned_or_refused_with_what_would_work() {
        const LLAMA: &str = "deepseek-r1-distill-llama-70b";
        for (cluster, target, model, gigabytes, expected) in [
            ("", "4x4xT4", LLAMA, 141.1, "ray Some(\"float16\") 4x4"),
            ("", "1x4xA100", LLAMA, 141.1, "mp None 4x1"),
            (
                "executor = \"ray\"",
                "1x4xA100",
                LLAMA,
                141.1,
                "ray None 4x1",
            ),
            (
                "",
                "1x4xT4",
                "qwen2.5-0.5b",
                1.0,
                "tensor_parallel = 2 with pipeline_parallel = 1 would work",
            ),
            ("", "2x4xT4", LLAMA, 141.1, "no cut works on 2 x 4"),
            ("", "4x4xT5", LLAMA, 141.1, "no GPU \"T5\" is known"),
            (
                "tensor_parallel = 32",
                "4x4xT4",
                LLAMA,
                141.1,
                "the nodes have 16",
            ),
        ] {
            let verdict = verdict(cluster, target, model, gigabytes);
            assert!(
                verdict.contains(expected),
                "{cluster} {target} {model}: {verdict}"
            );
        }
    }
}
