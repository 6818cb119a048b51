//! All nodes of hosts.txt with an agent running on each.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::collect::interface::owner_of;
use super::facts::{Facts, Question};
use super::link::Link;
use super::protocol::{Answer, Request};
use super::start::{self, Executable, Place};
use crate::error::{Error, Result};
use crate::path::AbsPath;
use crate::ssh::{Connector, Hosts, Node, fan_out};

/// Where a node's own sshd listens.
const SSH_PORT: u16 = 22;

/// A node with its agent.
pub struct Member {
    /// Its line of hosts.txt.
    pub host: Node,
    /// Its own address.
    pub address: IpAddr,
    /// The control channel.
    pub link: Link,
    /// Where the agent runs.
    pub place: Place,
    /// It is this machine: what it needs does not cross the network.
    pub is_here: bool,
}

/// How the agents are reached.
pub enum Way {
    /// Over SSH.
    Ssh(Box<Connector>),
    /// As processes of this machine, each with a directory below this one as its `/`: a rehearsal
    /// without any node.
    Rehearsal(PathBuf),
}

/// A node of hosts.txt, and its agent or why there is none.
pub struct Contact {
    /// As hosts.txt names it.
    pub name: String,
    /// Its own address, when the name has one here.
    pub address: Option<IpAddr>,
    /// The node with its agent.
    pub member: Result<Member>,
}

/// Starts an agent on every node; in the order of hosts.txt, but the head first.
pub fn connect(hosts: &Hosts, way: &Way) -> Result<Vec<Contact>> {
    let executable = Executable::this()?;
    let nodes = head_first(hosts);
    Ok(fan_out(&nodes, |node| contact(node, way, &executable)))
}

/// Tries again where there is no agent, or no longer one. `contacts` are those of [`connect`].
pub fn reconnect(contacts: &mut [Contact], hosts: &Hosts, way: &Way) -> Result<()> {
    let executable = Executable::this()?;
    let lost: Vec<usize> = (0..contacts.len())
        .filter(|&index| !contacts[index].is_alive())
        .collect();
    let nodes = head_first(hosts);
    let again = fan_out(&lost, |&index| contact(&nodes[index], way, &executable));
    for (index, contact) in lost.into_iter().zip(again) {
        contacts[index] = contact;
    }
    Ok(())
}

fn head_first(hosts: &Hosts) -> Vec<Node> {
    let mut nodes = hosts.nodes.clone();
    nodes[..=hosts.head].rotate_right(1);
    nodes
}

fn contact(node: &Node, way: &Way, executable: &Executable) -> Contact {
    Contact {
        name: node.address.clone(),
        address: node.ip().ok(),
        member: reach(node, way, executable),
    }
}

fn reach(node: &Node, way: &Way, executable: &Executable) -> Result<Member> {
    let address = node.ip()?;
    let is_here = matches!(way, Way::Ssh(_)) && is_here(node, address);
    let (link, place) = match way {
        Way::Ssh(_) if is_here && rustix::process::geteuid().is_root() => {
            start::local(Path::new("/proc/self/exe"), Path::new("/"), &node.address)?
        }
        Way::Ssh(connector) => start::remote(connector.connect(node)?, executable)?,
        Way::Rehearsal(dir) => rehearse(dir, node)?,
    };
    Ok(Member {
        host: node.clone(),
        address,
        link,
        place,
        is_here,
    })
}

/// Whether a line of hosts.txt means this machine, and not one behind a forwarded port of it.
fn is_here(node: &Node, address: IpAddr) -> bool {
    let plain = node.port.is_none_or(|port| port == SSH_PORT) && !address.is_loopback();
    plain && matches!(owner_of(address), Ok(Some(_)))
}

fn rehearse(dir: &Path, node: &Node) -> Result<(Link, Place)> {
    let root = dir.join(&node.address);
    crate::fs::create_dir_all(&root)?;
    start::local(Path::new("/proc/self/exe"), &root, &node.address)
}

