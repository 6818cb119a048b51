//! `bundle plan`: whether a bundle's model fits, how it is cut, and what that leaves for requests.

use std::fmt::Write as _;
use std::path::PathBuf;

use super::locate::media;
use super::nodes::{NodeArgs, facts, plan};
use super::output::{print, print_json, size, table};
use crate::bundle::cluster_spec::{Gpus, Target};
use crate::bundle::manifest::Manifest;
use crate::bundle::media::Media;
use crate::cluster::model_config;
use crate::cluster::plan::report::{Report, of_target, report};
use crate::cluster::plan::subject::of_bundle;
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
    if manifest.models.is_empty() {
        return Err(Error::Usage("the bundle holds no model to plan for".into()).into());
    }
    let report = match args.target(manifest) {
        Some(target) => for_target(&media, &target)?,
        None => args.for_nodes(&media)?,
    };
    if args.json {
        print_json(&report)
    } else {
        print(&describe(&report))
    }
}

impl Args {
    /// The machine of the options, or the spec's target where there is no hosts.txt yet.
    fn target(&self, manifest: &Manifest) -> Option<Target> {
        if let (Some(nodes), Some(gpus_per_node), Some(gpu)) =
            (self.nodes, self.gpus_per_node, self.gpu.clone())
        {
            return Some(Target {
                nodes,
                gpus_per_node,
                gpu,
            });
        }
        let target = manifest.cluster.target.clone();
        target.filter(|_| !self.reach.has_hosts())
    }

    fn for_nodes(&self, media: &Media) -> Result<Report> {
        let members = self.reach.connect_all()?;
        let facts = facts(&members, media.manifest())?;
        let report = plan(&members, &facts, media.manifest(), Some(media))?;
        report.ok_or_else(|| Error::Usage("there is nothing to plan for these nodes".into()))
    }
}

fn for_target(media: &Media, target: &Target) -> Result<Report> {
    let manifest = media.manifest();
    let (machine, nodes) = of_target(target)?;
    let subject = of_bundle(manifest, model_config::read(manifest, Some(media), &[])?);
    let image = manifest.images.first().map(|image| image.facts.clone());
    report(
        &manifest.cluster,
        &image.unwrap_or_default(),
        &subject,
        (&machine, &nodes),
    )
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
