//! From one version to another on all nodes or on none. Every node is prepared first; then the
//! containers go; then nodes switch. A node that dies on the way is behind, is known to be, and is
//! brought up before anything starts again. `docs/INSTALL.md` goes through the cases.

use crate::agent::fleet::{Member, all};
use crate::agent::protocol::{self, Answer, Request, Version, Versions};
use crate::bundle::manifest::Name;
use crate::error::{Error, Result};
use crate::ssh::fan_out;

/// A node's name and what it has.
pub type Known = (String, Versions);

/// What every node has of a bundle.
pub fn versions(members: &[Member], name: &Name) -> Result<Vec<Known>> {
    all(fan_out(members, |member| {
        let name = name.to_string();
        match member.link.call(Request::Versions { name })? {
            Answer::Versions(versions) => Ok((member.host.address.clone(), versions)),
            _ => Err(member.link.unexpected()),
        }
    }))
}

/// Puts a version into place everywhere; returns whether anything had to be done. `stop` removes
/// the containers: the old version's must be gone for good before the first node switches. It
/// returns whether there can be any.
pub fn activate(
    members: &[Member],
    name: &Name,
    version: Version,
    stop: impl FnOnce() -> Result<bool>,
) -> Result<bool> {
    let known = versions(members, name)?;
    if known.iter().all(|(_, node)| is_settled(node, version)) {
        return Ok(false);
    }
    let name = name.to_string();
    let prepare = || Request::Prepare {
        name: name.clone(),
        version,
    };
    on_all(members, prepare)
        .and_then(|()| stop())
        .and_then(|removed| {
            if removed {
                on_all(members, || Request::Sync)
            } else {
                Ok(())
            }
        })
        .map_err(|error| {
            with_advice(
                &error,
                "no node was switched; run the same command again, or `bundle up` for the version that is in place",
            )
        })?;
    on_all(members, || Request::Activate).map_err(|error| {
        with_advice(
            &error,
            "the other nodes have switched, and nothing runs anywhere; run the same command again, or `bundle up`, when this is mended",
        )
    })?;
    Ok(true)
}

fn on_all(members: &[Member], request: impl Fn() -> Request + Sync) -> Result<()> {
    all(fan_out(members, |member| member.perform(request()))).map(drop)
}

fn with_advice(error: &Error, advice: &str) -> Error {
    Error::from_code(error.exit_code(), format!("{error}\n{advice}"))
}

/// It is in place, and no repair of it waits.
fn is_settled(node: &Versions, version: Version) -> bool {
    node.current == Some(version) && node.sealed != Some(version)
}

/// The version that all nodes have in place, or that those which have not were prepared for.
pub fn agreed(name: &Name, known: &[Known]) -> Result<Version> {
    let versions: Vec<&Versions> = known.iter().map(|(_, node)| node).collect();
    protocol::agreed(&versions).ok_or_else(|| disagreement(name, known))
}

/// The version before the agreed one. A broken off rollback is finished instead.
pub fn before(name: &Name, known: &[Known]) -> Result<Version> {
    let agreed = agreed(name, known)?;
    let (ahead, behind): (Vec<&Known>, Vec<&Known>) = known
        .iter()
        .partition(|(_, node)| node.current == Some(agreed));
    let goes_back =
        |(_, node): &&Known| node.previous == Some(agreed) && node.sealed != Some(agreed);
    if !behind.is_empty() && behind.iter().all(goes_back) {
        return Ok(agreed);
    }
    let of_ahead = ahead.iter().map(|(name, node)| (name, node.previous));
    let of_behind = behind.iter().map(|(name, node)| (name, node.current));
    let mut target = None;
    for (node, version) in of_ahead.chain(of_behind) {
        let version = version.ok_or_else(|| {
            Error::Failed(format!(
                "{node}: there is no previous generation of {name} to go back to; no node was changed"
            ))
        })?;
        if *target.get_or_insert(version) != version {
            return Err(Error::SomeNodes(format!(
                "{node}: its previous generation of {name} is another than that of the nodes before it; no node was changed. `bundle install` of the wanted version brings all nodes to it"
            )));
        }
    }
    target.ok_or_else(|| disagreement(name, known))
}

