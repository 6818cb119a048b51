//! `hosts.txt`: the nodes of a cluster, one a line.
//!
//! ```text
//! # address      everything after it is optional
//! 10.0.0.11      head user=root port=22 gpus=4 iface=ens13f0 key=~/.ssh/id_ed25519
//! 10.0.0.[12-14] user=admin sudo=true
//! ```

mod line;

use std::collections::HashMap;
use std::env;
use std::fmt::Display;
use std::net::{IpAddr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};

use line::parse_line;

use super::settings::Settings;
use crate::error::{Error, Result};
use crate::fs;

/// More nodes than any cluster of one model has; catches a mistyped range.
const MAX_NODES: usize = 1024;

/// The nodes in the order of the file, and which of them is the head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hosts {
    /// At least one.
    pub nodes: Vec<Node>,
    /// Index of the head node: the one that says `head`, or the first.
    pub head: usize,
}

/// A line of `hosts.txt`. What it leaves out comes from the ssh configuration, or from the node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// IP address or name, as written.
    pub address: String,
    /// Login user.
    pub user: Option<String>,
    /// SSH port.
    pub port: Option<u16>,
    /// How many GPUs the cluster uses here.
    pub gpus: Option<u32>,
    /// The network interface for cluster traffic.
    pub iface: Option<String>,
    /// Private key file, `~` expanded.
    pub key: Option<PathBuf>,
    /// Commands go through `sudo -n`.
    pub sudo: bool,
}

impl Hosts {
    /// Reads and parses a file; every error names the file and the line.
    pub fn read(path: &Path) -> Result<Self> {
        let name = path.display();
        if !path.exists() {
            return Err(Error::Usage(format!(
                "there is no {name}; write it, a node a line, e.g. `10.0.0.11 user=root`, or name \
                 another file with --hosts"
            )));
        }
        let bytes = fs::read_limited(path, 1 << 20)?;
        let text = String::from_utf8(bytes).map_err(|_| {
            Error::Usage(format!(
                "{name} is not UTF-8 text, so it does not list nodes"
            ))
        })?;
        Self::parse(&text, name).map_err(|error| match looks_like(&text) {
            Some(other) => Error::Usage(format!(
                "{error}. It looks like {other}, not like hosts.txt"
            )),
            None => error,
        })
    }

    /// Parses the text of a `hosts.txt`; `source` names it in errors.
    pub fn parse(text: &str, source: impl Display) -> Result<Self> {
        let mut nodes = Vec::new();
        let mut head = None;
        let mut seen = HashMap::new();
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        for (number, line) in (1..).zip(text.lines()) {
            let fail =
                |problem: String| Error::Usage(format!("{source}, line {number}: {problem}"));
            let Some(line) = parse_line(line).map_err(fail)? else {
                continue;
            };
            if line.head && (line.nodes.len() > 1 || head.is_some()) {
                return Err(fail("only one node can be the head".into()));
            }
            if line.head {
                head = Some(nodes.len());
            }
            for node in line.nodes {
                if let Some(first) = seen.insert(node.address.to_ascii_lowercase(), number) {
                    let address = node.address;
                    return Err(fail(format!("{address} stands in line {first} already")));
                }
                nodes.push(node);
            }
            if nodes.len() > MAX_NODES {
                return Err(fail(format!("more than {MAX_NODES} nodes")));
            }
        }
        if nodes.is_empty() {
            return Err(Error::Usage(format!(
                "{source} names no node; write one address a line"
            )));
        }
        Ok(Self {
            nodes,
            head: head.unwrap_or(0),
        })
    }

    /// The node of this name alone.
    pub fn only(&self, name: &str) -> Result<Self> {
        if let Some(node) = self.nodes.iter().find(|node| node.address == name) {
            return Ok(Self {
                nodes: vec![node.clone()],
                head: 0,
            });
        }
        let names: Vec<&str> = self
            .nodes
            .iter()
            .map(|node| node.address.as_str())
            .collect();
        Err(Error::Usage(format!(
            "hosts.txt has no node {name}; it has {}",
            names.join(", ")
        )))
    }

    /// The head node.
    #[must_use]
    pub fn head(&self) -> &Node {
        &self.nodes[self.head]
    }
}

impl Node {
    /// The node's own IP address: as written, or what its name resolves to here. A name may be
    /// one of the user's ssh configuration.
    pub fn ip(&self) -> Result<IpAddr> {
        if let Ok(ip) = self.address.parse() {
            return Ok(ip);
        }
        let name = Settings::of(self)?.host;
        (name.as_str(), 0)
            .to_socket_addrs()
            .ok()
            .and_then(|mut found| found.next())
            .map(|found| found.ip())
            .ok_or_else(|| {
                Error::Usage(format!(
                    "{} has no IP address here; write the address in hosts.txt, or the name in /etc/hosts",
                    self.address
                ))
            })
    }
}

/// What other file it is, by mistake.
fn looks_like(text: &str) -> Option<&'static str> {
    let any = |test: fn(&str) -> bool| text.lines().map(str::trim).any(test);
    if any(|line| ["[image]", "[[model]]", "[cluster]"].contains(&line)) {
        Some("bundle.toml")
    } else if text.trim_start().starts_with('{') {
        Some("JSON")
    } else if any(|line| line.contains(" ssh-") || line.contains(" ecdsa-sha2-")) {
        Some("a known_hosts file (that is --known-hosts)")
    } else if any(|line| line.starts_with('[') && line.ends_with(']')) {
        Some("an inventory with [groups]")
    } else {
        None
    }
}

