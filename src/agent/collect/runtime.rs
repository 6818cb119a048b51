//! Which container runtime answers on the node, and where it keeps its data.

use super::{Tools, on_path};
use crate::agent::facts::Runtime;
use crate::path::AbsPath;

/// Command, template of `info` for the version of what does the work, template for its data.
/// `version` would tell that of a client too, whose daemon is down.
const RUNTIMES: &[(&str, &str, &str)] = &[
    ("docker", "{{.ServerVersion}}", "{{.DockerRootDir}}"),
    ("podman", "{{.Version.Version}}", "{{.Store.GraphRoot}}"),
    ("nerdctl", "{{.ServerVersion}}", "{{.DockerRootDir}}"),
];

/// What Docker says of itself when containerd keeps its images.
const SNAPSHOTTER: &str = "io.containerd.snapshotter";

/// Where containerd keeps what it unpacks; nerdctl does not tell.
const CONTAINERD: &str = "/var/lib/containerd";

/// The first runtime that answers, and what those before it said that are installed.
pub fn find(tools: &Tools) -> (Option<Runtime>, Option<String>) {
    let mut complaints = Vec::new();
    let join = |complaints: Vec<String>| (!complaints.is_empty()).then(|| complaints.join("; "));
    for (command, version, _) in RUNTIMES {
        if !on_path(command) {
            continue;
        }
        let said = match tools.run(&[command, "info", "--format", version]) {
            Ok(exited) => {
                let answer = exited.stdout.trim();
                if exited.status == 0 && !answer.is_empty() && answer != "<no value>" {
                    let runtime = Runtime {
                        command: (*command).to_owned(),
                        version: answer.to_owned(),
                    };
                    return (Some(runtime), join(complaints));
                }
                exited.stderr
            }
            Err(error) => error.to_string(),
        };
        complaints.push(complaint(command, &said));
    }
    (None, join(complaints))
}

/// The directory that images are unpacked into, and the one that holds what is to be unpacked
/// meanwhile. Measured with Docker 28: `docker load` writes the whole archive below its own
/// directory before it unpacks the first layer. containerd keeps it there for good; podman has it
/// in /var/tmp.
pub fn directories(tools: &Tools, runtime: &Runtime) -> Vec<AbsPath> {
    let Some((command, _, template)) = RUNTIMES
        .iter()
        .find(|(command, _, _)| *command == runtime.command)
    else {
        return Vec::new();
    };
    let info = |template| tools.output(&[command, "info", "--format", template]);
    let by_containerd = info("{{.DriverStatus}}").is_some_and(|text| text.contains(SNAPSHOTTER));
    let told = if by_containerd { None } else { info(template) };
    let own = told
        .and_then(|text| text.trim().parse().ok())
        .or_else(|| CONTAINERD.parse().ok());
    let meanwhile = match *command {
        "podman" => "/var/tmp".parse().ok(),
        _ => own.clone(),
    };
    own.into_iter().chain(meanwhile).collect()
}

/// `COMMAND: ` and the last thing that it said.
fn complaint(command: &str, stderr: &str) -> String {
    let last = stderr.lines().rfind(|line| !line.trim().is_empty());
    let said: String = last.unwrap_or("no answer").chars().take(200).collect();
    format!("{command}: {}", said.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complaint_is_the_last_line() {
        let said = "time=x level=warning msg=y\nCannot connect to the Docker daemon\n\n";
        let expected = "docker: Cannot connect to the Docker daemon";
        assert_eq!(complaint("docker", said), expected);
        assert_eq!(complaint("podman", "\n"), "podman: no answer");
    }
}
