//! Which container runtime answers on the node, and where it keeps its data.

use super::{Tools, on_path};
use crate::agent::facts::Runtime;
use crate::path::AbsPath;

/// Command, and template of `info` for a line each of: the version of what does the work, where it
/// keeps its data, how. One call, because podman's takes as long as all other facts together.
/// `version` would tell that of a client too, whose daemon is down.
const RUNTIMES: &[(&str, &str)] = &[
    (
        "docker",
        "{{.ServerVersion}}\n{{.DockerRootDir}}\n{{.DriverStatus}}",
    ),
    ("podman", "{{.Version.Version}}\n{{.Store.GraphRoot}}"),
    ("nerdctl", "{{.ServerVersion}}"),
];

/// What Docker says of itself when containerd keeps its images.
const SNAPSHOTTER: &str = "io.containerd.snapshotter";

/// Where containerd keeps what it unpacks; nerdctl does not tell.
const CONTAINERD: &str = "/var/lib/containerd";

/// A runtime that answers.
#[derive(Debug, PartialEq, Eq)]
pub struct Found {
    /// Which one.
    pub runtime: Runtime,
    /// The directory that images are unpacked into, and the one that holds what is to be unpacked
    /// meanwhile.
    pub directories: [AbsPath; 2],
}

/// The first runtime that answers, and what those before it said that are installed.
pub fn find(tools: &Tools) -> (Option<Found>, Option<String>) {
    let mut complaints = Vec::new();
    let join = |complaints: Vec<String>| (!complaints.is_empty()).then(|| complaints.join("; "));
    for (command, template) in RUNTIMES {
        if !on_path(command) {
            continue;
        }
        let said = match tools.run(&[command, "info", "--format", template]) {
            Ok(exited) => {
                let found = (exited.status == 0).then(|| understand(command, &exited.stdout));
                if let Some(found) = found.flatten() {
                    return (Some(found), join(complaints));
                }
                exited.stderr
            }
            Err(error) => error.to_string(),
        };
        complaints.push(complaint(command, &said));
    }
    (None, join(complaints))
}

/// What `info` said. Measured with Docker 28: `docker load` writes the whole archive below its own
/// directory before it unpacks the first layer. containerd keeps it there for good; podman has it
/// in /var/tmp.
fn understand(command: &str, said: &str) -> Option<Found> {
    let mut lines = said.lines().map(str::trim);
    let version = lines
        .next()
        .filter(|line| !["", "<no value>"].contains(line))?;
    let by_containerd = said.contains(SNAPSHOTTER);
    let told = lines.next().filter(|_| !by_containerd);
    let own: AbsPath = told.unwrap_or(CONTAINERD).parse().ok()?;
    let meanwhile = match command {
        "podman" => "/var/tmp".parse().ok()?,
        _ => own.clone(),
    };
    Some(Found {
        runtime: Runtime {
            command: command.to_owned(),
            version: version.to_owned(),
        },
        directories: [own, meanwhile],
    })
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

    #[test]
    fn what_each_runtime_says_is_understood() {
        let snapshotter = "28.1\n/var/lib/docker\n[[driver-type io.containerd.snapshotter.v1]]\n";
        for (command, said, expected) in [
            ("docker", "", None),
            ("docker", "\n\n[]\n", None),
            ("docker", "<no value>\n", None),
            (
                "docker",
                "20.10.24\n/srv/docker\n[[Backing Filesystem extfs]]\n",
                Some(("20.10.24", "/srv/docker", "/srv/docker")),
            ),
            (
                "docker",
                snapshotter,
                Some(("28.1", CONTAINERD, CONTAINERD)),
            ),
            (
                "podman",
                "4.3.1\n/var/lib/containers/storage\n",
                Some(("4.3.1", "/var/lib/containers/storage", "/var/tmp")),
            ),
            (
                "nerdctl",
                "1.7.7\n",
                Some(("1.7.7", CONTAINERD, CONTAINERD)),
            ),
        ] {
            let found = understand(command, said).map(|found| {
                let [own, meanwhile] = found.directories;
                (
                    found.runtime.version,
                    own.to_string(),
                    meanwhile.to_string(),
                )
            });
            let expected = expected.map(|(version, own, meanwhile)| {
                (version.to_owned(), own.to_owned(), meanwhile.to_owned())
            });
            assert_eq!(found, expected, "{command}: {said:?}");
        }
    }
}
