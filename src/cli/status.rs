//! `bundle status`: a row per node, and whether the server answers.

use std::io::{self, IsTerminal as _};
use std::thread;
use std::time::Duration;

use super::nodes::{NameArgs, NodeArgs};
use super::output::{print, print_json, size, table};
use crate::agent::fleet::{Contact, Member, connect, reached, reconnect};
use crate::bundle::manifest::Name;
use crate::cluster::status::{GpuMemory, Membership, NodeStatus, Status};
use crate::digest::Sha256;
use crate::error::{Error, Result};

/// Puts the cursor into the first corner and clears the terminal.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// Arguments of `bundle status`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    name: NameArgs,
    #[command(flatten)]
    nodes: NodeArgs,
    /// Print it as JSON; with --watch, a line each time.
    #[arg(long)]
    json: bool,
    /// Ask again every so many seconds, until interrupted.
    #[arg(short, long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "5",
        value_parser = clap::value_parser!(u16).range(1..=3600))]
    watch: Option<u16>,
}

/// Runs `bundle status`. A server that does not answer is exit code 1; one that does, with a node
/// that does not do its part, is 3.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let (hosts, way) = args.nodes.target()?;
    let mut contacts = connect(&hosts, &way)?;
    let mut bundle = bundle(&args.name, &contacts)?;
    loop {
        let status = Status::collect(&contacts, bundle.as_ref());
        show(args, &status)?;
        let Some(seconds) = args.watch else {
            return Ok(verdict(&status, contacts)?);
        };
        thread::sleep(Duration::from_secs(seconds.into()));
        reconnect(&mut contacts, &hosts, &way)?;
        if bundle.is_none() {
            bundle = self::bundle(&args.name, &contacts)?;
        }
    }
}

/// Which bundle it is about; nobody can say while no node can be reached.
fn bundle(name: &NameArgs, contacts: &[Contact]) -> Result<Option<Name>> {
    let members: Vec<&Member> = contacts
        .iter()
        .filter_map(|contact| contact.member.as_ref().ok())
        .collect();
    if members.is_empty() {
        return Ok(None);
    }
    Ok(Some(name.find(&members)?.manifest.name))
}

fn show(args: &Args, status: &Status) -> anyhow::Result<()> {
    match (args.json, args.watch) {
        (true, None) => print_json(status),
        (true, Some(_)) => print(&serde_json::to_string(status)?),
        (false, Some(_)) if io::stdout().is_terminal() => {
            print(&format!("{CLEAR}{}", describe(status)))
        }
        (false, _) => print(&describe(status)),
    }
}

fn verdict(status: &Status, contacts: Vec<Contact>) -> Result<()> {
    // When none can be reached, their errors decide.
    reached(contacts)?;
    let name = status.bundle.as_deref().unwrap_or_default();
    strays(status)?;
    if status.endpoint.is_none() {
        let advice = if status.is_down() {
            "is not running; `bundle up` starts it"
        } else {
            "does not answer; `bundle logs` may say why"
        };
        return Err(Error::Failed(format!("{name} {advice}")));
    }
    match status.faulty() {
        faulty if faulty.is_empty() => Ok(()),
        faulty => Err(Error::SomeNodes(format!(
            "{name} answers, but something is wrong with {}",
            faulty.join(", ")
        ))),
    }
}

/// Nodes that could start with different versions are a failure, whatever answers now.
fn strays(status: &Status) -> Result<()> {
    let (behind, other) = status.strays();
    if !other.is_empty() {
        return Err(Error::SomeNodes(format!(
            "not every node has the same version; bring {} to that of the others: `bundle install` \
             with its media, or `bundle install --from-nodes`",
            other.join(", ")
        )));
    }
    if behind.is_empty() {
        return Ok(());
    }
    Err(Error::SomeNodes(format!(
        "a switch has not reached {}; `bundle up` finishes it",
        behind.join(", ")
    )))
}

