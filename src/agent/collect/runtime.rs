//! Which container runtime answers on the node, and where it keeps its data.

use super::Tools;
use crate::agent::facts::Runtime;
use crate::path::AbsPath;

/// Command, template for its version, template for its data directory.
const RUNTIMES: &[(&str, &str, &str)] = &[
    ("docker", "{{.Server.Version}}", "{{.DockerRootDir}}"),
    ("podman", "{{.Client.Version}}", "{{.Store.GraphRoot}}"),
    ("nerdctl", "{{.Client.Version}}", "{{.DockerRootDir}}"),
];

/// The first runtime that answers.
pub fn find(tools: &Tools) -> Option<Runtime> {
    RUNTIMES.iter().find_map(|(command, version, _)| {
        let answer = tools.output(&[command, "version", "--format", version])?;
        let version = answer.trim();
        (!version.is_empty() && version != "<no value>").then(|| Runtime {
            command: (*command).to_owned(),
            version: version.to_owned(),
        })
    })
}

/// The directory that images are loaded into.
pub fn directory(tools: &Tools, runtime: &Runtime) -> Option<AbsPath> {
    let (command, _, template) = RUNTIMES
        .iter()
        .find(|(command, _, _)| *command == runtime.command)?;
    let answer = tools.output(&[command, "info", "--format", template]);
    answer
        .and_then(|text| text.trim().parse().ok())
        .or_else(|| "/var/lib/containerd".parse().ok())
}
