//! `bundle status`: a row per node, and whether the server answers.

use std::net::SocketAddr;

use serde::Serialize;

use super::nodes::{NameArgs, NodeArgs, facts, nodes};
use super::output::{print, print_json, table};
use crate::agent::fleet::Member;
use crate::agent::protocol::{Version, Versions};
use crate::bundle::manifest::Manifest;
use crate::cluster::container;
use crate::cluster::node::{ContainerState, Node};
use crate::error::{Error, Result};
use crate::install::activate;
use crate::ssh::fan_out;

/// Arguments of `bundle status`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    name: NameArgs,
    #[command(flatten)]
    nodes: NodeArgs,
    /// Print it as JSON.
    #[arg(long)]
    json: bool,
}

/// All of it.
#[derive(Serialize)]
struct Status {
    bundle: String,
    nodes: Vec<NodeStatus>,
    /// Base URL when `/health` answers 200 there.
    endpoint: Option<String>,
}

/// One node's row.
#[derive(Serialize)]
struct NodeStatus {
    node: String,
    /// `same` as all others, or what they were prepared for; `behind` when a switch has not
    /// reached it; `other`, or `none`.
    installed: &'static str,
    container: Option<ContainerState>,
}

/// Runs `bundle status`. A server that does not answer is exit code 1.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let members = args.nodes.connect_all()?;
    let manifest = args.name.installed(&members)?;
    let facts = facts(&members, &manifest)?;
    let known = activate::versions(&members, &manifest.name)?;
    let status = status(&members, &nodes(&members, &facts), &manifest, &known)?;
    if args.json {
        print_json(&status)?;
    } else {
        print(&describe(&status))?;
    }
    verdict(&status, &manifest, &known)?;
    match status.endpoint {
        Some(_) => Ok(()),
        None => Err(Error::Failed(format!("{} does not answer", manifest.name)).into()),
    }
}

/// Nodes that could start with different versions are a failure, whatever answers now.
fn verdict(status: &Status, manifest: &Manifest, known: &[activate::Known]) -> Result<()> {
    activate::agreed(&manifest.name, known)?;
    let behind = |row: &&NodeStatus| row.installed == "behind";
    let names: Vec<&str> = status
        .nodes
        .iter()
        .filter(behind)
        .map(|row| row.node.as_str())
        .collect();
    if names.is_empty() {
        return Ok(());
    }
    Err(Error::SomeNodes(format!(
        "a switch has not reached {}; `bundle up` finishes it",
        names.join(", ")
    )))
}

fn status(
    members: &[Member],
    nodes: &[Node],
    manifest: &Manifest,
    known: &[activate::Known],
) -> Result<Status> {
    let name = container::name(&manifest.name);
    let agreed = activate::agreed(&manifest.name, known).ok();
    let ranks: Vec<usize> = (0..members.len()).collect();
    let rows = fan_out(&ranks, |&rank| {
        Ok(NodeStatus {
            node: nodes[rank].name.clone(),
            installed: installed(&known[rank].1, agreed.or(known[0].1.current)),
            container: nodes[rank].container(&name)?,
        })
    });
    let rows = crate::agent::fleet::all(rows)?;
    let endpoint = members
        .first()
        .zip(nodes.first())
        .and_then(|(member, head)| {
            let url = format!(
                "http://{}",
                SocketAddr::new(member.address, manifest.cluster.port)
            );
            matches!(head.http(&format!("{url}/health"), None, 5), Ok((200, _))).then_some(url)
        });
    Ok(Status {
        bundle: manifest.name.to_string(),
        nodes: rows,
        endpoint,
    })
}

fn installed(node: &Versions, wanted: Option<Version>) -> &'static str {
    match node.current {
        None => "none",
        current if current == wanted => "same",
        _ if node.prepared == wanted => "behind",
        _ => "other",
    }
}

fn describe(status: &Status) -> String {
    let mut rows = vec![
        ["node", "installed", "container", "restarts"]
            .map(String::from)
            .to_vec(),
    ];
    rows.extend(status.nodes.iter().map(|row| {
        let (state, restarts) = match &row.container {
            Some(container) => (container.status.clone(), container.restarts.to_string()),
            None => ("none".into(), String::new()),
        };
        vec![row.node.clone(), row.installed.into(), state, restarts]
    }));
    let api = match &status.endpoint {
        Some(url) => format!("{} answers at {url}", status.bundle),
        None => format!("{} does not answer", status.bundle),
    };
    format!("{}{api}", table(&rows))
}
