//! The arguments of `run` of docker, podman and nerdctl for each node's container. Every flag of the
//! reference deployment in `DESIGN.md` is here.

use super::deployment::{Deployment, Member};
use super::ray_token;
use super::server::{MODEL_ROOT, command};
use crate::bundle::cluster_spec::Gpus;
use crate::bundle::manifest::Name;
use crate::digest::Sha256;

/// Label that carries the hash of a container's own arguments.
pub const CONFIG_LABEL: &str = "bundle.config";

/// The name of a bundle's container, the same on every node.
#[must_use]
pub fn name(bundle: &Name) -> String {
    format!("bundle-{bundle}")
}

/// Hash of a node's arguments: a container with this label needs no restart.
#[must_use]
pub fn config(deployment: &Deployment, rank: usize) -> Sha256 {
    let mut text = String::new();
    for argument in arguments(deployment, rank) {
        text.push_str(&argument);
        text.push('\0');
    }
    Sha256::of(text.as_bytes())
}

/// `run --detach ...`: everything after `docker`, for the node of this rank (0: the head).
#[must_use]
pub fn run(deployment: &Deployment, rank: usize) -> Vec<String> {
    let label = format!("{CONFIG_LABEL}={}", config(deployment, rank));
    let mut argv = strings(&["run", "--detach", "--label", &label]);
    argv.extend(arguments(deployment, rank));
    argv
}

fn arguments(deployment: &Deployment, rank: usize) -> Vec<String> {
    let Some(member) = deployment.members.get(rank) else {
        return Vec::new();
    };
    let policy = member.runtime.restart_policy();
    let mut argv = strings(&[
        "--name",
        &name(&deployment.manifest.name),
        "--restart",
        policy,
    ]);
    argv.extend(surroundings(deployment, member));
    for mount in mounts(deployment) {
        argv.extend(["-v".to_owned(), mount]);
    }
    let (entry, words) = command(deployment, rank, member);
    argv.extend(strings(&["--entrypoint", &entry, deployment.image()]));
    argv.extend(words);
    argv
}

/// Network, shared memory, GPUs and environment of a container on a node.
pub(super) fn surroundings(deployment: &Deployment, member: &Member) -> Vec<String> {
    // Behind the gap a registry does not answer: an image that is not there is an error at once.
    let mut argv = strings(&["--pull=never", "--network", "host", "--shm-size", "10.24g"]);
    if deployment.manifest.cluster.gpus == Gpus::All {
        argv.extend(strings(member.runtime.all_gpus()));
    }
    argv.extend(strings(member.runtime.besides()));
    for (key, value) in environment(deployment, member) {
        argv.extend(["-e".to_owned(), format!("{key}={value}")]);
    }
    argv
}

/// The model's directory under both names of the reference deployment; further models that are
/// elsewhere at their own paths.
fn mounts(deployment: &Deployment) -> Vec<String> {
    let models = &deployment.manifest.models;
    let Some(root) = models.first().map(|model| model.path.parent()) else {
        return Vec::new();
    };
    let mut mounts = vec![
        format!("{root}:/root/.cache/huggingface"),
        format!("{root}:{MODEL_ROOT}/:ro"),
    ];
    if deployment.choice.ray_token {
        mounts.push(ray_token::mount(&deployment.manifest.name));
    }
    let elsewhere = models.iter().filter(|model| model.path.parent() != root);
    mounts.extend(elsewhere.map(|model| format!("{0}:{0}:ro", model.path)));
    mounts
}

fn environment(deployment: &Deployment, member: &Member) -> Vec<(String, String)> {
    let mut environment = vec![("VLLM_HOST_IP".to_owned(), member.address.to_string())];
    if let Some(interface) = &member.interface {
        for key in ["GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"] {
            environment.push((key.to_owned(), interface.clone()));
        }
    }
    // Nothing inside the gap answers these; waiting for them costs minutes.
    let offline = [
        "HF_HUB_OFFLINE",
        "TRANSFORMERS_OFFLINE",
        "VLLM_NO_USAGE_STATS",
        "DO_NOT_TRACK",
    ];
    environment.extend(offline.map(|key| (key.to_owned(), "1".to_owned())));
    environment.push(("RAY_USAGE_STATS_ENABLED".to_owned(), "0".to_owned()));
    // The docker client copies proxies from its configuration; traffic between nodes must not
    // take them.
    let proxies = [
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "http_proxy",
        "https_proxy",
        "all_proxy",
    ];
    environment.extend(proxies.map(|key| (key.to_owned(), String::new())));
    if deployment.choice.ray_token {
        environment.extend(ray_token::environment());
    }
    environment.extend(deployment.choice.extras.variables.iter().cloned());
    let own = &deployment.manifest.cluster.env;
    environment.retain(|(key, _)| !own.contains_key(key));
    environment.extend(own.iter().map(|(key, value)| (key.clone(), value.clone())));
    environment
}

fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::facts::Runtime;
    use crate::bundle::cluster_spec::ClusterSpec;
    use crate::cluster::deployment::tests::{manifest, nodes};

    fn planned(cluster: ClusterSpec, ray: bool, count: u8) -> Deployment {
        Deployment::plan(manifest(cluster, ray), &nodes(count)).unwrap()
    }

    /// The values of an option that may be given several times.
    fn values<'a>(argv: &'a [String], option: &str) -> Vec<&'a str> {
        argv.windows(2)
            .filter(|pair| pair[0] == option)
            .map(|pair| pair[1].as_str())
            .collect()
    }

    #[test]
    fn every_node_gets_the_flags_of_the_reference_deployment() {
        let deployment = planned(ClusterSpec::default(), true, 4);
        for rank in 0..4 {
            let argv = run(&deployment, rank);
            let one = |option| values(&argv, option);
            assert_eq!(argv[..2], ["run", "--detach"]);
            assert_eq!(one("--name"), ["bundle-deepseek-r1-70b"]);
            assert_eq!(one("--network"), ["host"]);
            assert_eq!(one("--shm-size"), ["10.24g"]);
            assert_eq!(one("--gpus"), ["all"]);
            assert_eq!(one("--restart"), ["unless-stopped"]);
            assert_eq!(
                one("-v"),
                [
                    "/data/vllm_model:/root/.cache/huggingface",
                    "/data/vllm_model:/model/:ro"
                ]
            );
            assert_eq!(one("--entrypoint"), ["/bin/bash"]);
            assert_eq!(one("vllm/vllm-openai:v0.6.4.post1"), ["-c"]);
            let own = format!("VLLM_HOST_IP=10.0.0.{}", 11 + rank);
            for variable in [
                &own,
                "GLOO_SOCKET_IFNAME=ens13f0",
                "NCCL_SOCKET_IFNAME=ens13f0",
            ] {
                assert!(one("-e").contains(&variable), "{variable}");
            }
        }
    }

    #[test]
    fn the_spec_can_override_environment() {
        let cluster: ClusterSpec =
            toml::from_str("gpus = \"none\"\nenv = { HF_HUB_OFFLINE = \"0\", X = \"y z\" }")
                .unwrap();
        let argv = run(&planned(cluster, true, 1), 0);
        assert!(values(&argv, "--gpus").is_empty());
        let environment = values(&argv, "-e");
        assert!(environment.contains(&"X=y z") && environment.contains(&"HF_HUB_OFFLINE=0"));
        assert!(!environment.contains(&"HF_HUB_OFFLINE=1"));
    }

    #[test]
    fn podman_gets_its_own_words() {
        let mut nodes = nodes(2);
        for (_, facts) in &mut nodes {
            facts.runtime = Some(Runtime {
                command: "podman".into(),
                version: "4.3.1".into(),
            });
        }
        let deployment = Deployment::plan(manifest(ClusterSpec::default(), true), &nodes).unwrap();
        let argv = run(&deployment, 1);
        assert_eq!(values(&argv, "--restart"), ["always"]);
        assert_eq!(values(&argv, "--device"), ["nvidia.com/gpu=all"]);
        assert_eq!(values(&argv, "--security-opt"), ["label=disable"]);
        assert!(values(&argv, "--gpus").is_empty());
    }

    #[test]
    fn the_token_of_ray_is_a_file_and_never_an_argument() {
        let mut manifest = manifest(ClusterSpec::default(), true);
        manifest.images[0].facts.ray = Some("2.60.0".into());
        let argv = run(&Deployment::plan(manifest, &nodes(4)).unwrap(), 2);
        let mount = "/var/lib/bundle/deepseek-r1-70b/ray-token:/run/bundle-ray-token:ro";
        assert!(values(&argv, "-v").contains(&mount), "{argv:?}");
        let environment = values(&argv, "-e");
        assert!(environment.contains(&"RAY_AUTH_MODE=token"));
        assert!(environment.contains(&"RAY_AUTH_TOKEN_PATH=/run/bundle-ray-token"));
    }

    #[test]
    fn the_label_changes_with_the_arguments_only() {
        let deployment = planned(ClusterSpec::default(), true, 4);
        let other = planned(
            ClusterSpec {
                port: 9000,
                ..ClusterSpec::default()
            },
            true,
            4,
        );
        assert_eq!(config(&deployment, 0), config(&deployment.clone(), 0));
        assert_ne!(config(&deployment, 0), config(&other, 0));
        assert_ne!(config(&deployment, 0), config(&deployment, 1));
    }
}
