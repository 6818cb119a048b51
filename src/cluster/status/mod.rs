//! How a cluster does: each node, its container, its GPUs, its place in Ray, and the API. What cannot
//! be asked is part of the answer, so nothing here fails.

mod container;
mod gpus;
mod ray;

use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;

pub use container::Container;
pub use gpus::GpuMemory;
pub use ray::Membership;

use crate::agent::fleet::{Contact, Member};
use crate::agent::protocol::{self, Answer, Exited, Request, Versions};
use crate::bundle::cluster_spec::Gpus;
use crate::bundle::manifest::{Manifest, Name};
use crate::cluster::container::name as container_name;
use crate::digest::Sha256;
use crate::error::Result;
use crate::ssh::fan_out;

/// How long a node may take for one answer: whoever asks wants to know of a loss within 30 s.
const PATIENCE: Duration = Duration::from_secs(10);

/// Seconds after which a command on a node is killed; below [`PATIENCE`].
const COMMAND: u64 = 8;

/// All of it.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// The bundle, when a node could say which.
    pub bundle: Option<String>,
    /// SHA-256 of the manifest that every node should have installed: what all have or were prepared
    /// for; else that of the first that has one.
    pub generation: Option<Sha256>,
    /// Head first.
    pub nodes: Vec<NodeStatus>,
    /// Base URL when `/health` answers 200 there.
    pub endpoint: Option<String>,
}

/// One node's row.
#[derive(Clone, Debug, Default, Serialize)]
pub struct NodeStatus {
    /// As hosts.txt names it.
    pub node: String,
    /// Why it could not be asked.
    pub error: Option<String>,
    /// SHA-256 of the manifest that is installed there.
    pub installed: Option<Sha256>,
    /// SHA-256 of the manifest that shall be in place: a switch of all nodes has not reached this one.
    pub prepared: Option<Sha256>,
    /// The bundle's container, if there is one.
    pub container: Option<Container>,
    /// In the order of `nvidia-smi`.
    pub gpus: Vec<GpuMemory>,
    /// Its place in the Ray cluster; absent when there is none, or when the head cannot be asked.
    pub ray: Option<Membership>,
}

impl Status {
    /// Asks every node at once. Without a `bundle`, only whether they can be reached.
    #[must_use]
    pub fn collect(contacts: &[Contact], bundle: Option<&Name>) -> Self {
        let asked = fan_out(contacts, |contact| match (&contact.member, bundle) {
            (Ok(member), Some(bundle)) => {
                installed(member, bundle).map_err(|error| error.to_string())
            }
            (Ok(_), None) => Ok(Found::default()),
            (Err(error), _) => Err(error.to_string()),
        });
        let found: Vec<&Found> = asked.iter().flatten().collect();
        let text = found.iter().find_map(|found| found.text.as_ref());
        let manifest = text.and_then(|text| Manifest::parse(text.as_bytes()).ok());
        let pairs: Vec<_> = contacts.iter().zip(&asked).collect();
        let mut nodes = fan_out(&pairs, |&(contact, asked)| {
            NodeStatus::of(contact, asked, manifest.as_ref())
        });
        let head = contacts.first().and_then(|head| head.member.as_ref().ok());
        let head = head.filter(|_| nodes.first().is_some_and(|node| node.error.is_none()));
        if let (Some(head), Some(manifest)) = (head, &manifest) {
            ray::add(head, contacts, manifest, &mut nodes);
        }
        Self {
            bundle: bundle.map(ToString::to_string),
            generation: wanted(&found),
            endpoint: head
                .zip(manifest.as_ref())
                .and_then(|(head, manifest)| endpoint(head, manifest)),
            nodes,
        }
    }

    /// Names of the nodes that do not do their part.
    #[must_use]
    pub fn faulty(&self) -> Vec<&str> {
        let faulty = self.nodes.iter().filter(|node| !self.is_well(node));
        names(&faulty.collect::<Vec<_>>())
    }

    /// Whether every node says that it has no container.
    #[must_use]
    pub fn is_down(&self) -> bool {
        let mut nodes = self.nodes.iter();
        nodes.all(|node| node.error.is_none() && node.container.is_none())
    }

    /// Names of the nodes that a switch has not reached, and of those that have another version or
    /// none without waiting for one.
    #[must_use]
    pub fn strays(&self) -> (Vec<&str>, Vec<&str>) {
        let nodes = self.nodes.iter();
        let strays = nodes.filter(|node| node.error.is_none() && node.installed != self.generation);
        let (behind, other): (Vec<&NodeStatus>, Vec<&NodeStatus>) =
            strays.partition(|node| node.prepared == self.generation);
        (names(&behind), names(&other))
    }

    fn is_well(&self, node: &NodeStatus) -> bool {
        let runs = |container: &Container| container.status == "running";
        node.error.is_none()
            && node.installed.is_some()
            && node.installed == self.generation
            && node.container.as_ref().is_some_and(runs)
            && !matches!(node.ray, Some(Membership::Lost | Membership::Absent))
    }
}