fn describe(status: &Status) -> String {
    let with_gpus = status.nodes.iter().any(|node| !node.gpus.is_empty());
    let with_ray = status.nodes.iter().any(|node| node.ray.is_some());
    let columns = |cells: [String; 6]| {
        let [node, installed, container, restarts, gpus, ray] = cells;
        let mut row = vec![node, installed, container, restarts];
        row.extend(with_gpus.then_some(gpus));
        row.extend(with_ray.then_some(ray));
        row
    };
    let heading = [
        "node",
        "installed",
        "container",
        "restarts",
        "GPU memory",
        "Ray",
    ];
    let mut rows = vec![columns(heading.map(String::from))];
    rows.extend(
        status
            .nodes
            .iter()
            .map(|node| columns(cells(node, status.generation))),
    );
    let mut text = table(&rows);
    for error in status.nodes.iter().filter_map(|node| node.error.as_ref()) {
        text.extend([error.as_str(), "\n"]);
    }
    text.extend(match (&status.bundle, &status.endpoint) {
        (Some(bundle), Some(url)) => Some(format!("{bundle} answers at {url}\n")),
        (Some(bundle), None) => Some(format!("{bundle} does not answer\n")),
        (None, _) => None,
    });
    text
}

fn cells(node: &NodeStatus, generation: Option<Sha256>) -> [String; 6] {
    let (container, restarts) = match &node.container {
        _ if node.error.is_some() => ("unknown".into(), String::new()),
        None => ("none".into(), String::new()),
        Some(container) => {
            let code = container
                .exit_code
                .map_or_else(String::new, |code| format!(", code {code}"));
            (
                format!("{}{code}", container.status),
                container.restarts.to_string(),
            )
        }
    };
    let installed = match node.installed {
        Some(found) if Some(found) == generation => short(found),
        _ if node.prepared.is_some() && node.prepared == generation => "behind".into(),
        Some(found) => format!("{} differs", short(found)),
        None if node.error.is_some() => "unknown".into(),
        None => "none".into(),
    };
    let ray = match node.ray {
        Some(Membership::Alive) => "alive",
        Some(Membership::Lost) => "lost",
        Some(Membership::Absent) => "absent",
        None => "",
    };
    [
        node.node.clone(),
        installed,
        container,
        restarts,
        memory(&node.gpus),
        ray.into(),
    ]
}

/// Enough of a hash to tell generations apart.
fn short(generation: Sha256) -> String {
    format!("{:.12}", generation.to_string())
}

fn memory(gpus: &[GpuMemory]) -> String {
    if gpus.is_empty() {
        return String::new();
    }
    let sum = |of: fn(&GpuMemory) -> u64| size(gpus.iter().map(of).sum::<u64>() << 20);
    format!(
        "{} of {} in {} GPUs",
        sum(|gpu| gpu.used_mib),
        sum(|gpu| gpu.total_mib),
        gpus.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::status::Container;

    #[test]
    fn a_node_that_cannot_be_reached_is_a_row_with_its_reason_below() {
        let generation = Sha256::of(b"manifest");
        let well = NodeStatus {
            node: "10.0.0.11".into(),
            installed: Some(generation),
            prepared: None,
            container: Some(Container {
                status: "running".into(),
                restarts: 1,
                exit_code: None,
                started: String::new(),
                uses_ray: true,
            }),
            gpus: vec![
                GpuMemory {
                    used_mib: 13012,
                    total_mib: 15360
                };
                4
            ],
            ray: Some(Membership::Alive),
            error: None,
        };
        let lost = NodeStatus {
            node: "10.0.0.12".into(),
            error: Some("10.0.0.12: cannot connect".into()),
            ray: Some(Membership::Lost),
            ..NodeStatus::default()
        };
        let status = Status {
            bundle: Some("tiny".into()),
            generation: Some(generation),
            nodes: vec![well, lost],
            endpoint: Some("http://10.0.0.11:8000".into()),
        };
        let short = short(generation);
        let expected = format!(
            "node       installed     container  restarts  GPU memory                    Ray\n\
             10.0.0.11  {short}  running    1         54.6 GB of 64.4 GB in 4 GPUs  alive\n\
             10.0.0.12  unknown       unknown                                            lost\n\
             10.0.0.12: cannot connect\n\
             tiny answers at http://10.0.0.11:8000\n"
        );
        assert_eq!(describe(&status), expected);
    }
}
