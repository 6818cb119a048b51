//! `bundle support`: a directory of texts that somebody outside can read.

use std::path::{Path, PathBuf};

use super::nodes::{NameArgs, NodeArgs, deployment, facts, nodes};
use super::output::{note, print};
use super::up::commands;
use crate::agent::fleet::{Member, connect, reached};
use crate::cluster::status::Status;
use crate::cluster::support::{Files, of_nodes, redact, summary};
use crate::error::{Error, Result};
use crate::fs;

/// Arguments of `bundle support`.
#[derive(clap::Args)]
pub struct Args {
    /// Where to write; must not exist yet.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// The bundle's name; may be left out when only one is installed.
    #[arg(long, value_name = "NAME")]
    bundle: Option<String>,
    #[command(flatten)]
    nodes: NodeArgs,
}

/// Runs `bundle support`. Nodes that cannot be reached are named in it.
pub fn run(args: &Args) -> anyhow::Result<()> {
    if args.dir.exists() {
        let dir = args.dir.display();
        return Err(Error::Usage(format!("{dir} exists; name a new directory")).into());
    }
    let (hosts, way) = args.nodes.target()?;
    let contacts = connect(&hosts, &way)?;
    let members: Vec<&Member> = contacts
        .iter()
        .filter_map(|contact| contact.member.as_ref().ok())
        .collect();
    let name = NameArgs::new(args.bundle.clone());
    let manifest = if members.is_empty() {
        None
    } else {
        Some(name.find(&members)?.manifest)
    };
    let status = Status::collect(&contacts, manifest.as_ref().map(|manifest| &manifest.name));
    let (members, unreached) = reached(contacts)?;
    let Some(manifest) = manifest else {
        return Err(Error::Failed("no node answers".into()).into());
    };
    let facts = facts(&members, &manifest)?;
    let nodes = nodes(&members, &facts);
    let mut files = of_nodes(&nodes, &manifest);
    let mut add = |name: &str, text: String| files.insert(name.to_owned(), text);
    add(
        "version.txt",
        format!("bundle {}\n", env!("CARGO_PKG_VERSION")),
    );
    add("status.json", serde_json::to_string_pretty(&status)?);
    add("facts.json", serde_json::to_string_pretty(&facts)?);
    add(
        "bundle.json",
        serde_json::to_string_pretty(&summary(&manifest))?,
    );
    add(
        "commands.txt",
        match deployment(&members, &facts, manifest.clone(), None) {
            Ok(deployment) => commands(&nodes, &deployment),
            Err(error) => format!("{error}\n"),
        },
    );
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    write(&args.dir, &redact(files, &manifest, environment))?;
    note(
        "read it before you carry it out: what looks like a secret is removed, names and addresses are not",
    );
    print(&args.dir.display().to_string())?;
    unreached.map_or(Ok(()), |error| Err(error.into()))
}

fn write(dir: &Path, files: &Files) -> Result<()> {
    for (name, text) in files {
        let path = dir.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        std::fs::write(&path, text).map_err(Error::io("write", &path))?;
    }
    Ok(())
}
