//! Starting and stopping the containers. Both can be repeated: what is right stays as it is.

use super::container;
use super::deployment::Deployment;
use super::node::Node;
use crate::agent::fleet::all;
use crate::bundle::manifest::Name;
use crate::error::Result;
use crate::ssh::fan_out;

/// Makes every node run its container; `nodes` in the order of the deployment's members.
/// Returns the names of the nodes where something had to be started.
pub fn up(nodes: &[Node], deployment: &Deployment) -> Result<Vec<String>> {
    let ranks: Vec<usize> = (0..nodes.len()).collect();
    let started = fan_out(&ranks, |&rank| up_one(&nodes[rank], deployment, rank));
    let started: Vec<bool> = all(started)?;
    let names = nodes.iter().zip(started).filter(|(_, started)| *started);
    Ok(names.map(|(node, _)| node.name.clone()).collect())
}

/// Removes the containers of a bundle; returns the names of the nodes that had one.
pub fn down(nodes: &[Node], bundle: &Name) -> Result<Vec<String>> {
    let name = container::name(bundle);
    let removed = all(fan_out(nodes, |node| remove(node, &name)))?;
    let names = nodes.iter().zip(removed).filter(|(_, removed)| *removed);
    Ok(names.map(|(node, _)| node.name.clone()).collect())
}

/// Returns whether it had to be started.
fn up_one(node: &Node, deployment: &Deployment, rank: usize) -> Result<bool> {
    let name = container::name(&deployment.manifest.name);
    let wanted = container::config(deployment, rank).to_string();
    if let Some(state) = node.container(&name)? {
        if state.config == wanted && state.status == "running" {
            return Ok(false);
        }
        remove(node, &name)?;
    }
    node.runtime_ok(&container::run(deployment, rank))?;
    Ok(true)
}

/// Returns whether there was one.
fn remove(node: &Node, name: &str) -> Result<bool> {
    if node.container(name)?.is_none() {
        return Ok(false);
    }
    node.runtime_ok(&["rm", "--force", name].map(str::to_owned))?;
    Ok(true)
}
