//! Starting and stopping the containers. Both can be repeated: what is right stays as it is.

use super::container;
use super::deployment::Deployment;
use super::network;
use super::node::Node;
use super::ray_token;
use crate::agent::fleet::all;
use crate::bundle::manifest::Name;
use crate::error::Result;
use crate::ssh::fan_out;

/// How to start.
pub struct Way<'a> {
    /// Whether to try the network between the nodes before a cluster starts as a whole.
    pub test_network: bool,
    /// Hears what is going on.
    pub say: &'a dyn Fn(&str),
}

/// Makes every node run its container; `nodes` in the order of the deployment's members.
/// Returns the names of the nodes where something had to be started.
pub fn up(nodes: &[Node], deployment: &Deployment, way: &Way) -> Result<Vec<String>> {
    let bundle = &deployment.manifest.name;
    let token = (deployment.choice.ray_token)
        .then(|| ray_token::look(nodes, bundle))
        .transpose()?;
    let stale = |rank: usize| token.as_ref().is_some_and(|token| token.lacking[rank]);
    let ranks: Vec<usize> = (0..nodes.len()).collect();
    let right = all(fan_out(&ranks, |&rank| {
        runs(&nodes[rank], deployment, rank)
    }))?;
    let wrong: Vec<usize> = ranks
        .into_iter()
        .filter(|&rank| stale(rank) || !right[rank])
        .collect();
    let name = container::name(bundle);
    all(fan_out(&wrong, |&rank| remove(&nodes[rank], &name)))?;
    if way.test_network && nodes.len() > 1 && wrong.len() == nodes.len() {
        (way.say)("trying the network between the nodes");
        network::test(nodes, deployment)?;
    }
    if let Some(token) = &token {
        ray_token::share(nodes, bundle, token)?;
    }
    all(fan_out(&wrong, |&rank| {
        nodes[rank].runtime_ok(&container::run(deployment, rank))
    }))?;
    Ok(wrong.iter().map(|&rank| nodes[rank].name.clone()).collect())
}

/// Removes the containers of a bundle; returns the names of the nodes that had one.
pub fn down(nodes: &[Node], bundle: &Name) -> Result<Vec<String>> {
    let name = container::name(bundle);
    let removed = all(fan_out(nodes, |node| {
        let removed = remove(node, &name)?;
        ray_token::remove(node, bundle)?;
        Ok(removed)
    }))?;
    let names = nodes.iter().zip(removed).filter(|(_, removed)| *removed);
    Ok(names.map(|(node, _)| node.name.clone()).collect())
}

/// Whether the right container runs there.
fn runs(node: &Node, deployment: &Deployment, rank: usize) -> Result<bool> {
    let name = container::name(&deployment.manifest.name);
    let wanted = container::config(deployment, rank).to_string();
    let state = node.container(&name)?;
    Ok(state.is_some_and(|state| state.config == wanted && state.status == "running"))
}

/// Returns whether there was one.
fn remove(node: &Node, name: &str) -> Result<bool> {
    if node.container(name)?.is_none() {
        return Ok(false);
    }
    node.runtime_ok(&["rm", "--force", name].map(str::to_owned))?;
    Ok(true)
}
