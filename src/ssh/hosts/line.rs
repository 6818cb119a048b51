//! One line of `hosts.txt`.

use std::net::IpAddr;

use super::{MAX_NODES, Node, expand_home};

/// Longest name of a Linux network interface, in bytes.
const MAX_INTERFACE: usize = 15;

/// What can be said of a node as `key=value`.
const KEYS: [&str; 6] = ["user", "port", "gpus", "iface", "key", "sudo"];

/// A line with a node on it, its address expanded.
pub(super) struct Line {
    pub(super) nodes: Vec<Node>,
    /// Whether it says `head`.
    pub(super) head: bool,
}

/// `None` for a line that is empty or a comment; errors lack file and line.
pub(super) fn parse_line(line: &str) -> std::result::Result<Option<Line>, String> {
    let content = line.split('#').next().unwrap_or_default();
    let mut words = content.split_whitespace();
    let Some(pattern) = words.next() else {
        return Ok(None);
    };
    let mut node = Node::default();
    let mut head = false;
    let mut seen = Vec::new();
    for word in words {
        let key = word.split_once('=').map_or(word, |(key, _)| key);
        if seen.contains(&key) {
            return Err(format!("{key} stands there twice"));
        }
        seen.push(key);
        match word.split_once('=') {
            None if word == "head" => head = true,
            None => {
                let hint = suggestion(word, &["head"]);
                return Err(format!(
                    "{word:?} is not understood; after the address come `head` or key=value{hint}"
                ));
            }
            Some((key, value)) => set(&mut node, key, value)?,
        }
    }
    let nodes = expand(pattern)?
        .into_iter()
        .map(|address| {
            check_address(&address)?;
            Ok(Node {
                address,
                ..node.clone()
            })
        })
        .collect::<std::result::Result<_, String>>()?;
    Ok(Some(Line { nodes, head }))
}

/// Sets the field of a node that `key` names.
fn set(node: &mut Node, key: &str, value: &str) -> std::result::Result<(), String> {
    let wrong = |wish: &str| Err(format!("{key}={value}: {wish}"));
    match key {
        "user" if is_name(value) => node.user = Some(value.into()),
        "user" => return wrong("not a user name"),
        "port" => match value.parse() {
            Ok(port) if port > 0 => node.port = Some(port),
            _ => return wrong("a port is a number from 1 to 65535"),
        },
        "gpus" => match value.parse() {
            Ok(gpus) => node.gpus = Some(gpus),
            Err(_) => return wrong("a number of GPUs is needed"),
        },
        "iface" if is_name(value) && value.len() <= MAX_INTERFACE => {
            node.iface = Some(value.into());
        }
        "iface" => return wrong("not the name of a network interface"),
        "key" if value.is_empty() => return wrong("the private key file is missing"),
        "key" => node.key = Some(expand_home(value)),
        "sudo" => match value {
            "true" => node.sudo = true,
            "false" => node.sudo = false,
            _ => return wrong("either true or false"),
        },
        _ => {
            return Err(format!(
                "unknown key {key:?}; known are {}{}",
                KEYS.join(", "),
                suggestion(key, &KEYS)
            ));
        }
    }
    Ok(())
}

/// `; did you mean X?` for the word that is meant, if it is alike.
fn suggestion(word: &str, known: &[&str]) -> String {
    let word = word.to_lowercase();
    let alike = |known: &&&str| strsim::damerau_levenshtein(&word, known) <= 2;
    match known.iter().find(alike) {
        Some(meant) => format!("; did you mean {meant}?"),
        None => String::new(),
    }
}

/// Letters, digits and the few signs that occur in user and interface names; never an option.
fn is_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-@:$+".contains(&byte);
    !text.is_empty() && !text.starts_with('-') && text.bytes().all(allowed)
}

/// An address reaches command lines and `known_hosts`: only what names and IP addresses consist of.
fn check_address(address: &str) -> std::result::Result<(), String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:%".contains(&byte);
    if let Some((user, host)) = address.split_once('@') {
        return Err(format!("write `{host} user={user}` for {address}"));
    }
    if address.is_empty() || address.starts_with('-') || !address.bytes().all(allowed) {
        return Err(format!("{address:?} is no IP address or host name"));
    }
    // `10.0.0.256` and `10.0.0.011` would be looked up as names.
    let numeric = |byte: u8| byte.is_ascii_digit() || byte == b'.';
    if address.contains('.') && address.bytes().all(numeric) && address.parse::<IpAddr>().is_err() {
        return Err(format!(
            "{address} is no IP address: it takes four numbers from 0 to 255, without leading zeros"
        ));
    }
    Ok(())
}

/// `10.0.0.[11-13,20]` into its addresses; leading zeros of a range are kept.
fn expand(pattern: &str) -> std::result::Result<Vec<String>, String> {
    let Some((prefix, rest)) = pattern.split_once('[') else {
        return Ok(vec![pattern.to_owned()]);
    };
    let Some((ranges, suffix)) = rest.split_once(']') else {
        return Err(format!("{pattern}: the `]` is missing"));
    };
    if suffix.contains('[') {
        return Err(format!("{pattern}: one [range] an address"));
    }
    let mut addresses = Vec::new();
    for range in ranges.split(',') {
        let (from, to) = range.split_once('-').unwrap_or((range, range));
        let number = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            digits.then(|| text.parse::<usize>().ok()).flatten()
        };
        let (Some(first), Some(last)) = (number(from), number(to)) else {
            return Err(format!("{pattern}: [{range}] is no range of numbers"));
        };
        if first > last || last - first >= MAX_NODES {
            return Err(format!(
                "{pattern}: [{range}] must go up, over at most {MAX_NODES} nodes"
            ));
        }
        let width = if from.starts_with('0') { from.len() } else { 0 };
        addresses.extend((first..=last).map(|n| format!("{prefix}{n:0width$}{suffix}")));
    }
    Ok(addresses)
}