/// `~/x` below the home directory of whoever runs this.
pub(in crate::ssh) fn expand_home(path: &str) -> PathBuf {
    match (path.strip_prefix("~/"), env::var_os("HOME")) {
        (Some(rest), Some(home)) => Path::new(&home).join(rest),
        _ => PathBuf::from(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(text: &str) -> Vec<String> {
        let hosts = Hosts::parse(text, "hosts.txt").unwrap();
        hosts.nodes.into_iter().map(|node| node.address).collect()
    }

    #[test]
    fn a_full_line_is_read() {
        let hosts = Hosts::parse(
            "\u{feff}# cluster\r\n\r\n10.0.0.11 user=root port=2222 gpus=4 iface=ens13f0 key=/k sudo=true # one\n",
            "hosts.txt",
        )
        .unwrap();
        let expected = Node {
            address: "10.0.0.11".into(),
            user: Some("root".into()),
            port: Some(2222),
            gpus: Some(4),
            iface: Some("ens13f0".into()),
            key: Some("/k".into()),
            sudo: true,
        };
        assert_eq!(hosts.nodes, [expected]);
        assert_eq!(hosts.head().address, "10.0.0.11");
    }

    #[test]
    fn the_head_is_the_one_that_says_so() {
        let hosts = Hosts::parse("a\nb\nc head\n", "hosts.txt").unwrap();
        assert_eq!((hosts.head, hosts.nodes.len()), (2, 3));
    }

    #[test]
    fn ranges_expand() {
        assert_eq!(
            addresses("10.0.0.[9-11]"),
            ["10.0.0.9", "10.0.0.10", "10.0.0.11"]
        );
        assert_eq!(
            addresses("n[08-10,12].x"),
            ["n08.x", "n09.x", "n10.x", "n12.x"]
        );
        assert_eq!(addresses("fd00::11"), ["fd00::11"]);
    }

    #[test]
    fn errors_name_the_line_and_the_problem() {
        let cases = [
            ("", "names no node"),
            ("# nothing", "names no node"),
            ("a\nb\na", "line 3: a stands in line 1 already"),
            ("a\n[1-2]\n1", "line 3: 1 stands in line 2 already"),
            ("a head\nb head", "line 2: only one node can be the head"),
            ("[1-2] head", "line 1: only one node can be the head"),
            (
                "a gpu=4",
                "unknown key \"gpu\"; known are user, port, gpus, iface, key, sudo; did you mean gpus?",
            ),
            ("a USER=x", "did you mean user?"),
            ("a hed", "did you mean head?"),
            ("a\nA", "line 2: A stands in line 1 already"),
            ("10.0.0.[254-256]", "10.0.0.256 is no IP address"),
            ("10.0.0.011", "without leading zeros"),
            ("10.0.0", "10.0.0 is no IP address"),
            ("a 4", "\"4\" is not understood"),
            ("a port=0", "port=0: a port is"),
            ("a port=65536", "a port is"),
            ("a gpus=four", "gpus=four"),
            ("a sudo=yes", "sudo=yes: either true or false"),
            ("a user=-oX", "not a user name"),
            ("a iface=eth0;x", "network interface"),
            ("a key=", "key file is missing"),
            ("a user=x user=y", "user stands there twice"),
            ("root@a", "write `a user=root`"),
            ("-oProxyCommand=x", "is no IP address or host name"),
            ("a;b", "is no IP address or host name"),
            ("a[1-", "the `]` is missing"),
            ("a[3-1]", "must go up"),
            ("a[1-x]", "no range of numbers"),
            ("a[+1-2]", "no range of numbers"),
            ("a[1-99999]", "at most 1024"),
            ("a[1-2][3-4]", "one [range] an address"),
        ];
        for (text, part) in cases {
            let error = Hosts::parse(text, "hosts.txt").unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains(part), "{text:?}: {error}");
        }
    }

    #[test]
    fn another_file_is_recognised() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("x");
        for (text, words) in [
            (
                "name = \"x\"\n[image]\nref = \"a\"\n",
                "looks like bundle.toml",
            ),
            ("{\n \"format\": 1}", "looks like JSON"),
            (
                "10.0.0.11 ssh-ed25519 AAAA\n",
                "looks like a known_hosts file",
            ),
            ("[gpus]\nn1\n", "an inventory"),
            ("\u{0}", "line 1"),
        ] {
            std::fs::write(&file, text).unwrap();
            let error = Hosts::read(&file).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains(words), "{error}");
        }
        std::fs::write(&file, [0xff, 0xfe]).unwrap();
        let error = Hosts::read(&file).unwrap_err().to_string();
        assert!(error.contains("is not UTF-8 text"), "{error}");
        let error = Hosts::read(&dir.path().join("none")).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("there is no"), "{error}");
    }

    #[test]
    fn a_nodes_ip_is_written_or_resolved() {
        let node = |address: &str| Node {
            address: address.into(),
            ..Node::default()
        };
        assert_eq!(node("10.0.0.11").ip().unwrap().to_string(), "10.0.0.11");
        assert!(node("localhost").ip().unwrap().is_loopback());
        assert_eq!(
            node("no-such-host.invalid").ip().unwrap_err().exit_code(),
            2
        );
    }
}
