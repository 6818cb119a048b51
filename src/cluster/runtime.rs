//! How docker, podman and nerdctl differ. Where nothing is said here, they take the same words.

use std::fmt::Debug;

/// A container runtime's own words.
pub trait Runtime: Debug + Sync {
    /// Its command.
    fn command(&self) -> &'static str;

    /// Arguments of `run` that give a container all GPUs.
    fn all_gpus(&self) -> &'static [&'static str] {
        &["--gpus", "all"]
    }

    /// The policy for `--restart` after which a container comes back when it fails and after a boot.
    fn restart_policy(&self) -> &'static str {
        "unless-stopped"
    }

    /// More arguments of `run`.
    fn besides(&self) -> &'static [&'static str] {
        &[]
    }

    /// What must be done on a node by hand for containers to come back after a boot.
    fn after_boot(&self) -> Option<&'static str> {
        None
    }
}

#[derive(Debug)]
struct Docker;

impl Runtime for Docker {
    fn command(&self) -> &'static str {
        "docker"
    }
}

#[derive(Debug)]
struct Podman;

impl Runtime for Podman {
    fn command(&self) -> &'static str {
        "podman"
    }

    /// Podman before 5 knows GPUs by the names of the Container Device Interface only.
    fn all_gpus(&self) -> &'static [&'static str] {
        &["--device", "nvidia.com/gpu=all"]
    }

    /// There is no daemon: a unit starts at boot what has exactly this policy.
    fn restart_policy(&self) -> &'static str {
        "always"
    }

    /// With `SELinux`, a container could otherwise read neither the model nor the GPU devices.
    fn besides(&self) -> &'static [&'static str] {
        &["--security-opt", "label=disable"]
    }

    fn after_boot(&self) -> Option<&'static str> {
        Some(
            "podman starts containers after a boot only with `systemctl enable podman-restart.service`",
        )
    }
}

#[derive(Debug)]
struct Nerdctl;

impl Runtime for Nerdctl {
    fn command(&self) -> &'static str {
        "nerdctl"
    }
}

/// The runtime of this command; what is not known is spoken to as docker is.
#[must_use]
pub fn of_command(command: &str) -> &'static dyn Runtime {
    const KNOWN: [&dyn Runtime; 3] = [&Docker, &Podman, &Nerdctl];
    KNOWN
        .into_iter()
        .find(|runtime| runtime.command() == command)
        .unwrap_or(&Docker)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_words_for_gpus_and_restarts() {
        for (command, gpus, restart, by_hand) in [
            ("docker", "--gpus all", "unless-stopped", false),
            ("podman", "--device nvidia.com/gpu=all", "always", true),
            ("nerdctl", "--gpus all", "unless-stopped", false),
        ] {
            let runtime = of_command(command);
            assert_eq!(runtime.command(), command);
            assert_eq!(runtime.all_gpus().join(" "), gpus);
            assert_eq!(runtime.restart_policy(), restart);
            assert_eq!(runtime.after_boot().is_some(), by_hand);
        }
    }
}