/// Which node has what, and the way out.
fn disagreement(name: &Name, known: &[Known]) -> Error {
    let has = |(node, versions): &Known| match versions.current {
        Some(version) => format!("{node} has {}", call(version)),
        None => format!("{node} has none"),
    };
    let lines: Vec<String> = known.iter().map(has).collect();
    Error::SomeNodes(format!(
        "the nodes have different versions of {name}, so it is not started: {}. Bring all nodes to one: `bundle install` with its media, or `bundle install --from-nodes`",
        lines.join(", ")
    ))
}

/// A version in a sentence.
fn call(version: Version) -> String {
    match version.manifest {
        Some(manifest) => format!("version {:.12}", manifest.to_string()),
        None => "content that bundle did not install".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Sha256;

    fn version(letter: char) -> Option<Version> {
        let manifest = match letter {
            '-' => return None,
            '?' => None,
            letter => Some(Sha256::of(letter.to_string().as_bytes())),
        };
        Some(Version { manifest })
    }

    /// Letters for current, previous, sealed and prepared; `-` is nothing, `?` foreign content.
    fn known(nodes: &[&str]) -> Vec<Known> {
        let node = |(number, text): (usize, &&str)| {
            let letters: Vec<char> = text.chars().collect();
            let versions = Versions {
                current: version(letters[0]),
                previous: version(letters[1]),
                sealed: version(letters[2]),
                prepared: version(letters[3]),
            };
            (format!("n{}", number + 1), versions)
        };
        nodes.iter().enumerate().map(node).collect()
    }

    fn name() -> Name {
        "m".parse().unwrap()
    }

    #[test]
    fn nodes_agree_or_can_be_brought_to_agree() {
        for (nodes, expected) in [
            (&["b---", "b---"][..], Some('b')),
            // Sealed and prepared everywhere, switched nowhere: the old one stays.
            (&["a-bb", "a-bb"], Some('a')),
            // The second died before it switched; or the first.
            (&["ba--", "a-bb"], Some('b')),
            (&["a-bb", "ba--"], Some('b')),
            // A rollback that broke off.
            (&["ab--", "ba-a"], Some('a')),
            // A first install that broke off.
            (&["b---", "--bb"], Some('b')),
            (&["b?--", "?-bb"], Some('b')),
            // A node that came later, or that missed an update.
            (&["b---", "----"], None),
            (&["ba--", "a---"], None),
            // Sealed, but by an install that was never finished.
            (&["ba--", "a-b-"], None),
            (&["----"], None),
        ] {
            let found = agreed(&name(), &known(nodes)).ok();
            assert_eq!(found, expected.and_then(version), "{nodes:?}");
        }
    }

    #[test]
    fn going_back_is_to_the_same_version_everywhere() {
        for (nodes, expected) in [
            (&["ba--", "ba--"][..], Some('a')),
            (&["b?--", "b?--"], Some('?')),
            // An install that broke off is undone, a rollback that broke off is finished.
            (&["ba--", "a-bb"], Some('a')),
            (&["ba--", "azbb"], Some('a')),
            (&["ab--", "ba-a"], Some('a')),
            (&["b---", "b---"], None),
            (&["ba--", "b---"], None),
            (&["ba--", "bz--"], None),
        ] {
            let found = before(&name(), &known(nodes)).ok();
            assert_eq!(found, expected.and_then(version), "{nodes:?}");
        }
    }

    #[test]
    fn a_disagreement_names_every_node() {
        let error = agreed(&name(), &known(&["ba--", "a---", "----"])).unwrap_err();
        assert_eq!(error.exit_code(), 3);
        let text = error.to_string();
        for part in [
            "n1 has version 3e23e8160039",
            "n2 has version ca978112ca1b",
            "n3 has none",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
