//! How a cluster does: each node, its container, its GPUs, its place in Ray, and the API. What cannot
//! be asked is part of the answer, so nothing here fails.

use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use super::container;
use crate::agent::fleet::{Contact, Member};
use crate::agent::protocol::{self, Answer, Exited, Request, Versions};
use crate::bundle::cluster_spec::Gpus;
use crate::bundle::manifest::{Manifest, Name};
use crate::digest::Sha256;
use crate::error::{Error, Result};
use crate::ssh::fan_out;

/// How long a node may take for one answer: whoever asks wants to know of a loss within 30 s.
const PATIENCE: Duration = Duration::from_secs(10);

/// Seconds after which a command on a node is killed; below [`PATIENCE`].
const COMMAND: u64 = 8;

/// What may run the container, first choice first.
const RUNTIMES: [&str; 3] = ["docker", "podman", "nerdctl"];

/// Prints `ADDRESS STATE` for each node that Ray knows, in the order in which they came.
const RAY_NODES: &str = include_str!("ray_membership.py");

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

/// A container as the runtime describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Container {
    /// `running`, `restarting`, `exited`, ...
    pub status: String,
    /// How often the restart policy had to act.
    pub restarts: u64,
    /// Exit code of the last end, if it has ended.
    pub exit_code: Option<i64>,
    /// RFC 3339.
    pub started: String,
    /// Whether it runs a Ray node.
    #[serde(skip)]
    pub uses_ray: bool,
}

/// How full a GPU is, in MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct GpuMemory {
    /// By all processes.
    pub used_mib: u64,
    /// All there is.
    pub total_mib: u64,
}

