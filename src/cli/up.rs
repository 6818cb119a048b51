//! `bundle up` and `bundle down`: the containers of what is installed.

use std::time::Duration;

use super::generations::stop;
use super::nodes::{NameArgs, NodeArgs, deployment, facts, nodes, say};
use super::output::print;
use crate::agent::fleet::{Member, reached};
use crate::bundle::manifest::Manifest;
use crate::cluster::deployment::Deployment;
use crate::cluster::node::Node;
use crate::cluster::start::Way;
use crate::cluster::{container, ray_token, ready, start};
use crate::error::Result;
use crate::install::{activate, distribute};
use crate::ssh::quote_for_people;

/// Arguments of `bundle up`.
#[derive(clap::Args)]
pub struct UpArgs {
    #[command(flatten)]
    name: NameArgs,
    #[command(flatten)]
    nodes: NodeArgs,
    #[command(flatten)]
    start: StartArgs,
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
    start: StartArgs,
}

/// Arguments of `bundle down`.
#[derive(clap::Args)]
pub struct DownArgs {
    #[command(flatten)]
    name: NameArgs,
    #[command(flatten)]
    nodes: NodeArgs,
}

/// How to start.
#[derive(clap::Args)]
pub struct StartArgs {
    /// Minutes until the server must answer.
    #[arg(long, value_name = "MINUTES", default_value_t = 60)]
    timeout: u64,
    /// Start without trying the network between the nodes inside the image.
    #[arg(long)]
    no_network_test: bool,
}

/// Runs `bundle up`.
pub fn up(args: &UpArgs) -> anyhow::Result<()> {
    let members = args.nodes.connect_all()?;
    let manifest = args.name.installed(&members)?;
    let facts = facts(&members, &manifest)?;
    let nodes = nodes(&members, &facts);
    if args.dry_run {
        return print(&commands(
            &nodes,
            &deployment(&members, &facts, manifest, None)?,
        ));
    }
    let manifest = settle(&members, &nodes, manifest)?;
    start(
        &nodes,
        &deployment(&members, &facts, manifest, None)?,
        &args.start,
    )
}

/// Sees to it that all nodes have the same version in place before anything starts: a switch that
/// broke off is finished. Returns the manifest of that version.
fn settle(members: &[Member], nodes: &[Node], manifest: Manifest) -> Result<Manifest> {
    let name = &manifest.name;
    let version = activate::agreed(name, &activate::versions(members, name)?)?;
    if let Some(identity) = version.manifest {
        distribute::load_images(members, name, identity)?;
    }
    let switched = activate::activate(members, name, version, || stop(nodes, name, false))?;
    if !switched {
        return Ok(manifest);
    }
    say("finished a switch that had not reached every node");
    NameArgs::new(Some(name.to_string())).installed(members)
}

/// The command of each node, for a shell.
pub fn commands(nodes: &[Node], deployment: &Deployment) -> String {
    let mut text = String::new();
    if deployment.choice.ray_token {
        let path = ray_token::path(&deployment.manifest.name);
        text.extend([
            "# first, the same secret on every node (`openssl rand -hex 32` makes one), on standard input of:\n",
            "#   install -D -m 600 /dev/stdin ",
            &path,
            "\n",
        ]);
    }
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
    let manifest = settle(&members, &nodes, manifest)?;
    // What cannot start again is not stopped.
    let deployment = deployment(&members, &facts, manifest, None)?;
    start::down(&nodes, &deployment.manifest.name)?;
    start(&nodes, &deployment, &args.start)
}

/// Runs `bundle down`. What cannot be reached keeps no other node from stopping.
pub fn down(args: &DownArgs) -> anyhow::Result<()> {
    let (members, unreached) = reached(args.nodes.connect()?)?;
    let manifest = args.name.installed(&members)?;
    let facts = facts(&members, &manifest)?;
    let stopped = start::down(&nodes(&members, &facts), &manifest.name)?;
    if stopped.is_empty() {
        print(&format!("{} was not running", manifest.name))?;
    } else {
        print(&format!(
            "{} is stopped on {}",
            manifest.name,
            stopped.join(", ")
        ))?;
    }
    unreached.map_or(Ok(()), |error| Err(error.into()))
}

/// Starts what does not run, waits until it answers, and says how to use it.
pub fn start(nodes: &[Node], deployment: &Deployment, args: &StartArgs) -> anyhow::Result<()> {
    let way = Way {
        test_network: !args.no_network_test,
        say: &say,
    };
    let started = start::up(nodes, deployment, &way)?;
    if started.is_empty() {
        say("all containers run already");
    } else {
        say(&format!("started on {}", started.join(", ")));
    }
    for (node, member) in nodes.iter().zip(&deployment.members) {
        if let Some(remark) = member.runtime.after_boot() {
            say(&format!("{}: {remark}", node.name));
        }
    }
    let limit = Duration::from_secs(args.timeout.saturating_mul(60));
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
