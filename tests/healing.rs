//! A cluster with a real Ray on the test bed that serves again by itself, whatever is killed.

#![cfg(test)]

#[path = "support/testbed.rs"]
mod testbed;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};

use testbed::{Testbed, text};

const BUNDLE: &str = env!("CARGO_BIN_EXE_bundle");
const CONTAINER: &str = "bundle-heal";

fn pack(bed: &Testbed, work: &Path) {
    let image = bed.tool(&["image"]).trim().to_owned();
    let model = work.join("model");
    fs::create_dir(&model).unwrap();
    fs::write(model.join("config.json"), "{\"model_type\": \"none\"}").unwrap();
    fs::write(model.join("model.safetensors"), [7; 5000]).unwrap();
    let spec = format!(
        "name = \"heal\"\n[image]\nref = \"{image}\"\n[[model]]\nrepo = \"o/heal\"\npath = \"/data/m/heal\"\n"
    );
    fs::write(work.join("bundle.toml"), spec).unwrap();
    let packed = Command::new(BUNDLE)
        .args(["pack", "--model-dir", "model"])
        .current_dir(work)
        .env("DOCKER_HOST", bed.variable("DOCKER_HOST"))
        .output()
        .unwrap();
    text(&packed);
}

fn bundle(bed: &Testbed, work: &Path, verb: &str) -> Output {
    let (hosts, known_hosts) = (
        bed.variable("TESTBED_HOSTS"),
        bed.variable("TESTBED_KNOWN_HOSTS"),
    );
    let line = format!(
        "cd {} && exec {BUNDLE} {verb} --hosts {hosts} --known-hosts {known_hosts}",
        work.display()
    );
    bed.exec("origin", &["sh", "-c", &line])
}

/// Whether the stand-in answers; it does only while it sees the whole cluster.
fn serves(bed: &Testbed) -> bool {
    let request = r#"{"model": "/model/heal", "prompt": "Hello", "max_tokens": 2}"#;
    let url = "http://10.77.0.11:8000/v1/completions";
    let json = "Content-Type: application/json";
    bed.exec(
        "origin",
        &["curl", "-sf", "-m", "5", "-H", json, "-d", request, url],
    )
    .status
    .success()
}

/// Waits until it answers, or no longer does.
fn wait(bed: &Testbed, serving: bool, after: &str) {
    let deadline = Instant::now() + Duration::from_mins(4);
    while serves(bed) != serving {
        assert!(
            Instant::now() < deadline,
            "after {after}, it does not {}",
            if serving { "serve" } else { "stop" }
        );
        thread::sleep(Duration::from_secs(1));
    }
}

#[test]
#[ignore = "needs root and the test bed: make test-long"]
fn it_serves_again_by_itself_whatever_is_killed() {
    let bed = Testbed::up("healing", &["4"]);
    let work = tempfile::tempdir().unwrap();
    pack(&bed, work.path());
    text(&bundle(&bed, work.path(), "install"));
    assert!(serves(&bed));

    // The processes, as after an error: `docker kill` would count as the operator's wish.
    let kill = format!("kill -9 $(docker inspect --format '{{{{.State.Pid}}}}' {CONTAINER})");
    bed.read("n3", &["sh", "-c", &kill]);
    wait(&bed, false, "the end of a worker");
    wait(&bed, true, "the end of a worker");

    bed.read("n1", &["sh", "-c", &kill]);
    wait(&bed, false, "the end of the head");
    wait(&bed, true, "the end of the head");

    bed.tool(&["restart-docker", "n2"]);
    wait(&bed, false, "a restart of dockerd");
    wait(&bed, true, "a restart of dockerd");

    text(&bundle(&bed, work.path(), "down"));
    for node in ["n1", "n2", "n3", "n4"] {
        assert_eq!(bed.read(node, &["docker", "ps", "--all", "--quiet"]), "");
        let left = bed.exec(
            node,
            &["pgrep", "-f", "ray start|raylet|vllm serve|bundle.* agent"],
        );
        assert!(
            !left.status.success(),
            "{node}: {}",
            String::from_utf8_lossy(&left.stdout)
        );
    }
}
