//! What every verb that works on nodes takes, and how it reaches them.

use std::path::{Path, PathBuf};

use super::output::note;
use super::terminal::TerminalPrompt;
use crate::agent::facts::Facts;
use crate::agent::fleet::{Contact, Member, Way, all, connect};
use crate::bundle::manifest::{Manifest, Name};
use crate::bundle::media::Media;
use crate::cluster::deployment::{Deployment, NodeWish};
use crate::cluster::installed::{Installed, only_name};
use crate::cluster::model_config;
use crate::cluster::node::Node;
use crate::cluster::plan::nodes::of_nodes;
use crate::cluster::plan::report::Report;
use crate::error::Result;
use crate::ssh::{Connector, Hosts, fan_out};

/// The nodes, and how to reach them.
#[derive(clap::Args)]
pub struct NodeArgs {
    /// The nodes, one a line.
    #[arg(long, value_name = "FILE", default_value = "hosts.txt")]
    hosts: PathBuf,
    #[command(flatten)]
    reach: ReachArgs,
}

/// How to reach nodes.
#[derive(clap::Args)]
pub struct ReachArgs {
    /// Host keys, instead of the files of the ssh configuration.
    #[arg(long, value_name = "FILE")]
    known_hosts: Option<PathBuf>,
    /// Accept and remember the keys of hosts that are not known yet; changed keys never.
    #[arg(long)]
    accept_new_host_keys: bool,
    /// Rehearse without nodes: each is a directory below DIR on this machine, and its agent a
    /// local process.
    #[arg(long, value_name = "DIR")]
    rehearsal: Option<PathBuf>,
}

impl NodeArgs {
    /// Whether the nodes are directories.
    #[must_use]
    pub fn is_rehearsal(&self) -> bool {
        self.reach.rehearsal.is_some()
    }

    /// Whether the file that names the nodes is there.
    #[must_use]
    pub fn has_hosts(&self) -> bool {
        self.hosts.exists()
    }

    /// Starts an agent on every node, head first; every one must answer.
    pub fn connect_all(&self) -> Result<Vec<Member>> {
        all(self
            .connect()?
            .into_iter()
            .map(|contact| contact.member)
            .collect())
    }

    /// Starts an agent on every node, head first; some may fail.
    pub fn connect(&self) -> Result<Vec<Contact>> {
        self.reach.connect(&self.hosts)
    }

    /// As [`NodeArgs::connect`], but with one node of hosts.txt, if one is named.
    pub fn connect_only(&self, name: Option<&str>) -> Result<Vec<Contact>> {
        let (hosts, way) = self.target()?;
        match name {
            Some(name) => connect(&hosts.only(name)?, &way),
            None => connect(&hosts, &way),
        }
    }

    /// The nodes of hosts.txt, and the way to them.
    pub fn target(&self) -> Result<(Hosts, Way)> {
        Ok((Hosts::read(&self.hosts)?, self.reach.way()))
    }
}

impl ReachArgs {
    /// Starts an agent on every node of a hosts.txt, head first; some may fail.
    pub fn connect(&self, hosts: &Path) -> Result<Vec<Contact>> {
        connect(&Hosts::read(hosts)?, &self.way())
    }

    fn way(&self) -> Way {
        match &self.rehearsal {
            Some(dir) => Way::Rehearsal(dir.clone()),
            None => Way::Ssh(Box::new(Connector::new(
                self.known_hosts.clone(),
                self.accept_new_host_keys,
                Box::new(TerminalPrompt),
            ))),
        }
    }
}

/// Which bundle a verb is about, by its name on the nodes.
#[derive(clap::Args)]
pub struct NameArgs {
    /// The bundle's name; may be left out when only one is installed.
    #[arg(value_name = "NAME")]
    name: Option<String>,
}

impl NameArgs {
    /// A name, if one was given.
    #[must_use]
    pub fn new(name: Option<String>) -> Self {
        Self { name }
    }

    /// The manifest that is installed under the name, on any of these nodes.
    pub fn installed(&self, members: &[Member]) -> Result<Manifest> {
        let members: Vec<&Member> = members.iter().collect();
        Ok(self.find(&members)?.manifest)
    }

    /// Its exact bytes.
    pub fn installed_text<'a>(
        &self,
        members: impl IntoIterator<Item = &'a Member>,
    ) -> Result<Vec<u8>> {
        let members: Vec<&Member> = members.into_iter().collect();
        Ok(self.find(&members)?.text.into_bytes())
    }

    /// What is installed under the name, on any of these nodes.
    pub fn find(&self, members: &[&Member]) -> Result<Installed> {
        Installed::find(self.name.as_deref(), members)
    }
}

/// The name given, or that of the only bundle that any of the nodes has.
pub fn installed_name(given: Option<&str>, members: &[Member]) -> Result<Name> {
    match given {
        Some(name) => name.parse(),
        None => only_name(&members.iter().collect::<Vec<_>>())?.parse(),
    }
}

/// The facts of every node.
pub fn facts(members: &[Member], manifest: &Manifest) -> Result<Vec<Facts>> {
    let paths = crate::install::space::paths(manifest)?;
    let containers = !manifest.images.is_empty();
    all(fan_out(members, |member| {
        member.facts(&paths, &[], containers)
    }))
}

/// What the cluster commands work on.
pub fn nodes<'a>(members: &'a [Member], facts: &[Facts]) -> Vec<Node<'a>> {
    let node = |(member, facts): (&'a Member, &Facts)| Node {
        name: member.host.address.clone(),
        link: &member.link,
        runtime: facts
            .runtime
            .as_ref()
            .map_or_else(|| "docker".into(), |found| found.command.clone()),
    };
    members.iter().zip(facts).map(node).collect()
}

/// The deployment of a bundle on these nodes; refused when it cannot work there, be it for the
/// model's sake. `media` may hold the model's configuration; otherwise a node does.
pub fn deployment(
    members: &[Member],
    facts: &[Facts],
    manifest: Manifest,
    media: Option<&Media>,
) -> Result<Deployment> {
    let deployment = Deployment::plan(manifest, &wishes(members, facts))?;
    plan(members, facts, &deployment.manifest, media)?;
    Ok(deployment)
}

/// How the bundle's model fits these nodes; refuses what cannot work there. Nothing where there is
/// nothing to plan: no model, or a CPU image.
pub fn plan(
    members: &[Member],
    facts: &[Facts],
    manifest: &Manifest,
    media: Option<&Media>,
) -> Result<Option<Report>> {
    if manifest.models.is_empty() {
        return Ok(None);
    }
    let config = model_config::read(manifest, media, members)?;
    of_nodes(manifest, config, &wishes(members, facts))
}

fn wishes(members: &[Member], facts: &[Facts]) -> Vec<(NodeWish, Facts)> {
    let wish = |(member, facts): (&Member, &Facts)| {
        let wish = NodeWish {
            address: member.address,
            gpus: member.host.gpus,
            interface: member.host.iface.clone(),
        };
        (wish, facts.clone())
    };
    members.iter().zip(facts).map(wish).collect()
}

/// Says what is going on, on standard error.
pub fn say(text: &str) {
    note(&format!("bundle: {text}"));
}
