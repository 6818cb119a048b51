//! `bundle rollback` and `bundle prune`: the generation before the one that is in place.

use super::nodes::{NameArgs, NodeArgs, deployment, facts, nodes, say};
use super::output::print;
use super::up::{StartArgs, start};
use crate::agent::fleet::all;
use crate::agent::protocol::Request;
use crate::bundle::manifest::Name;
use crate::cluster::node::Node;
use crate::cluster::start::down;
use crate::error::{Error, Result};
use crate::install::{activate, distribute};
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
    let name = &manifest.name;
    let facts = facts(&members, &manifest)?;
    let nodes = nodes(&members, &facts);
    let rehearsal = args.nodes.is_rehearsal();
    let target = activate::before(name, &activate::versions(&members, name)?)?;
    if !rehearsal && let Some(identity) = target.manifest {
        distribute::load_images(&members, name, identity)?;
    }
    activate::activate(&members, name, target, || stop(&nodes, name, rehearsal))?;
    say(&format!(
        "the previous content of {name} is in place on {} nodes",
        members.len()
    ));
    if target.manifest.is_none() {
        return print(&format!(
            "{name} is rolled back to what was there before its first install"
        ));
    }
    if args.no_start || rehearsal {
        return print(&format!("{name} is rolled back; `bundle up` starts it"));
    }
    let before = NameArgs::new(Some(name.to_string())).installed(&members)?;
    let deployment = deployment(&members, &facts, before, None)?;
    start(&nodes, &deployment, &args.start)
}

/// Runs `bundle prune`.
pub fn prune(args: &PruneArgs) -> anyhow::Result<()> {
    let members = args.nodes.connect_all()?;
    let name = args.name.installed(&members)?.name;
    let known = activate::versions(&members, &name)?;
    let agreed = activate::agreed(&name, &known)?;
    if let Some((behind, _)) = known.iter().find(|(_, node)| node.current != Some(agreed)) {
        return Err(Error::Failed(format!(
            "{behind}: the version of {name} that the other nodes have is not in place yet; nothing was removed. `bundle up` finishes it"
        ))
        .into());
    }
    let request = || Request::Prune {
        name: name.to_string(),
    };
    all(fan_out(&members, |member| member.perform(request())))?;
    print(&format!(
        "the previous generation of {name} is removed from {} nodes",
        members.len()
    ))
}

/// Removes the containers of a bundle; returns whether there can be any on these nodes.
pub fn stop(nodes: &[Node], name: &Name, rehearsal: bool) -> Result<bool> {
    if !rehearsal {
        down(nodes, name)?;
    }
    Ok(!rehearsal)
}
