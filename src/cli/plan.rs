//! `bundle plan`: whether a bundle's model fits, how it is cut, and what that leaves for requests.

use std::fmt::Write as _;
use std::path::PathBuf;

use super::locate::media;
use super::nodes::{NodeArgs, facts};
use super::output::{print, print_json, size, table};
use crate::agent::facts::Facts;
use crate::agent::fleet::Member;
use crate::bundle::cluster_spec::{Gpus, Target};
use crate::bundle::manifest::Manifest;
use crate::bundle::media::Media;
use crate::bundle::small_file;
use crate::cluster::choice::NodeGpus;
use crate::cluster::plan::Machine;
use crate::cluster::plan::report::{Report, of_target, report};
use crate::cluster::plan::subject::{machine, of_bundle};
use crate::error::{Error, Result};

/// Arguments of `bundle plan`.
#[derive(clap::Args)]
pub struct Args {
    /// The bundle; by default the one here.
    path: Vec<PathBuf>,
    #[command(flatten)]
    reach: NodeArgs,
    /// Plan for so many nodes instead of those in hosts.txt.
    #[arg(long, value_name = "N", requires_all = ["gpus_per_node", "gpu"], value_parser = clap::value_parser!(u32).range(1..=1024))]
    nodes: Option<u32>,
    /// GPUs of each of them.
    #[arg(long, value_name = "N", requires = "nodes", value_parser = clap::value_parser!(u32).range(1..=64))]
    gpus_per_node: Option<u32>,
    /// Which GPU they have, e.g. t4, a100, h100.
    #[arg(long, value_name = "GPU", requires = "nodes")]
    gpu: Option<String>,
    /// Print it as JSON.
    #[arg(long)]
    json: bool,
}

/// Runs `bundle plan`.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let media = media(&args.path)?;
    let manifest = media.manifest();
    if manifest.cluster.gpus == Gpus::None {
        return Err(Error::Usage("gpus = \"none\": there is no GPU memory to plan".into()).into());
    }
    let (machine, nodes) = args.machine(manifest)?;
    let subject = of_bundle(manifest, config(&media)?);
    let image = manifest.images.first().map(|image| image.facts.clone());
    let report = report(
        &manifest.cluster,
        &image.unwrap_or_default(),
        &subject,
        (&machine, &nodes),
    )?;
    if args.json {
        print_json(&report)
    } else {
        print(&describe(&report))
    }
}

impl Args {
    /// The machine of the options, that of the nodes, or the spec's target where there is no
    /// hosts.txt yet.
    fn machine(&self, manifest: &Manifest) -> Result<(Machine, Vec<NodeGpus>)> {
        if let (Some(nodes), Some(gpus_per_node), Some(gpu)) =
            (self.nodes, self.gpus_per_node, self.gpu.clone())
        {
            return of_target(&Target {
                nodes,
                gpus_per_node,
                gpu,
            });
        }
        match &manifest.cluster.target {
            Some(target) if !self.reach.has_hosts() => of_target(target),
            _ => self.machine_of_nodes(manifest),
        }
    }

    fn machine_of_nodes(&self, manifest: &Manifest) -> Result<(Machine, Vec<NodeGpus>)> {
        let members = self.reach.connect_all()?;
        let facts = facts(&members, manifest)?;
        let node = |(member, facts): (&Member, &Facts)| NodeGpus {
            node: member.host.address.clone(),
            count: member
                .host
                .gpus
                .unwrap_or_else(|| u32::try_from(facts.gpus.len()).unwrap_or(u32::MAX)),
            capabilities: facts
                .gpus
                .iter()
                .map(|gpu| gpu.compute_capability.clone())
                .collect(),
        };
        let nodes: Vec<NodeGpus> = members.iter().zip(&facts).map(node).collect();
        let least = nodes.iter().map(|node| node.count).min().unwrap_or(0);
        Ok((machine(&facts, least)?, nodes))
    }
}

/// The first model's `config.json`; empty when it has none, which the plan then says.
fn config(media: &Media) -> Result<String> {
    let Some(model) = media.manifest().models.first() else {
        return Err(Error::Usage("the bundle holds no model to plan for".into()));
    };
    match model
        .files
        .iter()
        .find(|file| file.path.as_str() == "config.json")
    {
        Some(file) => Ok(String::from_utf8_lossy(&small_file::read(media, file)?).into_owned()),
        None => Ok(String::new()),
    }
}

/// The report for people.
pub fn describe(report: &Report) -> String {
    let Report {
        executor,
        dtype,
        dtype_reason,
        plan,
    } = report;
    let mut text = format!(
        "tensor parallel {} x pipeline parallel {}, executor {executor}, dtype {}\n",
        plan.cut.tensor_parallel,
        plan.cut.pipeline_parallel,
        match dtype {
            Some(dtype) => format!("{dtype} ({dtype_reason})"),
            None => dtype_reason.clone(),
        },
    );
    // Writing to a string cannot fail.
    let mut line = |args: std::fmt::Arguments<'_>| {
        let _ = text.write_fmt(args);
    };
    if let Some(memory) = &plan.memory {
        let mut rows = vec![
            ["stage", "layers", "weights/GPU", "cache/token"]
                .map(String::from)
                .to_vec(),
        ];
        rows.extend((1..).zip(&memory.stages).map(|(number, stage)| {
            let number: u32 = number;
            vec![
                number.to_string(),
                stage.layers.to_string(),
                size(stage.weights),
                size(stage.cache_per_token),
            ]
        }));
        line(format_args!("\n{}\n", table(&rows)));
        line(format_args!(
            "room in the KV cache   {} tokens\n",
            memory.cache_tokens
        ));
        line(format_args!(
            "longest context        {} tokens\n",
            memory.longest_context
        ));
    }
    if let Some(requests) = plan.full_requests {
        line(format_args!("such requests at once  {requests:.1}\n"));
    }
    line(format_args!(
        "time to load           about {} s at 1 GB/s per node\n",
        plan.load_seconds
    ));
    for remark in &plan.remarks {
        line(format_args!("note: {remark}\n"));
    }
    text
}
