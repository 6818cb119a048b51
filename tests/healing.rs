//! Clusters on the test bed, with a real Ray and with vLLM's own ranks, that serve again by themselves
//! whatever is killed.

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
const NODES: [&str; 4] = ["n1", "n2", "n3", "n4"];

fn pack(bed: &Testbed, work: &Path, variant: &str, edition: &str) {
    let image = bed.tool(&["image", variant]).trim().to_owned();
    let model = work.join("model");
    fs::create_dir(&model).unwrap();
    fs::write(model.join("config.json"), "{\"model_type\": \"none\"}").unwrap();
    fs::write(model.join("model.safetensors"), [7; 5000]).unwrap();
    fs::write(model.join("edition"), edition).unwrap();
    let spec = format!(
        "name = \"heal\"\n[image]\nref = \"{image}\"\n[[model]]\nrepo = \"o/heal\"\npath = \"/data/m/heal\"\n"
    );
    fs::write(work.join("bundle.toml"), spec).unwrap();
    let packed = Command::new(BUNDLE)
        .args(["pack", "--image-daemon", "--model-dir", "model"])
        .current_dir(work)
        .env("DOCKER_HOST", bed.variable("DOCKER_HOST"))
        .output()
        .unwrap();
    text(&packed);
}

fn bundle(bed: &Testbed, work: &Path, verb: &str) -> Output {
    bundle_on(bed, work, verb, bed.variable("TESTBED_HOSTS"))
}

