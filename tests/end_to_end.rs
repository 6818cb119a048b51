//! The whole job on the test bed: a bf16 model from the loopback hub and an image from a real
//! `docker save`, packed, carried, and installed over real sshd on nodes with real dockerd, where
//! it starts on a real Ray.

#![cfg(test)]

#[path = "support/hub/mod.rs"]
mod hub;
#[path = "support/testbed.rs"]
mod testbed;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use hub::{Content, Hub};
use serde_json::Value;
use testbed::{Testbed, text};

const BUNDLE: &str = env!("CARGO_BIN_EXE_bundle");
const NODES: [&str; 4] = ["n1", "n2", "n3", "n4"];
const CONTAINER: &str = "bundle-tiny";
const MODEL_DIR: &str = "/data/vllm_model/tiny";

/// MiB of synthetic weights: several chunks, quick to move.
const WEIGHTS: usize = 96;

/// A hub with one model; returns its files too.
fn hub() -> (Hub, BTreeMap<String, Vec<u8>>) {
    let hub = Hub::start(hub::Options::default()).unwrap();
    let files: BTreeMap<String, Vec<u8>> = hub::synthetic::model(7, WEIGHTS).into_iter().collect();
    let contents = files
        .iter()
        .map(|(path, bytes)| (path.clone(), Content::memory(bytes.clone())));
    hub.commit("org/tiny", "main", contents);
    (hub, files)
}

fn spec(image: &str) -> String {
    format!(
        "name = \"tiny\"\n[image]\nref = \"{image}\"\n[[model]]\nrepo = \"org/tiny\"\npath = \"{MODEL_DIR}\"\n"
    )
}

/// `docker inspect` of a node's container.
fn inspect(bed: &Testbed, node: &str) -> Value {
    let json = bed.read(node, &["docker", "inspect", CONTAINER]);
    serde_json::from_str::<Value>(&json).unwrap()[0].take()
}

/// What a person would type on the origin, in the bundle's directory.
fn bundle(bed: &Testbed, dir: &Path, args: &str) -> std::process::Output {
    let (hosts, known_hosts) = (
        bed.variable("TESTBED_HOSTS"),
        bed.variable("TESTBED_KNOWN_HOSTS"),
    );
    let line = format!(
        "cd {} && ./bundle {args} --hosts {hosts} --known-hosts {known_hosts}",
        dir.display()
    );
    bed.exec("origin", &["sh", "-c", &line])
}

fn pack(bed: &Testbed, work: &Path, image: &str, mirror: &str) {
    fs::write(work.join("bundle.toml"), spec(image)).unwrap();
    let packed = Command::new(BUNDLE)
        .args(["pack", "--image-daemon", "--mirror", mirror])
        .current_dir(work)
        .env("DOCKER_HOST", bed.variable("DOCKER_HOST"))
        .output()
        .unwrap();
    text(&packed);
}

fn check_size(dir: &Path) {
    let json = text(
        &Command::new(BUNDLE)
            .args(["inspect", "--json"])
            .arg(dir)
            .output()
            .unwrap(),
    );
    let manifest: Value = serde_json::from_str(&json).unwrap();
    let files = manifest["models"][0]["files"].as_array().unwrap();
    let is_weights = |file: &&Value| file["path"].as_str().unwrap().ends_with(".safetensors");
    let (mut raw, mut stored) = (0, 0);
    for file in files.iter().filter(is_weights) {
        raw += file["size"].as_u64().unwrap();
        for index in file["chunks"].as_array().unwrap() {
            let index = usize::try_from(index.as_u64().unwrap()).unwrap();
            stored += manifest["chunks"][index]["stored"].as_u64().unwrap();
        }
    }
    assert!(raw > 90_000_000);
    assert!(stored * 100 <= raw * 67, "{stored} of {raw}");
}

fn check_files(bed: &Testbed, files: &BTreeMap<String, Vec<u8>>) {
    for node in NODES {
        let sums = bed.read(
            node,
            &[
                "sh",
                "-c",
                &format!("cd {MODEL_DIR} && find . -type f -exec sha256sum {{}} +"),
            ],
        );
        let found: BTreeMap<&str, &str> = sums
            .lines()
            .map(|line| line.split_once("  ./").unwrap())
            .map(|(sum, path)| (path, sum))
            .collect();
        assert_eq!(found.len(), files.len(), "{node}: {found:?}");
        for (path, bytes) in files {
            assert_eq!(
                found[path.as_str()],
                bundle::digest::Sha256::of(bytes).to_string(),
                "{node}: {path}"
            );
        }
    }
}

