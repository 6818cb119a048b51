//! The bundle's container on a node.

use serde::Serialize;
use serde_json::Value;

use super::run;
use crate::agent::fleet::Member;
use crate::error::{Error, Result};

/// What may run the container, first choice first.
pub(super) const RUNTIMES: [&str; 3] = ["docker", "podman", "nerdctl"];

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

/// The container, from the first runtime that answers.
pub(super) fn find(member: &Member, name: &str) -> Result<Option<Container>> {
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
pub(super) fn parse(json: &str) -> Option<Container> {
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
}