/// A node's place in the Ray cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Membership {
    /// It is there.
    Alive,
    /// It was there.
    Lost,
    /// It was never there.
    Absent,
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
            add_ray(head, contacts, manifest, &mut nodes);
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
                match find_container(member, &container::name(&manifest.name)) {
                    Ok(container) => status.container = container,
                    Err(error) => status.error = Some(error.to_string()),
                }
                if manifest.cluster.gpus == Gpus::All {
                    status.gpus = gpu_memory(member);
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

/// The container, from the first runtime that answers.
fn find_container(member: &Member, name: &str) -> Result<Option<Container>> {
    let mut complaint = None;
    for runtime in RUNTIMES {
        // A runtime that is not installed is an error of the agent: the next may be.
        let exited = match run(member, &[runtime, "container", "inspect", name]) {
            Ok(exited) => exited,
            Err(error) => {
                complaint.get_or_insert(error);
                continue;
            }
        };
        if exited.status == 0 {
            return Ok(parse(&exited.stdout));
        }
        if exited.stderr.to_lowercase().contains("no such") {
            return Ok(None);
        }
        let said = exited.stderr.trim();
        let node = &member.host.address;
        complaint = Some(Error::Failed(format!("{node}: {runtime} says: {said}")));
    }
    match complaint {
        Some(complaint) => Err(complaint),
        None => Ok(None),
    }
}

/// What `inspect` prints.
fn parse(json: &str) -> Option<Container> {
    let found: Value = serde_json::from_str(json).ok()?;
    let (container, state) = (&found[0], &found[0]["State"]);
    let status = state["Status"].as_str()?.to_owned();
    let ended = matches!(status.as_str(), "exited" | "restarting" | "dead");
    Some(Container {
        restarts: container["RestartCount"].as_u64().unwrap_or_default(),
        exit_code: state["ExitCode"].as_i64().filter(|_| ended),
        started: state["StartedAt"].as_str().unwrap_or_default().to_owned(),
        uses_ray: container["Config"]["Cmd"]
            .to_string()
            .contains("ray start "),
        status,
    })
}

fn gpu_memory(member: &Member) -> Vec<GpuMemory> {
    let query = [
        "nvidia-smi",
        "--query-gpu=memory.used,memory.total",
        "--format=csv,noheader,nounits",
    ];
    let exited = run(member, &query).ok().filter(|exited| exited.status == 0);
    exited.map_or_else(Vec::new, |exited| parse_memory(&exited.stdout))
}

/// Reads `used, total` lines.
fn parse_memory(text: &str) -> Vec<GpuMemory> {
    let memory = |line: &str| {
        let (used, total) = line.split_once(',')?;
        Some(GpuMemory {
            used_mib: used.trim().parse().ok()?,
            total_mib: total.trim().parse().ok()?,
        })
    };
    text.lines().filter_map(memory).collect()
}

/// Asks Ray, in the head's container, for its nodes.
fn add_ray(head: &Member, contacts: &[Contact], manifest: &Manifest, nodes: &mut [NodeStatus]) {
    let container = nodes.first().and_then(|head| head.container.as_ref());
    if !container.is_some_and(|found| found.uses_ray && found.status == "running") {
        return;
    }
    let name = container::name(&manifest.name);
    let answer = RUNTIMES.iter().find_map(|runtime| {
        let exited = run(head, &[runtime, "exec", &name, "python3", "-c", RAY_NODES]).ok()?;
        (exited.status == 0).then_some(exited.stdout)
    });
    let Some(answer) = answer else { return };
    for (node, contact) in nodes.iter_mut().zip(contacts) {
        node.ray = contact
            .address
            .map(|address| membership(&answer, &address.to_string()));
    }
}

/// A node that came back has an entry for each time; one of them is alive.
fn membership(answer: &str, address: &str) -> Membership {
    let states = || {
        answer
            .lines()
            .filter_map(|line| line.strip_prefix(address)?.strip_prefix(' '))
    };
    if states().any(|state| state == "alive") {
        Membership::Alive
    } else if states().next().is_some() {
        Membership::Lost
    } else {
        Membership::Absent
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
    fn a_container_is_read_from_what_inspect_prints() {
        let json = r#"[{"RestartCount": 2, "Config": {"Cmd": ["-c", "ray start --block --head"]},
            "State": {"Status": "restarting", "ExitCode": 137, "StartedAt": "2026-11-24T10:00:00Z"}}]"#;
        let expected = Container {
            status: "restarting".into(),
            restarts: 2,
            exit_code: Some(137),
            started: "2026-11-24T10:00:00Z".into(),
            uses_ray: true,
        };
        assert_eq!(parse(json), Some(expected));
        let running = parse(r#"[{"State": {"Status": "running", "ExitCode": 0}}]"#).unwrap();
        assert_eq!((running.exit_code, running.uses_ray), (None, false));
        for text in ["", "[]", "no JSON"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn memory_is_read_and_broken_gpus_are_left_out() {
        let memory = |used_mib| GpuMemory {
            used_mib,
            total_mib: 15360,
        };
        let text = "13012, 15360\n[GPU is lost], 15360\n3, 15360\n";
        assert_eq!(parse_memory(text), [memory(13012), memory(3)]);
    }

    #[test]
    fn a_node_that_came_back_to_ray_is_alive() {
        let answer =
            "10.0.0.11 alive\n10.0.0.12 dead\n10.0.0.13 dead\n10.0.0.13 alive\n10.0.0.1 dead\n";
        let cases = [
            ("10.0.0.11", Membership::Alive),
            ("10.0.0.12", Membership::Lost),
            ("10.0.0.13", Membership::Alive),
            ("10.0.0.1", Membership::Lost),
            ("10.0.0.14", Membership::Absent),
        ];
        for (address, expected) in cases {
            assert_eq!(membership(answer, address), expected, "{address}");
        }
    }

    #[test]
    fn a_node_does_its_part_or_is_named() {
        let generation = Sha256::of(b"manifest");
        let well = NodeStatus {
            node: "n1".into(),
            installed: Some(generation),
            container: parse(r#"[{"State": {"Status": "running"}}]"#),
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
    }
}