/// The flags of the reference deployment, as dockerd has understood them.
fn check_containers(bed: &Testbed, image: &str, id: &str) {
    for (rank, node) in NODES.into_iter().enumerate() {
        assert_eq!(
            bed.read(
                node,
                &["docker", "image", "inspect", "--format", "{{.Id}}", image]
            )
            .trim(),
            id
        );
        let container = inspect(bed, node);
        let host = &container["HostConfig"];
        assert_eq!(container["Image"], id);
        assert_eq!(container["State"]["Running"], true);
        assert_eq!(host["NetworkMode"], "host");
        assert_eq!(host["ShmSize"], 10_995_116_277_u64);
        assert_eq!(host["RestartPolicy"]["Name"], "unless-stopped");
        assert_eq!(host["DeviceRequests"][0]["Count"], -1);
        // dockerd keeps them in no order.
        let mut binds: Vec<&str> = host["Binds"]
            .as_array()
            .unwrap()
            .iter()
            .map(|bind| bind.as_str().unwrap())
            .collect();
        binds.sort_unstable();
        let expected = [
            "/data/vllm_model:/model/:ro",
            "/data/vllm_model:/root/.cache/huggingface",
            "/var/lib/bundle/tiny/ray-token:/run/bundle-ray-token:ro",
        ];
        assert_eq!(binds, expected);
        assert_eq!(
            container["Config"]["Entrypoint"],
            serde_json::json!(["/bin/bash"])
        );
        let environment = container["Config"]["Env"].to_string();
        let address = format!("VLLM_HOST_IP=10.77.0.{}", 11 + rank);
        for variable in [
            &address,
            "GLOO_SOCKET_IFNAME=",
            "NCCL_SOCKET_IFNAME=",
            "HF_HUB_OFFLINE=1",
        ] {
            assert!(
                environment.contains(variable),
                "{node}: {variable} in {environment}"
            );
        }
    }
    let head = inspect(bed, "n1")["Config"]["Cmd"].to_string();
    for part in [
        "ray start --block --head --port=6379",
        "/model/tiny",
        "\"--tensor-parallel-size\",\"4\"",
        "\"--pipeline-parallel-size\",\"4\"",
        "--dtype=float16",
    ] {
        assert!(head.contains(part), "{part} in {head}");
    }
    let worker = inspect(bed, "n3")["Config"]["Cmd"].to_string();
    assert!(
        worker.contains("ray start --block --address=10.77.0.11:6379"),
        "{worker}"
    );
}

fn check_ray(bed: &Testbed) {
    let status = bed.read("n2", &["docker", "exec", CONTAINER, "ray", "status"]);
    let nodes = status
        .lines()
        .filter(|line| line.contains(" node_"))
        .count();
    assert_eq!(nodes, 4, "{status}");
    assert!(status.contains("16.0 GPU"), "{status}");
}

/// One completion from outside the cluster.
fn check_answer(bed: &Testbed) {
    let request = r#"{"model": "/model/tiny", "prompt": "Hello", "max_tokens": 4}"#;
    let answer = bed.read(
        "origin",
        &[
            "curl",
            "-sf",
            "-H",
            "Content-Type: application/json",
            "-d",
            request,
            "http://10.77.0.11:8000/v1/completions",
        ],
    );
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert!(answer["choices"][0]["text"].is_string(), "{answer}");
}

/// 32 attention heads on three GPUs are refused.
fn check_refusal(bed: &Testbed, carried: &Path, verb: &str) {
    let hosts = fs::read_to_string(bed.variable("TESTBED_HOSTS")).unwrap();
    let three = hosts
        .lines()
        .filter(|line| line.starts_with("10."))
        .map(|line| format!("{line} gpus=3\n"));
    fs::write(
        carried.with_extension("three"),
        three.collect::<Vec<_>>().concat(),
    )
    .unwrap();
    let line = format!(
        "cd {} && ./bundle {verb} --hosts ../usb.three --known-hosts {}",
        carried.display(),
        bed.variable("TESTBED_KNOWN_HOSTS")
    );
    let refused = bed.exec("origin", &["sh", "-c", &line]);
    let remarks = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(2), "{remarks}");
    assert!(
        remarks.contains("32 attention heads are not divisible by tensor_parallel 3"),
        "{remarks}"
    );
}

