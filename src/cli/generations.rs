//! `bundle rollback` and `bundle prune`: the generation before the one that is in place.

use super::nodes::{NameArgs, NodeArgs, deployment, facts, nodes, say};
use super::output::print;
use super::up::{StartArgs, start};
use crate::agent::fleet::{Member, all};
use crate::agent::protocol::Request;
use crate::cluster::start::down;
use crate::error::Result;
use crate::ssh::fan_out;

/// Arguments of `bundle rollback`.
#[derive(clap::Args)]
pub struct RollbackArgs {
    #[command(flatten)]
    name: NameArgs,
    #[command(flatten)]
    nodes: NodeArgs,
    /// Stop when the content is in place, before the cluster is started.
    #[arg(long)]
    no_start: bool,
    #[command(flatten)]
    start: StartArgs,
}

/// Arguments of `bundle prune`.
#[derive(clap::Args)]
pub struct PruneArgs {
    #[command(flatten)]
    name: NameArgs,
    #[command(flatten)]
    nodes: NodeArgs,
}

/// Runs `bundle rollback`.
pub fn rollback(args: &RollbackArgs) -> anyhow::Result<()> {
    let members = args.nodes.connect_all()?;
    let manifest = args.name.installed(&members)?;
    let facts = facts(&members, &manifest)?;
    let nodes = nodes(&members, &facts);
    if !args.nodes.is_rehearsal() {
        down(&nodes, &manifest.name)?;
    }
    let name = manifest.name.to_string();
    on_all(&members, || Request::Rollback { name: name.clone() })?;
    let before = NameArgs::new(Some(name.clone())).installed(&members)?;
    say(&format!(
        "the previous content of {name} is in place on {} nodes",
        members.len()
    ));
    if args.no_start || args.nodes.is_rehearsal() {
        return print(&format!("{name} is rolled back; `bundle up` starts it"));
    }
    let deployment = deployment(&members, &facts, before)?;
    start(&nodes, &deployment, &args.start)
}

/// Runs `bundle prune`.
pub fn prune(args: &PruneArgs) -> anyhow::Result<()> {
    let members = args.nodes.connect_all()?;
    let name = args.name.installed(&members)?.name.to_string();
    on_all(&members, || Request::Prune { name: name.clone() })?;
    print(&format!(
        "the previous generation of {name} is removed from {} nodes",
        members.len()
    ))
}

fn on_all(members: &[Member], request: impl Fn() -> Request + Sync) -> Result<()> {
    all(fan_out(members, |member| member.perform(request()))).map(drop)
}
