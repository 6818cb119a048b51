//! What runs inside the containers: the server, and around it what makes a cluster of the nodes.

use std::net::SocketAddr;

use super::choice::Mode;
use super::deployment::{Deployment, MASTER_PORT, MEETING_PORT, Member, RAY_PORT};

/// Where the directory that holds the first model appears in the container.
pub const MODEL_ROOT: &str = "/model";

/// Runs the server inside the head container while Ray has all nodes.
const RAY_NODES: &str = concat!(
    include_str!("supervise.py"),
    "\n\n",
    include_str!("ray_nodes.py")
);

/// Runs a rank of the server while all ranks are there.
const RANKS: &str = concat!(
    include_str!("supervise.py"),
    "\n\n",
    include_str!("ranks.py")
);

/// The entry point and its arguments, for the node of this rank (0: the head).
#[must_use]
pub fn command(deployment: &Deployment, rank: usize, member: &Member) -> (String, Vec<String>) {
    match deployment.choice.mode {
        Mode::Ray => {
            let mut words = vec!["-c".to_owned()];
            words.extend(ray(deployment, rank, member));
            ("/bin/bash".to_owned(), words)
        }
        Mode::Mp if deployment.members.len() > 1 => {
            let head = deployment.head().to_string();
            let meeting = [rank.to_string(), deployment.members.len().to_string(), head];
            let mut words = vec!["-c".to_owned(), RANKS.to_owned()];
            words.extend(meeting);
            words.push(MEETING_PORT.to_string());
            words.extend(serve(deployment, rank));
            ("python3".to_owned(), words)
        }
        Mode::Mp => {
            let mut words = serve(deployment, rank);
            let program = words.remove(0);
            (program, words)
        }
    }
}