/// The members that could be reached, and one error that names the others. Fails when there are none.
pub fn reached(contacts: Vec<Contact>) -> Result<(Vec<Member>, Option<Error>)> {
    let (found, missing): (Vec<_>, Vec<_>) = contacts
        .into_iter()
        .map(|contact| contact.member)
        .partition(Result::is_ok);
    if found.is_empty() {
        return Err(all(missing).err().unwrap_or_else(no_node));
    }
    let errors: Vec<Error> = missing.into_iter().filter_map(Result::err).collect();
    let error = (!errors.is_empty()).then(|| some(&errors));
    Ok((found.into_iter().flatten().collect(), error))
}

fn no_node() -> Error {
    Error::Usage("hosts.txt names no node".into())
}

fn some(errors: &[Error]) -> Error {
    join(errors, Error::SomeNodes(String::new()).exit_code())
}

/// All members, or one error that names every node that failed.
pub fn all<T>(results: Vec<Result<T>>) -> Result<Vec<T>> {
    let total = results.len();
    let mut values = Vec::new();
    let mut errors = Vec::new();
    for result in results {
        match result {
            Ok(value) => values.push(value),
            Err(error) => errors.push(error),
        }
    }
    match errors.len() {
        0 => Ok(values),
        // One kind of failure everywhere keeps its exit code: it is not about some nodes.
        failed if failed == total && same_code(&errors) => {
            Err(join(&errors, errors[0].exit_code()))
        }
        _ => Err(some(&errors)),
    }
}

fn same_code(errors: &[Error]) -> bool {
    errors
        .windows(2)
        .all(|pair| pair[0].exit_code() == pair[1].exit_code())
}

fn join(errors: &[Error], code: u8) -> Error {
    let sentences: Vec<String> = errors.iter().map(ToString::to_string).collect();
    Error::from_code(code, sentences.join("\n"))
}

impl From<Member> for Contact {
    fn from(member: Member) -> Self {
        Self {
            name: member.host.address.clone(),
            address: Some(member.address),
            member: Ok(member),
        }
    }
}

impl Contact {
    /// Whether its agent still stood at last notice.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.member
            .as_ref()
            .is_ok_and(|member| member.link.is_alive())
    }
}

impl Member {
    /// The node's facts, with the free space of these directories and who has these ports; what
    /// only `containers` need is found out for them alone.
    pub fn facts(&self, paths: &[AbsPath], ports: &[u16], containers: bool) -> Result<Facts> {
        let question = Question {
            address: self.address,
            paths: paths.to_vec(),
            ports: ports.to_vec(),
            containers,
        };
        match self.link.call(Request::Facts(question))? {
            Answer::Facts(facts) => Ok(*facts),
            _ => Err(self.link.unexpected()),
        }
    }

    /// A call that has nothing to answer.
    pub fn perform(&self, request: Request) -> Result<()> {
        match self.link.call(request)? {
            Answer::Done => Ok(()),
            _ => Err(self.link.unexpected()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_failures_are_code_3_and_name_each_node() {
        let failed = |name: &str| Err(Error::NoSpace(format!("{name}: full")));
        let error = all(vec![Ok(1), failed("n2"), failed("n3")]).unwrap_err();
        assert_eq!(
            (error.exit_code(), error.to_string().as_str()),
            (3, "n2: full\nn3: full")
        );
        assert_eq!(all(vec![Ok(1), Ok(2)]).unwrap(), [1, 2]);
    }

    #[test]
    fn a_failure_of_all_nodes_keeps_its_code() {
        let key = |name: &str| Err::<(), _>(Error::HostKey(name.into()));
        assert_eq!(all(vec![key("a"), key("b")]).unwrap_err().exit_code(), 12);
        assert_eq!(
            all(vec![key("a"), Err(Error::Failed("b".into()))])
                .unwrap_err()
                .exit_code(),
            3
        );
    }
}
