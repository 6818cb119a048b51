//! `bundle install`: from the media to a server that answers.

use std::path::PathBuf;

use super::check::{refuse, survey};
use super::generations::stop;
use super::nodes::{NodeArgs, deployment, installed_name, nodes, say};
use super::output::print;
use super::progress::Meter;
use super::trust::TrustArgs;
use super::up::{StartArgs, start};
use crate::agent::facts::Facts;
use crate::agent::fleet::{Contact, Member};
use crate::agent::protocol::Version;
use crate::cluster::deployment::Deployment;
use crate::digest::Sha256;
use crate::error::Result;
use crate::install::activate::activate;
use crate::install::distribute::{self, Show, Way};
use crate::install::source::Source;
use crate::install::survey::Survey;

/// Arguments of `bundle install`.
#[derive(clap::Args)]
pub struct Args {
    /// The bundle; by default the one here. Several directories when its volumes are on several
    /// media; some may be missing, and follow with the next call.
    path: Vec<PathBuf>,
    /// Without media: nodes that have the bundle in place serve those that lack it.
    #[arg(long, conflicts_with_all = ["path", "pubkey"])]
    from_nodes: bool,
    /// With --from-nodes: the bundle's name, when several are installed.
    #[arg(long, requires = "from_nodes")]
    name: Option<String>,
    #[command(flatten)]
    nodes: NodeArgs,
    /// Stop when everything is in place, before the cluster is started.
    #[arg(long)]
    no_start: bool,
    /// Accept a bundle whose serial is lower than that of the installed one.
    #[arg(long)]
    allow_older: bool,
    /// TCP port of the nodes for the data; 0 takes any free one.
    #[arg(long, value_name = "N", default_value_t = 0)]
    data_port: u16,
    #[command(flatten)]
    start: StartArgs,
    #[command(flatten)]
    trust: TrustArgs,
}

/// Runs `bundle install`.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let (source, contacts) = if args.from_nodes {
        nodes_as_source(args)?
    } else {
        let media = args.trust.open(&args.path)?;
        say("connecting to the nodes");
        (Source::Media(media), args.nodes.connect()?)
    };
    let manifest = source.manifest();
    let survey = survey(contacts, &args.nodes, Some(manifest), args.data_port)?;
    refuse(&survey.rows)?;
    let Survey { members, facts, .. } = survey;
    let containers = !args.nodes.is_rehearsal() && !manifest.images.is_empty();
    let deployment = if containers {
        planned(args, &members, &facts, &source)?
    } else {
        None
    };
    let changed = distribute(args, &members, &facts, &source, containers)?;
    if !changed {
        say("everything is in place on every node; nothing to send");
    }
    match deployment {
        Some(deployment) => start(&nodes(&members, &facts), &deployment, &args.start),
        None => print(&format!(
            "{} is in place on {} nodes",
            manifest.name,
            members.len()
        )),
    }
}

/// How the bundle will be started; refused before the first byte is sent when it cannot work on
/// these nodes. With --no-start nothing is, so that is only said.
fn planned(
    args: &Args,
    members: &[Member],
    facts: &[Facts],
    source: &Source,
) -> Result<Option<Deployment>> {
    let manifest = source.manifest();
    if args.no_start && manifest.models.is_empty() {
        return Ok(None);
    }
    let media = match source {
        Source::Media(media) => Some(media),
        Source::Nodes { .. } => None,
    };
    match deployment(members, facts, manifest.clone(), media) {
        Err(error) if args.no_start => {
            say(&format!("it could not be started on these nodes: {error}"));
            Ok(None)
        }
        planned => planned.map(|deployment| (!args.no_start).then_some(deployment)),
    }
}

/// What the nodes have themselves, and the nodes; all of them must answer.
fn nodes_as_source(args: &Args) -> Result<(Source, Vec<Contact>)> {
    say("asking the nodes what they have");
    let members = args.nodes.connect_all()?;
    let name = installed_name(args.name.as_deref(), &members)?;
    let source = Source::of_nodes(&members, &name)?;
    Ok((source, members.into_iter().map(Contact::from).collect()))
}

/// Brings content and images to every node; returns whether anything was missing.
fn distribute(
    args: &Args,
    members: &[Member],
    facts: &[Facts],
    source: &Source,
    containers: bool,
) -> Result<bool> {
    let in_place = distribute::open(members, source.manifest_bytes(), args.allow_older)?;
    let changed = in_place.contains(&false);
    if changed {
        let meter = Meter::new("sending", source.manifest().stored_size());
        let show = Show {
            step: &|step| meter.note(&format!("bundle: {step}")),
            progress: &|done, _| meter.set(done),
        };
        let way = Way {
            port: args.data_port,
            containers,
        };
        distribute::fill(members, facts, source, &way, &show)?;
    }
    let name = &source.manifest().name;
    let identity = Sha256::of(source.manifest_bytes());
    let loaded = if containers {
        say("loading images where they are missing");
        distribute::load_images(members, name, identity)?
    } else {
        0
    };
    let version = Version {
        manifest: Some(identity),
    };
    let nodes = nodes(members, facts);
    let switched = activate(members, name, version, || stop(&nodes, name, !containers))?;
    Ok(changed || switched || loaded > 0)
}
