//! Firewalls between the nodes, on the test bed: the chain goes around what is blocked, and where
//! nothing but ssh is open, the same frames go through that.

#![cfg(test)]

#[path = "support/testbed.rs"]
mod testbed;
#[path = "support/weights.rs"]
mod weights;

use std::fs;
use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};

use testbed::{Testbed, text};

const BUNDLE: &str = env!("CARGO_BIN_EXE_bundle");
const NODES: [&str; 4] = ["n1", "n2", "n3", "n4"];
const FILE: &str = "/data/m/noise/model.safetensors";

/// Bytes of the model: noise, so that what is sent is as long.
const SIZE: usize = 80 << 20;

struct Stage {
    bed: Testbed,
    work: tempfile::TempDir,
    sha256: String,
}

impl Stage {
    /// Each test has nodes of its own, as tests run at the same time.
    fn set(name: &str) -> Self {
        let bed = Testbed::up(name, &["4", "--no-docker"]);
        let work = tempfile::tempdir().unwrap();
        let noise = weights::Random(12).bytes(SIZE);
        let model = work.path().join("model");
        fs::create_dir(&model).unwrap();
        fs::write(model.join("model.safetensors"), &noise).unwrap();
        let spec = "name = \"noise\"\n[[model]]\nrepo = \"o/noise\"\npath = \"/data/m/noise\"\n";
        fs::write(work.path().join("bundle.toml"), spec).unwrap();
        let packed = Command::new(BUNDLE)
            .args(["pack", "--model-dir", "model"])
            .current_dir(work.path())
            .output();
        text(&packed.unwrap());
        let stage = Self {
            bed,
            work,
            sha256: bundle::digest::Sha256::of(&noise).to_string(),
        };
        // Brings the executable to the nodes.
        text(&stage.bundle("check"));
        stage
    }

    fn bundle(&self, verb: &str) -> Output {
        let line = format!(
            "cd {} && exec {BUNDLE} {verb} --hosts {} --known-hosts {}",
            self.work.path().display(),
            self.bed.variable("TESTBED_HOSTS"),
            self.bed.variable("TESTBED_KNOWN_HOSTS")
        );
        self.bed.exec("origin", &["sh", "-c", &line])
    }

    /// Lets only ssh and the loopback interface in; whatever comes from other addresses than
    /// `from` is free.
    fn close(&self, node: &str, from: &str) {
        let rules = format!(
            "nft flush ruleset; nft add table inet f
             nft add chain inet f i '{{ type filter hook input priority 0; }}'
             nft add rule inet f i iif lo accept
             nft add rule inet f i ct state established accept
             nft add rule inet f i tcp dport 22 accept
             nft add rule inet f i ip saddr {from} tcp flags syn drop"
        );
        self.bed.read(node, &["sh", "-c", &rules]);
    }

    /// Removes the model, so that the next install brings it again.
    fn lose_it(&self, nodes: &[&str]) {
        for node in nodes {
            self.bed.read(node, &["rm", FILE]);
        }
    }

    /// Everything is there, and nothing of ours runs or listens any more. Returns what was said.
    fn check(&self, output: &Output) -> String {
        text(output);
        for node in NODES {
            let sum = self.bed.read(node, &["sha256sum", FILE]);
            assert!(sum.starts_with(&self.sha256), "{node}: {sum}");
            self.check_nothing_runs(node);
        }
        said(output)
    }

    fn check_nothing_runs(&self, node: &str) {
        let deadline = Instant::now() + Duration::from_mins(1);
        while self.bed.exec(node, &["pgrep", "bundle"]).status.success() {
            assert!(Instant::now() < deadline, "{node} still runs something");
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// Until node 4 has taken 20 MB.
    fn wait_for_data(&self) {
        let received = || -> u64 {
            let path = "/sys/class/net/ens13f0/statistics/rx_bytes";
            self.bed.read("n4", &["cat", path]).trim().parse().unwrap()
        };
        let (before, deadline) = (received(), Instant::now() + Duration::from_mins(1));
        while received() < before + 20_000_000 {
            assert!(Instant::now() < deadline, "no data came");
            thread::sleep(Duration::from_millis(100));
        }
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
#[ignore = "needs root and the test bed: make test"]
fn data_takes_another_way_where_ports_are_closed() {
    let stage = Stage::set("closed-ports");
    let install = "install --no-start";

    // Nobody reaches any data port, the origin no more than the nodes.
    for node in NODES {
        stage.close(node, "10.77.0.0/24");
    }
    let check = stage.bundle("check --json");
    let report: serde_json::Value = serde_json::from_str(&text(&check)).unwrap();
    for node in report["nodes"].as_array().unwrap() {
        let chain = &node["cells"]["chain"];
        assert_eq!(chain["value"], "ssh", "{chain}");
        assert_eq!(chain["fault"]["level"], "remark", "{chain}");
    }
    let remarks = stage.check(&stage.bundle(install));
    assert!(
        remarks
            .contains("the data port of 10.77.0.11, 10.77.0.12, 10.77.0.13 and 1 more is blocked")
            && remarks.contains("through ssh, which is slower"),
        "{remarks}"
    );

    // A node that has everything feeds one that it cannot reach.
    stage.lose_it(&["n3"]);
    let remarks = stage.check(&stage.bundle("install --from-nodes --no-start"));
    assert!(
        remarks.contains("the data port of 10.77.0.13 is blocked"),
        "{remarks}"
    );

    // Only the origin gets through: nothing goes through a node's sshd twice.
    for (node, last) in NODES.into_iter().zip(11..) {
        let others = (11..15).filter(|&other| other != last);
        let others: Vec<String> = others.map(|other| format!("10.77.0.{other}")).collect();
        stage.close(node, &format!("{{ {} }}", others.join(", ")));
    }
    stage.lose_it(&NODES);
    let remarks = stage.check(&stage.bundle(install));
    assert!(
        remarks.contains("the data port of 10.77.0.12, 10.77.0.13, 10.77.0.14 is blocked"),
        "{remarks}"
    );

    // One pair: the chain goes around it.
    for node in NODES {
        stage.bed.read(node, &["nft", "flush", "ruleset"]);
    }
    stage.close("n2", "10.77.0.11");
    stage.lose_it(&NODES);
    let remarks = stage.check(&stage.bundle(install));
    assert!(!remarks.contains("ssh"), "{remarks}");
}

#[test]
#[ignore = "needs root and the test bed: make test-long"]
fn a_node_dies_while_data_goes_through_ssh() {
    let stage = Stage::set("dead-tunnel");
    for node in NODES {
        stage.close(node, "10.77.0.0/24");
        stage.bed.tool(&["rate", node, "40mbit"]);
    }
    let output = thread::scope(|scope| {
        let install = scope.spawn(|| stage.bundle("install --no-start"));
        stage.wait_for_data();
        stage.bed.tool(&["link", "n2", "down"]);
        install.join().unwrap()
    });
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    assert!(said(&output).contains("10.77.0.12"), "{}", said(&output));
    for node in NODES {
        assert!(!stage.bed.exec(node, &["test", "-e", FILE]).status.success());
        stage.check_nothing_runs(node);
    }
    stage.bed.tool(&["link", "n2", "up"]);
    let remarks = stage.check(&stage.bundle("install --no-start"));
    assert!(remarks.contains("to 1 of 4 nodes"), "{remarks}");
}
