//! Which bundle the nodes have, without its media.

use std::collections::BTreeSet;

use crate::agent::fleet::{Member, all};
use crate::agent::protocol::{Answer, Request};
use crate::bundle::manifest::Manifest;
use crate::error::{Error, Result};
use crate::ssh::fan_out;

/// What is installed.
#[derive(Clone, Debug)]
pub struct Installed {
    /// As the first node has it that has one.
    pub manifest: Manifest,
    /// Its exact bytes.
    pub text: String,
}

impl Installed {
    /// The bundle of this name, or the only one that there is.
    pub fn find(name: Option<&str>, members: &[&Member]) -> Result<Self> {
        if members.is_empty() {
            return Err(Error::Failed("no node answers".into()));
        }
        let name = match name {
            Some(name) => name.to_owned(),
            None => only_name(members)?,
        };
        let texts = all(fan_out(members, |member| text(member, &name)))?;
        if let Some(text) = texts.into_iter().flatten().next() {
            return Ok(Self {
                manifest: Manifest::parse(text.as_bytes())?,
                text,
            });
        }
        let there = names(members)?.into_iter().collect::<Vec<_>>().join(", ");
        Err(Error::Usage(if there.is_empty() {
            nothing()
        } else {
            format!("bundle {name} is not installed on the nodes; these are: {there}")
        }))
    }
}

/// The name of the only bundle that any of the nodes has.
pub fn only_name(members: &[&Member]) -> Result<String> {
    only(names(members)?)
}

fn text(member: &Member, name: &str) -> Result<Option<String>> {
    let name = name.to_owned();
    match member.link.call(Request::Installed { name })? {
        Answer::Installed { manifest } => Ok(manifest),
        _ => Err(member.link.unexpected()),
    }
}

/// Of all nodes together.
fn names(members: &[&Member]) -> Result<BTreeSet<String>> {
    let names = fan_out(members, |member| {
        match member.link.call(Request::Bundles)? {
            Answer::Bundles { names } => Ok(names),
            _ => Err(member.link.unexpected()),
        }
    });
    Ok(all(names)?.into_iter().flatten().collect())
}

fn only(names: BTreeSet<String>) -> Result<String> {
    let mut names: Vec<String> = names.into_iter().collect();
    match names.len() {
        1 => Ok(names.remove(0)),
        0 => Err(Error::Usage(nothing())),
        _ => Err(Error::Usage(format!(
            "which bundle? name one of: {}",
            names.join(", ")
        ))),
    }
}

fn nothing() -> String {
    "no bundle is installed on the nodes; `bundle install` brings one".into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_only_bundle_needs_no_name() {
        let only = |names: &[&str]| only(names.iter().map(ToString::to_string).collect());
        assert_eq!(only(&["a"]).unwrap(), "a");
        let none = only(&[]).unwrap_err();
        assert_eq!(none.exit_code(), 2);
        assert!(none.to_string().contains("bundle install"), "{none}");
        let two = only(&["b", "a"]).unwrap_err().to_string();
        assert!(two.ends_with("a, b"), "{two}");
    }
}
