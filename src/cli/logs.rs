//! `bundle logs`: the containers' output of all nodes, each line with its node.

use super::nodes::{NameArgs, NodeArgs, facts, nodes};
use super::output::print;
use crate::agent::fleet::all;
use crate::cluster::causes::parse_log;
use crate::cluster::container;
use crate::cluster::node::Node;
use crate::ssh::fan_out;

/// Arguments of `bundle logs`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    name: NameArgs,
    #[command(flatten)]
    nodes: NodeArgs,
    /// Only this node.
    #[arg(long, value_name = "ADDRESS")]
    node: Option<String>,
    /// Lines of each node.
    #[arg(long, value_name = "N", default_value_t = 200)]
    tail: u32,
    /// Go on with new lines until interrupted.
    #[arg(short, long)]
    follow: bool,
}

/// Runs `bundle logs`.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let members = args.nodes.connect_all()?;
    let manifest = args.name.installed(&members)?;
    let facts = facts(&members, &manifest)?;
    let mut nodes = nodes(&members, &facts);
    nodes.retain(|node| args.node.as_ref().is_none_or(|wanted| node.name == *wanted));
    let name = container::name(&manifest.name);
    if args.follow {
        follow(&nodes, &name, args.tail)
    } else {
        show(&nodes, &name, args.tail)
    }
}

/// Merged by time.
fn show(nodes: &[Node], container: &str, tail: u32) -> anyhow::Result<()> {
    let logs = all(fan_out(nodes, |node| {
        let exited = node.runtime(&logs_args(container, tail, &[]))?;
        Ok(parse_log(&node.name, &(exited.stdout + &exited.stderr)))
    }))?;
    let mut lines = logs.concat();
    lines.sort_by(|a, b| a.time.cmp(&b.time));
    let text: Vec<String> = lines
        .iter()
        .map(|line| format!("{}  {}\n", line.node, line.text))
        .collect();
    print(&text.concat())
}

/// As the lines come.
fn follow(nodes: &[Node], container: &str, tail: u32) -> anyhow::Result<()> {
    all(fan_out(nodes, |node| {
        node.follow(&logs_args(container, tail, &["--follow"]), |text| {
            let line = text.split_once(' ').map_or(text.as_str(), |(_, rest)| rest);
            // When nobody reads any more, Ctrl-C or the end of the container ends it.
            let _ = print(&format!("{}  {line}", node.name));
        })
    }))?;
    Ok(())
}

fn logs_args(container: &str, tail: u32, more: &[&str]) -> Vec<String> {
    let tail = tail.to_string();
    let mut args = vec!["logs", "--timestamps", "--tail", &tail];
    args.extend(more);
    args.push(container);
    args.into_iter().map(str::to_owned).collect()
}
