//! `bundle logs`: the containers' output of all nodes, each line with its node.

use std::process;

use super::nodes::{NameArgs, NodeArgs, facts, nodes, say};
use super::output::print;
use crate::agent::fleet::reached;
use crate::cluster::causes::LogLine;
use crate::cluster::container;
use crate::cluster::failure::read_log;
use crate::cluster::logs::{News, follow};
use crate::cluster::node::Node;
use crate::error::Error;
use crate::ssh::fan_out;

/// Arguments of `bundle logs`.
#[derive(clap::Args)]
pub struct Args {
    /// Only this node, as hosts.txt names it.
    #[arg(value_name = "NODE")]
    node: Option<String>,
    /// The bundle's name; may be left out when only one is installed.
    #[arg(long, value_name = "NAME")]
    bundle: Option<String>,
    #[command(flatten)]
    nodes: NodeArgs,
    /// The last lines of each node.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 200)]
    tail: u32,
    /// Go on with new lines until interrupted.
    #[arg(short, long)]
    follow: bool,
    /// Show the time of each line.
    #[arg(short, long)]
    timestamps: bool,
}

/// Runs `bundle logs`. What can be had is shown, and what cannot is said.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let (members, unreached) = reached(args.nodes.connect_only(args.node.as_deref())?)?;
    let manifest = NameArgs::new(args.bundle.clone()).installed(&members)?;
    let facts = facts(&members, &manifest)?;
    let nodes = nodes(&members, &facts);
    let name = container::name(&manifest.name);
    if args.follow {
        if let Some(error) = &unreached {
            say(&error.to_string());
        }
        follow(&nodes, &name, args.tail, |news| tell(args, &news));
    } else {
        show(args, &nodes, &name)?;
    }
    unreached.map_or(Ok(()), |error| Err(error.into()))
}

/// Merged by time.
fn show(args: &Args, nodes: &[Node], container: &str) -> anyhow::Result<()> {
    let logs = fan_out(nodes, |node| read_log(node, container, args.tail));
    let mut lines = Vec::new();
    let mut errors = Vec::new();
    for log in logs {
        match log {
            Ok(log) => lines.extend(log),
            Err(error) => errors.push(error.to_string()),
        }
    }
    lines.sort_by(|a, b| a.time.cmp(&b.time));
    let text: String = lines.iter().map(|line| format(args, line)).collect();
    if !text.is_empty() {
        print(&text)?;
    }
    match errors.len() {
        0 => Ok(()),
        failed if failed == nodes.len() => Err(Error::Failed(errors.join("\n")).into()),
        _ => Err(Error::SomeNodes(errors.join("\n")).into()),
    }
}

/// As the lines come.
fn tell(args: &Args, news: &News) {
    match news {
        News::Line(line) if print(&format(args, line)).is_err() => {
            // Nobody reads any more, and the nodes' streams would never end by themselves.
            process::exit(0)
        }
        News::Line(_) => {}
        News::End(reason) => say(reason),
    }
}

fn format(args: &Args, line: &LogLine) -> String {
    if args.timestamps {
        format!("{}  {}  {}\n", line.node, line.time, line.text)
    } else {
        format!("{}  {}\n", line.node, line.text)
    }
}