impl NodeStatus {
    /// `asked`: what is installed there, or why the node does not say.
    fn of(
        contact: &Contact,
        asked: &std::result::Result<Found, String>,
        manifest: Option<&Manifest>,
    ) -> Self {
        let mut status = Self {
            node: contact.name.clone(),
            ..Self::default()
        };
        match (&contact.member, asked, manifest) {
            (_, Err(error), _) => status.error = Some(error.clone()),
            (Ok(member), Ok(found), Some(manifest)) => {
                status.installed = found.generation();
                status.prepared = found.versions.prepared.and_then(|version| version.manifest);
                match container::find(member, &container_name(&manifest.name)) {
                    Ok(container) => status.container = container,
                    Err(error) => status.error = Some(error.to_string()),
                }
                if manifest.cluster.gpus == Gpus::All {
                    status.gpus = gpus::memory(member);
                }
            }
            _ => {}
        }
        status
    }
}

fn names<'a>(nodes: &[&'a NodeStatus]) -> Vec<&'a str> {
    nodes.iter().map(|node| node.node.as_str()).collect()
}

/// What a node has of the bundle.
#[derive(Default)]
struct Found {
    /// The manifest that is installed.
    text: Option<String>,
    versions: Versions,
}

impl Found {
    fn generation(&self) -> Option<Sha256> {
        self.text.as_ref().map(|text| Sha256::of(text.as_bytes()))
    }
}

fn installed(member: &Member, bundle: &Name) -> Result<Found> {
    let ask = |request| member.link.call_within(request, PATIENCE);
    let name = bundle.to_string();
    let Answer::Installed { manifest: text } = ask(Request::Installed { name: name.clone() })?
    else {
        return Err(member.link.unexpected());
    };
    match ask(Request::Versions { name })? {
        Answer::Versions(versions) => Ok(Found { text, versions }),
        _ => Err(member.link.unexpected()),
    }
}

/// What every node should have installed.
fn wanted(found: &[&Found]) -> Option<Sha256> {
    let versions: Vec<&Versions> = found.iter().map(|found| &found.versions).collect();
    let agreed = protocol::agreed(&versions).and_then(|version| version.manifest);
    agreed.or_else(|| found.iter().find_map(|found| found.generation()))
}

/// Runs a command on the node, for a short time only.
fn run(member: &Member, argv: &[&str]) -> Result<Exited> {
    let request = Request::Exec {
        argv: argv.iter().map(ToString::to_string).collect(),
        stdin: String::new(),
        timeout: COMMAND,
    };
    match member.link.call_within(request, PATIENCE)? {
        Answer::Exited(exited) => Ok(exited),
        _ => Err(member.link.unexpected()),
    }
}

fn endpoint(head: &Member, manifest: &Manifest) -> Option<String> {
    let url = format!(
        "http://{}",
        SocketAddr::new(head.address, manifest.cluster.port)
    );
    let request = Request::Http {
        url: format!("{url}/health"),
        body: None,
        timeout: COMMAND,
    };
    let answer = head.link.call_within(request, PATIENCE);
    matches!(answer, Ok(Answer::Http { status: 200, .. })).then_some(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_does_its_part_or_is_named() {
        let generation = Sha256::of(b"manifest");
        let well = NodeStatus {
            node: "n1".into(),
            installed: Some(generation),
            container: container::parse(r#"[{"State": {"Status": "running"}}]"#),
            ..NodeStatus::default()
        };
        let change = |node: &str, change: fn(&mut NodeStatus)| {
            let mut status = well.clone();
            status.node = node.into();
            change(&mut status);
            status
        };
        let status = Status {
            bundle: None,
            generation: Some(generation),
            endpoint: None,
            nodes: vec![
                change("well", |_| ()),
                change("in Ray", |node| node.ray = Some(Membership::Alive)),
                change("lost", |node| node.ray = Some(Membership::Lost)),
                change("silent", |node| node.error = Some("no answer".into())),
                change("other", |node| node.installed = Some(Sha256::of(b"other"))),
                change("behind", |node| {
                    node.installed = None;
                    node.prepared = Some(Sha256::of(b"manifest"));
                }),
                change("empty", |node| node.container = None),
            ],
        };
        assert_eq!(
            status.faulty(),
            ["lost", "silent", "other", "behind", "empty"]
        );
        assert_eq!(status.strays(), (vec!["behind"], vec!["other"]));
        let down = |nodes: &[usize]| {
            let nodes = nodes.iter().map(|&index| status.nodes[index].clone());
            let nodes = nodes.collect();
            Status {
                nodes,
                ..status.clone()
            }
            .is_down()
        };
        let (well, silent, empty) = (0, 3, 6);
        assert!(down(&[empty, empty]) && !down(&[empty, well]) && !down(&[empty, silent]));
    }
}
