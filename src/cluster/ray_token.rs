//! The secret that Ray's nodes ask each other for: one file per node, never an argument, a variable
//! or a line of a log.

use std::fs::File;
use std::io::Read as _;

use super::node::Node;
use crate::agent::fleet::all;
use crate::bundle::manifest::Name;
use crate::digest::Sha256;
use crate::error::{Error, Result};
use crate::ssh::fan_out;

/// Where the file appears in the containers.
const INSIDE: &str = "/run/bundle-ray-token";

/// Writes its input to the file `$1`, whole or not at all, for nobody but root to read.
const WRITE: &str =
    r#"umask 077 && mkdir -p "${1%/*}" && cat >"$1.new" && chmod 600 "$1.new" && mv "$1.new" "$1""#;

/// The file on every node.
#[must_use]
pub fn path(bundle: &Name) -> String {
    format!("/var/lib/bundle/{bundle}/ray-token")
}

/// The value of `-v` for it.
#[must_use]
pub fn mount(bundle: &Name) -> String {
    format!("{}:{INSIDE}:ro", path(bundle))
}

/// What tells Ray to use it.
#[must_use]
pub fn environment() -> [(String, String); 2] {
    [("RAY_AUTH_MODE", "token"), ("RAY_AUTH_TOKEN_PATH", INSIDE)]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
}

/// The token of a cluster, and the nodes that do not have it yet.
pub struct Token {
    secret: String,
    /// For each node whether it has another or none, so that its container cannot go on.
    pub lacking: Vec<bool>,
}

/// The token that the head has, else a new one.
pub fn look(nodes: &[Node], bundle: &Name) -> Result<Token> {
    let path = path(bundle);
    let found = all(fan_out(nodes, |node| read(node, &path)))?;
    let secret = match found.first() {
        Some(Some(secret)) => secret.clone(),
        _ => new()?,
    };
    let lacks = |found: &Option<String>| found.as_ref() != Some(&secret);
    Ok(Token {
        lacking: found.iter().map(lacks).collect(),
        secret,
    })
}

/// Gives the token to the nodes that lack it.
pub fn share(nodes: &[Node], bundle: &Name, token: &Token) -> Result<()> {
    let path = path(bundle);
    let lacking: Vec<&Node> = (nodes.iter().zip(&token.lacking))
        .filter_map(|(node, lacks)| lacks.then_some(node))
        .collect();
    all(fan_out(&lacking, |node| write(node, &path, &token.secret)))?;
    Ok(())
}

/// Removes it from a node.
pub fn remove(node: &Node, bundle: &Name) -> Result<()> {
    let removed = node.exec(&["rm", "-f", &path(bundle)], "")?;
    succeeded(node, removed.status, "remove", &removed.stderr)
}

fn read(node: &Node, path: &str) -> Result<Option<String>> {
    let exited = node.exec(&["cat", path], "")?;
    Ok((exited.status == 0 && !exited.stdout.is_empty()).then_some(exited.stdout))
}

fn write(node: &Node, path: &str, token: &str) -> Result<()> {
    let written = node.exec(&["sh", "-c", WRITE, "sh", path], token)?;
    succeeded(node, written.status, "write", &written.stderr)
}

fn succeeded(node: &Node, status: i32, verb: &str, said: &str) -> Result<()> {
    if status == 0 {
        return Ok(());
    }
    let (name, said) = (&node.name, said.trim());
    Err(Error::Failed(format!(
        "{name}: cannot {verb} the token of Ray: {said}"
    )))
}

/// 256 random bits in hexadecimal.
fn new() -> Result<String> {
    let source = "/dev/urandom";
    let mut bits = [0; 32];
    File::open(source)
        .and_then(|mut file| file.read_exact(&mut bits))
        .map_err(Error::io("read", source))?;
    Ok(Sha256::of(&bits).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_tokens_are_equal() {
        let (one, other) = (new().unwrap(), new().unwrap());
        assert_ne!(one, other);
        assert_eq!(one.len(), 64);
    }

    #[test]
    fn it_is_written_for_root_only() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("x/ray-token");
        let mut child = std::process::Command::new("sh")
            .args(["-c", WRITE, "sh"])
            .arg(&file)
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"secret").unwrap();
        assert!(child.wait().unwrap().success());
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "secret");
        let mode = std::fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