/// The argument of `bash -c` and its positional parameters.
fn ray(deployment: &Deployment, rank: usize, member: &Member) -> Vec<String> {
    let gpus = member.gpus.max(1);
    let own = format!("--node-ip-address={} --num-gpus={gpus}", member.address);
    if rank > 0 {
        let head = SocketAddr::new(deployment.head(), RAY_PORT);
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
    let mut words = vec![script, "bundle".to_owned(), RAY_NODES.to_owned()];
    words.extend([nodes.to_string(), total.to_string()]);
    words.extend(serve(deployment, rank));
    words
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
    let model = format!("{MODEL_ROOT}/{model}");
    let mut words = if choice.serve_command {
        vec!["vllm".to_owned(), "serve".to_owned(), model]
    } else {
        let module = "python3 -m vllm.entrypoints.openai.api_server --model";
        let mut words: Vec<String> = module.split(' ').map(str::to_owned).collect();
        words.push(model);
        words
    };
    let mut option = |name: &str, value: &str| words.extend([name.to_owned(), value.to_owned()]);
    option(
        "--tensor-parallel-size",
        &choice.tensor_parallel.to_string(),
    );
    option(
        "--pipeline-parallel-size",
        &choice.pipeline_parallel.to_string(),
    );
    if choice.backend_option {
        let backend = match choice.mode {
            Mode::Ray => "ray",
            Mode::Mp => "mp",
        };
        option("--distributed-executor-backend", backend);
    }
    option("--port", &manifest.cluster.port.to_string());
    if choice.mode == Mode::Mp && members.len() > 1 {
        option("--nnodes", &members.len().to_string());
        option("--node-rank", &rank.to_string());
        option("--master-addr", &deployment.head().to_string());
        option("--master-port", &MASTER_PORT.to_string());
    }
    if !choice.backend_option && choice.mode == Mode::Ray {
        words.push("--worker-use-ray".to_owned());
    }
    if let Some(dtype) = &choice.dtype {
        words.push(format!("--dtype={dtype}"));
    }
    if rank > 0 {
        words.push("--headless".to_owned());
    }
    words.extend(choice.extras.options.iter().cloned());
    words.extend(manifest.cluster.serve_args.iter().cloned());
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::cluster_spec::ClusterSpec;
    use crate::cluster::deployment::tests::{manifest, nodes};

    fn planned(vllm: Option<&str>, ray: bool, count: u8) -> Deployment {
        let mut manifest = manifest(ClusterSpec::default(), ray);
        manifest.images[0].facts.vllm = vllm.map(str::to_owned);
        Deployment::plan(manifest, &nodes(count)).unwrap()
    }

    fn on(deployment: &Deployment, rank: usize) -> (String, Vec<String>) {
        command(deployment, rank, &deployment.members[rank])
    }

    #[test]
    fn the_head_starts_ray_and_then_the_server() {
        let (entry, words) = on(&planned(Some("0.6.4.post1"), true, 4), 0);
        assert_eq!((entry.as_str(), words[0].as_str()), ("/bin/bash", "-c"));
        assert!(words[1].starts_with(
            "ray start --block --head --port=6379 --node-ip-address=10.0.0.11 --num-gpus=4 &\n"
        ));
        let waited = "4 16 vllm serve /model/DeepSeek-R1-Distill-Llama-70B --tensor-parallel-size 4 \
             --pipeline-parallel-size 4 --distributed-executor-backend ray --port 8000 --dtype=float16";
        assert_eq!(words[4..].join(" "), waited);
    }

    #[test]
    fn workers_join_the_head_under_their_own_address() {
        let (_, words) = on(&planned(None, true, 4), 2);
        assert_eq!(
            words[1],
            "ray start --block --address=10.0.0.11:6379 --node-ip-address=10.0.0.13 --num-gpus=4"
        );
    }

    #[test]
    fn without_ray_the_ranks_meet_and_then_run_vllm_themselves() {
        let deployment = planned(Some("0.19.0"), false, 2);
        let common = "--tensor-parallel-size 4 --pipeline-parallel-size 2 --distributed-executor-backend mp --port 8000 --nnodes 2";
        for (rank, headless) in [(0, ""), (1, " --headless")] {
            let (entry, words) = on(&deployment, rank);
            assert_eq!(entry, "python3");
            let expected = format!(
                "{rank} 2 10.0.0.11 29511 vllm serve /model/DeepSeek-R1-Distill-Llama-70B {common} --node-rank {rank} \
                 --master-addr 10.0.0.11 --master-port 29501 --dtype=float16{headless} --attention-backend TRITON_ATTN"
            );
            assert_eq!(words[2..].join(" "), expected);
        }
    }

    #[test]
    fn one_node_runs_nothing_but_the_server() {
        let (entry, words) = on(&planned(Some("0.19.0"), false, 1), 0);
        assert_eq!((entry.as_str(), words[0].as_str()), ("vllm", "serve"));
        assert!(!words.contains(&"--nnodes".to_owned()));
    }

    #[test]
    fn old_versions_are_called_in_their_own_way() {
        let (_, words) = on(&planned(Some("0.5.1"), true, 4), 0);
        let line = words[4..].join(" ");
        assert!(
            line.starts_with("4 16 python3 -m vllm.entrypoints.openai.api_server --model /model/"),
            "{line}"
        );
        assert!(
            line.contains("--distributed-executor-backend ray"),
            "{line}"
        );
        let mut manifest = manifest(
            toml::from_str("pipeline_parallel = 1\ntensor_parallel = 8").unwrap(),
            true,
        );
        manifest.images[0].facts.vllm = Some("0.4.2".into());
        let line = on(&Deployment::plan(manifest, &nodes(2)).unwrap(), 0)
            .1
            .join(" ");
        assert!(
            line.contains("--worker-use-ray") && !line.contains("backend"),
            "{line}"
        );
    }

    #[test]
    fn what_serve_args_say_comes_last() {
        let cluster = toml::from_str("serve_args = [\"--max-model-len\", \"8192\"]").unwrap();
        let deployment = Deployment::plan(manifest(cluster, true), &nodes(1)).unwrap();
        let words = on(&deployment, 0).1;
        assert_eq!(words[words.len() - 2..], ["--max-model-len", "8192"]);
    }
}
