//! The arguments of `docker run` (and of podman and nerdctl, which take the same) for each node.
//! Every flag of the reference deployment in `DESIGN.md` is here.

use std::net::{IpAddr, SocketAddr};

use super::choice::Mode;
use super::deployment::{Deployment, MASTER_PORT, Member, RAY_PORT};
use crate::bundle::cluster_spec::Gpus;
use crate::bundle::manifest::Name;
use crate::digest::Sha256;

/// Label that carries the hash of a container's own arguments.
pub const CONFIG_LABEL: &str = "bundle.config";

/// Where the directory that holds the first model appears in the container.
const MODEL_ROOT: &str = "/model";

/// Waits inside the head container until Ray has all nodes.
const WAIT_FOR_NODES: &str = include_str!("wait_for_nodes.py");

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
    let Deployment {
        manifest,
        choice,
        members,
    } = deployment;
    let Some(member) = members.get(rank) else {
        return Vec::new();
    };
    let mut argv = strings(&[
        "--name",
        &name(&manifest.name),
        "--restart",
        "unless-stopped",
    ]);
    argv.extend(strings(&["--network", "host", "--shm-size", "10.24g"]));
    if manifest.cluster.gpus == Gpus::All {
        argv.extend(strings(&["--gpus", "all"]));
    }
    for mount in mounts(deployment) {
        argv.extend(["-v".to_owned(), mount]);
    }
    for (key, value) in environment(deployment, member) {
        argv.extend(["-e".to_owned(), format!("{key}={value}")]);
    }
    let image = manifest.images.first().map_or("", |image| &image.reference);
    match choice.mode {
        Mode::Ray => {
            argv.extend(strings(&["--entrypoint", "/bin/bash", image, "-c"]));
            argv.extend(ray_command(deployment, rank, member));
        }
        Mode::Mp => {
            argv.extend(strings(&["--entrypoint", "vllm", image]));
            argv.extend(serve(deployment, rank).into_iter().skip(1));
        }
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
    let own = &deployment.manifest.cluster.env;
    environment.retain(|(key, _)| !own.contains_key(key));
    environment.extend(own.iter().map(|(key, value)| (key.clone(), value.clone())));
    environment
}

/// The argument of `bash -c` and its positional parameters.
fn ray_command(deployment: &Deployment, rank: usize, member: &Member) -> Vec<String> {
    let gpus = member.gpus.max(1);
    let own = format!("--node-ip-address={} --num-gpus={gpus}", member.address);
    if rank > 0 {
        let head = SocketAddr::new(head(deployment), RAY_PORT);
        return vec![format!("ray start --block --address={head} {own}")];
    }
    let script = format!(
        "ray start --block --head --port={RAY_PORT} {own} &\n{}",
        include_str!("serve_when_complete.sh")
    );
    let nodes = deployment.members.len();
    let total: u32 = deployment
        .members
        .iter()
        .map(|member| member.gpus.max(1))
        .sum();
    let mut argv = vec![script, "bundle".to_owned(), WAIT_FOR_NODES.to_owned()];
    argv.extend([nodes.to_string(), total.to_string()]);
    argv.extend(serve(deployment, rank));
    argv
}

/// `vllm serve ...` for the node of this rank.
fn serve(deployment: &Deployment, rank: usize) -> Vec<String> {
    let Deployment {
        manifest,
        choice,
        members,
    } = deployment;
    let model = manifest
        .models
        .first()
        .map_or("", |model| model.path.name());
    let mut argv = strings(&["vllm", "serve", &format!("{MODEL_ROOT}/{model}")]);
    let mut option = |name: &str, value: &str| argv.extend(strings(&[name, value]));
    option(
        "--tensor-parallel-size",
        &choice.tensor_parallel.to_string(),
    );
    option(
        "--pipeline-parallel-size",
        &choice.pipeline_parallel.to_string(),
    );
    match choice.mode {
        Mode::Ray => option("--distributed-executor-backend", "ray"),
        Mode::Mp => option("--distributed-executor-backend", "mp"),
    }
    option("--port", &manifest.cluster.port.to_string());
    if choice.mode == Mode::Mp && members.len() > 1 {
        option("--nnodes", &members.len().to_string());
        option("--node-rank", &rank.to_string());
        option("--master-addr", &head(deployment).to_string());
        option("--master-port", &MASTER_PORT.to_string());
    }
    if let Some(dtype) = &choice.dtype {
        argv.push(format!("--dtype={dtype}"));
    }
    if rank > 0 {
        argv.push("--headless".to_owned());
    }
    argv.extend(choice.options.iter().cloned());
    argv.extend(manifest.cluster.serve_args.iter().cloned());
    argv
}

fn head(deployment: &Deployment) -> IpAddr {
    deployment
        .members
        .first()
        .map_or(IpAddr::from([0; 4]), |head| head.address)
}

fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
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
    fn the_head_starts_ray_and_then_the_server() {
        let argv = run(&planned(ClusterSpec::default(), true, 4), 0);
        let script = values(&argv, "-c")[0];
        assert!(script.starts_with(
            "ray start --block --head --port=6379 --node-ip-address=10.0.0.11 --num-gpus=4 &\n"
        ));
        let tail = argv[argv.len() - 14..].join(" ");
        let waited = "4 16 vllm serve /model/DeepSeek-R1-Distill-Llama-70B --tensor-parallel-size 4 \
             --pipeline-parallel-size 4 --distributed-executor-backend ray --port 8000 --dtype=float16";
        assert_eq!(tail, waited);
    }

    #[test]
    fn workers_join_the_head_under_their_own_address() {
        let argv = run(&planned(ClusterSpec::default(), true, 4), 2);
        assert_eq!(
            values(&argv, "-c"),
            ["ray start --block --address=10.0.0.11:6379 --node-ip-address=10.0.0.13 --num-gpus=4"]
        );
    }

    #[test]
    fn without_ray_every_rank_runs_vllm_itself() {
        let deployment = planned(ClusterSpec::default(), false, 2);
        for (rank, headless) in [(0, false), (1, true)] {
            let argv = run(&deployment, rank);
            assert_eq!(values(&argv, "--entrypoint"), ["vllm"]);
            assert_eq!(values(&argv, "--node-rank"), [rank.to_string()]);
            assert_eq!(values(&argv, "--nnodes"), ["2"]);
            assert_eq!(values(&argv, "--master-addr"), ["10.0.0.11"]);
            assert_eq!(argv.contains(&"--headless".to_owned()), headless);
        }
        assert!(
            values(
                &run(&planned(ClusterSpec::default(), false, 1), 0),
                "--nnodes"
            )
            .is_empty()
        );
    }

    #[test]
    fn the_spec_can_add_arguments_and_override_environment() {
        let cluster: ClusterSpec = toml::from_str(
            "gpus = \"none\"\nserve_args = [\"--max-model-len\", \"8192\"]\nenv = { HF_HUB_OFFLINE = \"0\", X = \"y z\" }",
        )
        .unwrap();
        let argv = run(&planned(cluster, true, 1), 0);
        assert_eq!(argv[argv.len() - 2..], ["--max-model-len", "8192"]);
        assert!(values(&argv, "--gpus").is_empty());
        let environment = values(&argv, "-e");
        assert!(environment.contains(&"X=y z") && environment.contains(&"HF_HUB_OFFLINE=0"));
        assert!(!environment.contains(&"HF_HUB_OFFLINE=1"));
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
