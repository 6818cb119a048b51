//! `bundle up` and `bundle down`: the containers of what is installed.

use std::time::Duration;

use super::nodes::{NameArgs, NodeArgs, deployment, facts, nodes, say};
use super::output::print;
use crate::cluster::deployment::Deployment;
use crate::cluster::node::Node;
use crate::cluster::{container, ready, start};
use crate::ssh::quote_for_people;

/// Arguments of `bundle up`.
#[derive(clap::Args)]
pub struct UpArgs {
    #[command(flatten)]
    name: NameArgs,
    #[command(flatten)]
    nodes: NodeArgs,
    #[command(flatten)]
    timeout: Timeout,
    /// Print the command of each node instead of running it; it can be typed there by hand.
    #[arg(long)]
    dry_run: bool,
}

/// Arguments of `bundle restart`.
#[derive(clap::Args)]
pub struct RestartArgs {
    #[command(flatten)]
    name: NameArgs,
    #[command(flatten)]
    nodes: NodeArgs,
    #[command(flatten)]
    timeout: Timeout,
}

/// Arguments of `bundle down`.
#[derive(clap::Args)]
pub struct DownArgs {
    #[command(flatten)]
    name: NameArgs,
    #[command(flatten)]
    nodes: NodeArgs,
}

/// How long a start may take.
#[derive(clap::Args)]
pub struct Timeout {
    /// Minutes until the server must answer.
    #[arg(long, value_name = "MINUTES", default_value_t = 60)]
    timeout: u64,
}

/// Runs `bundle up`.
pub fn up(args: &UpArgs) -> anyhow::Result<()> {
    let members = args.nodes.connect_all()?;
    let manifest = args.name.installed(&members)?;
    let facts = facts(&members, &manifest)?;
    let deployment = deployment(&members, &facts, manifest)?;
    let nodes = nodes(&members, &facts);
    if args.dry_run {
        return print(&commands(&nodes, &deployment));
    }
    start(&nodes, &deployment, &args.timeout)
}

/// The command of each node, for a shell.
fn commands(nodes: &[Node], deployment: &Deployment) -> String {
    let mut text = String::new();
    for (rank, node) in nodes.iter().enumerate() {
        let mut words = vec![node.runtime.clone()];
        words.extend(container::run(deployment, rank));
        let quoted: Vec<String> = words.iter().map(|word| quote_for_people(word)).collect();
        text.extend(["# on ", &node.name, "\n", &quoted.join(" "), "\n"]);
    }
    text
}

/// Runs `bundle restart`.
pub fn restart(args: &RestartArgs) -> anyhow::Result<()> {
    let members = args.nodes.connect_all()?;
    let manifest = args.name.installed(&members)?;
    let facts = facts(&members, &manifest)?;
    let nodes = nodes(&members, &facts);
    start::down(&nodes, &manifest.name)?;
    start(
        &nodes,
        &deployment(&members, &facts, manifest)?,
        &args.timeout,
    )
}

/// Runs `bundle down`.
pub fn down(args: &DownArgs) -> anyhow::Result<()> {
    let members = args.nodes.connect_all()?;
    let manifest = args.name.installed(&members)?;
    let facts = facts(&members, &manifest)?;
    let stopped = start::down(&nodes(&members, &facts), &manifest.name)?;
    if stopped.is_empty() {
        return print(&format!("{} was not running", manifest.name));
    }
    print(&format!(
        "{} is stopped on {}",
        manifest.name,
        stopped.join(", ")
    ))
}

/// Starts what does not run, waits until it answers, and says how to use it.
pub fn start(nodes: &[Node], deployment: &Deployment, timeout: &Timeout) -> anyhow::Result<()> {
    let started = start::up(nodes, deployment)?;
    if started.is_empty() {
        say("all containers run already");
    } else {
        say(&format!("started on {}", started.join(", ")));
    }
    let limit = Duration::from_secs(timeout.timeout.saturating_mul(60));
    let ready = ready::wait(nodes, deployment, limit, &say)?;
    print(&format!(
        "{name} answers at {endpoint} as {model} ({rate:.1} tokens/s in the probe)\n\
         try: curl {endpoint}/v1/completions -H 'Content-Type: application/json' \
         -d '{{\"model\": \"{model}\", \"prompt\": \"Hello\", \"max_tokens\": 16}}'",
        name = deployment.manifest.name,
        endpoint = ready.endpoint,
        model = ready.model,
        rate = ready.tokens_per_second,
    ))
}
