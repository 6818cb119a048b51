//! What is installed on the nodes, hashed again there, all nodes at once.

use serde::Serialize;

use crate::agent::fleet::{Contact, Member};
use crate::agent::protocol::{Answer, Request};
use crate::bundle::manifest::Manifest;
use crate::error::{Error, Result};
use crate::ssh::fan_out;

/// Damaged files that an error names per node.
const NAMED: usize = 10;

/// What was found on a node.
#[derive(Debug, Serialize)]
pub struct Audit {
    /// As hosts.txt names it.
    pub node: String,
    /// Paths of damaged and missing files.
    pub damaged: Vec<String>,
    /// Why nothing could be said about it.
    pub failure: Option<Failure>,
}

/// An error as exit code and sentence.
#[derive(Debug, Serialize)]
pub struct Failure {
    /// The exit code that it leads to.
    pub code: u8,
    /// What failed.
    pub message: String,
}

/// Hashes what is installed under the name of this manifest. Another version is a failure.
/// The next install repairs what is damaged, and sends only the chunks that are.
pub fn audit(contacts: &[Contact], manifest: &[u8]) -> Result<Vec<Audit>> {
    let name = Manifest::parse(manifest)?.name.to_string();
    let look = |contact: &Contact| {
        let found = match &contact.member {
            Ok(member) => damaged(member, &name, manifest),
            Err(error) => Err(Error::from_code(error.exit_code(), error.to_string())),
        };
        let (damaged, failure) = match found {
            Ok(damaged) => (damaged, None),
            Err(error) => (Vec::new(), Some(error)),
        };
        Audit {
            node: contact.name.clone(),
            damaged,
            failure: failure.map(|error| Failure {
                code: error.exit_code(),
                message: error.to_string(),
            }),
        }
    };
    Ok(fan_out(contacts, look))
}

fn damaged(member: &Member, name: &str, manifest: &[u8]) -> Result<Vec<String>> {
    let node = &member.host.address;
    let name = name.to_owned();
    let installed = Request::Installed { name: name.clone() };
    match member.link.call(installed)? {
        Answer::Installed {
            manifest: Some(found),
        } if found.as_bytes() == manifest => {}
        Answer::Installed { manifest: Some(_) } => {
            return Err(Error::Damaged(format!(
                "{node}: another version of {name} is installed; run `bundle install`"
            )));
        }
        _ => {
            return Err(Error::Damaged(format!(
                "{node}: {name} is not installed; run `bundle install`"
            )));
        }
    }
    match member.link.call(Request::Verify { name })? {
        Answer::Verified { damaged } => Ok(damaged),
        _ => Err(member.link.unexpected()),
    }
}

impl Audit {
    /// Nothing when all is intact; else what is wrong, with the node's name.
    pub fn outcome(&self) -> Result<()> {
        if let Some(failure) = &self.failure {
            return Err(Error::from_code(failure.code, failure.message.clone()));
        }
        if self.damaged.is_empty() {
            return Ok(());
        }
        let mut files: Vec<String> = self.damaged.iter().take(NAMED).cloned().collect();
        if self.damaged.len() > NAMED {
            files.push(format!("{} more", self.damaged.len() - NAMED));
        }
        Err(Error::Damaged(format!(
            "{}: damaged or missing: {}; `bundle install` sends the chunks concerned again",
            self.node,
            files.join(", ")
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_names_node_and_files() {
        let mut audit = Audit {
            node: "n1".into(),
            damaged: Vec::new(),
            failure: None,
        };
        audit.outcome().unwrap();
        audit.damaged = (0..12).map(|number| format!("/data/{number}")).collect();
        let error = audit.outcome().unwrap_err();
        assert_eq!(error.exit_code(), 10);
        let text = error.to_string();
        assert!(
            text.starts_with("n1: damaged or missing: /data/0, "),
            "{text}"
        );
        assert!(text.contains("/data/9, 2 more; "), "{text}");
    }
}