/// The media are gone: the nodes give a fifth one the model and the image.
fn add_a_node_without_media(bed: &Testbed, carried: &Path, image: &str, id: &str) {
    let gone = carried.join("gone");
    fs::create_dir(&gone).unwrap();
    for entry in fs::read_dir(carried).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "tar") {
            fs::rename(&path, gone.join(path.file_name().unwrap())).unwrap();
        }
    }
    bed.tool(&["add"]);
    let output = bundle(bed, carried, "install --from-nodes --no-start");
    let said = text(&output);
    assert!(said.contains("tiny is in place on 5 nodes"), "{said}");
    let remarks = String::from_utf8_lossy(&output.stderr);
    assert!(remarks.contains("to 1 of 5 nodes"), "{remarks}");
    let inspect = ["docker", "image", "inspect", "--format", "{{.Id}}", image];
    assert_eq!(bed.read("n5", &inspect).trim(), id);
    let sums = format!("find {MODEL_DIR} -type f -exec sha256sum {{}} + | sort");
    let sum = |node| bed.read(node, &["sh", "-c", &sums]);
    assert_eq!(sum("n5"), sum("n1"));
    // The cluster of four must not go on beside a fifth node that is not part of it.
    for node in NODES {
        assert_eq!(bed.read(node, &["docker", "ps", "--all", "--quiet"]), "");
    }
}

#[test]
#[ignore = "needs root and the test bed: make test"]
fn four_nodes_from_hub_to_completion() {
    let bed = Testbed::up("end-to-end", &["4"]);
    let image = bed.tool(&["image"]).trim().to_owned();
    let (hub, files) = hub();
    let work = tempfile::tempdir().unwrap();

    pack(&bed, work.path(), &image, &hub.url());
    let carried = work.path().join("usb");
    fs::rename(work.path().join("tiny.bundle"), &carried).unwrap();
    check_size(&carried);
    text(
        &Command::new("sha256sum")
            .args(["--quiet", "-c", "SHA256SUMS"])
            .current_dir(&carried)
            .output()
            .unwrap(),
    );
    text(
        &Command::new(carried.join("bundle"))
            .arg("verify")
            .current_dir(&carried)
            .output()
            .unwrap(),
    );

    check_refusal(&bed, &carried, "install");
    for node in NODES {
        assert_eq!(bed.read(node, &["ls", "/data"]), "");
    }
    let said = text(&bundle(&bed, &carried, "install"));
    assert!(said.contains("answers at http://10.77.0.11:8000"), "{said}");
    check_files(&bed, &files);
    let id = Command::new("docker")
        .args(["image", "inspect", "--format", "{{.Id}}", &image])
        .env("DOCKER_HOST", bed.variable("DOCKER_HOST"))
        .output()
        .unwrap();
    check_containers(&bed, &image, text(&id).trim());
    check_ray(&bed);
    check_answer(&bed);

    let started =
        |bed: &Testbed| NODES.map(|node| inspect(bed, node)["State"]["StartedAt"].to_string());
    let before = started(&bed);
    check_refusal(&bed, &carried, "restart");
    let again = bundle(&bed, &carried, "install");
    text(&again);
    let remarks = String::from_utf8_lossy(&again.stderr);
    assert!(remarks.contains("nothing to send"), "{remarks}");
    assert_eq!(started(&bed), before);

    let status = text(&bundle(&bed, &carried, "status --json"));
    let status: Value = serde_json::from_str(&status).unwrap();
    assert_eq!(status["nodes"].as_array().unwrap().len(), 4);
    assert_eq!(status["endpoint"], "http://10.77.0.11:8000");
    let logs = text(&bundle(&bed, &carried, "logs --tail 1000"));
    assert!(
        logs.contains("10.77.0.11  bundle: Ray has 4 of 4 nodes, 16 of 16 GPUs"),
        "{logs}"
    );
    text(&bundle(&bed, &carried, "down"));
    for node in NODES {
        assert_eq!(bed.read(node, &["docker", "ps", "--all", "--quiet"]), "");
        assert_eq!(bed.read(node, &["sh", "-c", "pgrep bundle || true"]), "");
    }
    let commands = text(&bundle(&bed, &carried, "up --dry-run"));
    let by_hand: Vec<&str> = commands
        .lines()
        .filter(|line| line.starts_with("docker run --detach"))
        .collect();
    assert_eq!(by_hand.len(), 4, "{commands}");
    text(&bundle(&bed, &carried, "up"));
    check_answer(&bed);

    add_a_node_without_media(&bed, &carried, &image, text(&id).trim());
}