fn bundle_on(bed: &Testbed, work: &Path, verb: &str, hosts: &str) -> Output {
    let known_hosts = bed.variable("TESTBED_KNOWN_HOSTS");
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

/// Breaks something, and waits until it is noticed and mended.
fn heals_after(bed: &Testbed, what: &str, happen: impl Fn()) {
    let began = Instant::now();
    happen();
    wait(bed, false, what);
    wait(bed, true, what);
    eprintln!(
        "after {what}, it served again in {} s",
        began.elapsed().as_secs()
    );
}

/// A wrong interface and a firewall are named before anything starts.
fn check_network(bed: &Testbed, work: &Path) {
    let refused = |hosts: &str, expected: &str| {
        let up = bundle_on(bed, work, "up", hosts);
        let remarks = String::from_utf8_lossy(&up.stderr);
        assert_eq!(up.status.code(), Some(1), "{remarks}");
        assert!(remarks.contains(expected), "{remarks}");
    };
    let hosts = bed.variable("TESTBED_HOSTS");
    let wrong = fs::read_to_string(hosts)
        .unwrap()
        .replace("10.77.0.13 ", "10.77.0.13 iface=lo ");
    fs::write(work.join("wrong.txt"), wrong).unwrap();
    refused(
        "wrong.txt",
        "10.77.0.13: interface lo leads to no other node",
    );
    let firewall = "nft add table inet f
        nft add chain inet f i '{ type filter hook input priority 0; }'
        nft add rule inet f i ip saddr 10.77.0.12 tcp flags syn / syn,ack drop";
    bed.read("n3", &["sh", "-c", firewall]);
    refused(hosts, "10.77.0.12 (ens13f0) cannot reach 10.77.0.13");
    bed.read("n3", &["nft", "delete", "table", "inet", "f"]);
}

/// Nothing of a start is left on any node.
fn check_gone(bed: &Testbed) {
    for node in NODES {
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
        let files = bed.read(node, &["find", "/var/lib/bundle", "-name", "ray-token*"]);
        assert_eq!(files, "", "{node}");
    }
}

/// A worker that stays away shows in `status`, and `up` brings it back.
fn check_loss_shows(bed: &Testbed, work: &Path) {
    // `docker kill` counts as the operator's wish: no restart policy acts.
    bed.read("n2", &["docker", "kill", CONTAINER]);
    let began = Instant::now();
    let status = bundle(bed, work, "status");
    eprintln!("`status` took {} s", began.elapsed().as_secs());
    // 3 while the API still answers.
    assert!(matches!(status.status.code(), Some(1 | 3)), "{status:?}");
    let table = String::from_utf8_lossy(&status.stdout);
    let is_row = |line: &str| line.starts_with("10.77.0.12 ") && line.contains("exited, code 137");
    assert!(table.lines().any(is_row), "{table}");
    text(&bundle(bed, work, "up"));
    assert!(serves(bed));
}

/// `logs` has every node; `support` has no secret.
fn check_reports(bed: &Testbed, work: &Path, has_token: bool) {
    let logs = text(&bundle(bed, work, "logs --tail 5"));
    for rank in 0..NODES.len() {
        let node = format!("10.77.0.{}  ", 11 + rank);
        assert!(logs.lines().any(|line| line.starts_with(&node)), "{logs}");
    }
    text(&bundle(bed, work, "support report"));
    let report = work.join("report");
    let found = |secret: &str| {
        let mut grep = Command::new("grep");
        grep.args(["--recursive", "--quiet", "--fixed-strings", secret]);
        grep.arg(&report).status().unwrap().success()
    };
    assert!(found("bundle: "), "the logs are not in the report");
    if has_token {
        let token = bed.read("n1", &["cat", "/var/lib/bundle/heal/ray-token"]);
        assert!(!token.is_empty() && !found(&token));
    }
}

/// Everything that a server room does to one node at a time.
fn heal(variant: &str) {
    let bed = Testbed::up(&format!("healing-{variant}"), &["4"]);
    let work = tempfile::tempdir().unwrap();
    pack(&bed, work.path(), variant, "1");
    text(&bundle(&bed, work.path(), "install"));
    assert!(serves(&bed));
    check_reports(&bed, work.path(), variant == "ray");
    check_loss_shows(&bed, work.path());

    // The processes, as after an error: `docker kill` would count as the operator's wish.
    let kill = format!("kill -9 $(docker inspect --format '{{{{.State.Pid}}}}' {CONTAINER})");
    let kill_on = |node| drop(bed.read(node, &["sh", "-c", &kill]));
    heals_after(&bed, "the end of a worker", || kill_on("n3"));
    heals_after(&bed, "the end of the head", || kill_on("n1"));
    heals_after(&bed, "a restart of dockerd", || {
        bed.tool(&["restart-docker", "n2"]);
    });
    heals_after(&bed, "a reboot of a worker", || {
        bed.tool(&["reboot", "n4"]);
    });
    heals_after(&bed, "a reboot of the head", || {
        bed.tool(&["reboot", "n1"]);
    });

    text(&bundle(&bed, work.path(), "down"));
    check_gone(&bed);
    let status = bundle(&bed, work.path(), "status");
    let remarks = String::from_utf8_lossy(&status.stderr);
    assert!(remarks.contains("is not running; `bundle up`"), "{remarks}");
    check_network(&bed, work.path());
    check_gone(&bed);
}

#[test]
#[ignore = "needs root and the test bed: make test-long"]
fn with_ray_it_serves_again_by_itself_whatever_is_killed() {
    heal("ray");
}

#[test]
#[ignore = "needs root and the test bed: make test-long"]
fn without_ray_all_ranks_start_over_together() {
    heal("noray");
}

/// Nodes without a dockerd run their containers with podman, by the same verbs.
#[test]
#[ignore = "needs root and the test bed: make test-long"]
fn with_podman_ranks_start_over_together() {
    let bed = Testbed::up("healing-podman", &["2"]);
    let work = tempfile::tempdir().unwrap();
    pack(&bed, work.path(), "noray", "1");
    let service = format!("{}/node/service", bed.variable("TESTBED_DIR"));
    for node in ["n1", "n2"] {
        bed.read(node, &[&service, "stop", "docker"]);
    }
    let install = bundle(&bed, work.path(), "install");
    text(&install);
    let remarks = String::from_utf8_lossy(&install.stderr);
    assert!(remarks.contains("podman is taken"), "{remarks}");
    assert!(remarks.contains("podman-restart.service"), "{remarks}");
    assert!(serves(&bed));
    let kill = format!("kill -9 $(podman inspect --format '{{{{.State.Pid}}}}' {CONTAINER})");
    heals_after(&bed, "the end of a worker", || {
        bed.read("n2", &["sh", "-c", &kill]);
    });
    let status = text(&bundle(&bed, work.path(), "status"));
    let is_row = |line: &str| line.starts_with("10.77.0.12 ") && line.contains("running");
    assert!(status.lines().any(is_row), "{status}");
    text(&bundle(&bed, work.path(), "down"));
    for node in ["n1", "n2"] {
        assert_eq!(bed.read(node, &["podman", "ps", "--all", "--quiet"]), "");
    }
    text(&bundle(&bed, work.path(), "up"));
    assert!(serves(&bed));
}

/// What a node's model directory holds.
fn content(bed: &Testbed, node: &str) -> String {
    bed.read(node, &["cat", "/data/m/heal/edition"])
}

/// A node goes down while all of them switch to another version. Wherever that strikes it, nothing
/// may run on nodes that have different versions.
#[test]
#[ignore = "needs root and the test bed: make test-long"]
fn a_node_that_reboots_while_all_switch_never_serves_the_other_version() {
    let bed = Testbed::up("healing-switch", &["4"]);
    let work = tempfile::tempdir().unwrap();
    pack(&bed, work.path(), "noray", "1");
    text(&bundle(&bed, work.path(), "install"));
    assert!(serves(&bed));
    fs::remove_dir_all(work.path().join("heal.bundle")).unwrap();
    fs::remove_dir_all(work.path().join("model")).unwrap();
    pack(&bed, work.path(), "noray", "2");

    let prepared =
        "until grep -Eq '\"prepared\": *\\{' /var/lib/bundle/heal/state.json; do sleep 0.01; done";
    let output = thread::scope(|scope| {
        let install = scope.spawn(|| bundle(&bed, work.path(), "install"));
        bed.read("n3", &["timeout", "120", "sh", "-c", prepared]);
        bed.tool(&["reboot", "n3"]);
        install.join().unwrap()
    });
    assert!(!output.status.success());
    let contents = NODES.map(|node| content(&bed, node));
    let runs = |node: &&str| !bed.read(node, &["docker", "ps", "--quiet"]).is_empty();
    let running: Vec<&str> = NODES.into_iter().filter(runs).collect();
    let differ = contents.iter().any(|content| *content != contents[0]);
    assert!(
        !differ || running.is_empty(),
        "{contents:?}: {running:?} run"
    );
    text(&bundle(&bed, work.path(), "install"));
    assert_eq!(NODES.map(|node| content(&bed, node)), ["2"; 4]);
    assert!(serves(&bed));
}
