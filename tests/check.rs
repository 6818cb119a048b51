//! `bundle check` on the test bed, with a different fault on every node: each is a cell with a
//! remedy, and none hides another.

#![cfg(test)]

#[path = "support/testbed.rs"]
mod testbed;

use serde_json::Value;
use testbed::Testbed;

const BUNDLE: &str = env!("CARGO_BIN_EXE_bundle");
const DATA_PORT: &str = "7777";

fn check(bed: &Testbed) -> (Value, Option<i32>) {
    let (hosts, known_hosts) = (
        bed.variable("TESTBED_HOSTS"),
        bed.variable("TESTBED_KNOWN_HOSTS"),
    );
    let line = format!(
        "cd / && exec {BUNDLE} check --json --data-port {DATA_PORT} --hosts {hosts} --known-hosts {known_hosts}"
    );
    let output = bed.exec("origin", &["sh", "-c", &line]);
    let report = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {output:?}"));
    (report, output.status.code())
}

#[test]
#[ignore = "needs root and the test bed"]
fn every_fault_is_shown_at_once() {
    let bed = Testbed::up("check", &["4", "--no-docker"]);
    let (healthy, code) = check(&bed);
    assert_eq!(code, Some(0), "{healthy:#}");
    for node in healthy["nodes"].as_array().unwrap() {
        let value = |column: &str| node["cells"][column]["value"].as_str().unwrap();
        assert_eq!(value("gpus"), "4 x Tesla T4");
        assert_eq!(value("interface"), "ens13f0");
        assert_eq!((value("host_key"), value("chain")), ("known", "yes"));
    }
    // Another program has the data port of the first, and listens there.
    let server = format!(
        "setsid python3 -m http.server {DATA_PORT} >/dev/null 2>&1 & until python3 -c 'import socket; socket.create_connection((\"127.0.0.1\", {DATA_PORT}))'; do sleep 0.1; done"
    );
    bed.read("n1", &["sh", "-c", &server]);
    bed.read("n2", &["sh", "-c", "kill $(cat /run/sshd.pid)"]);
    let firewall = format!(
        "nft add table inet f; nft add chain inet f i '{{ type filter hook input priority 0; }}'; nft add rule inet f i tcp dport {DATA_PORT} reject"
    );
    bed.read("n3", &["sh", "-c", &firewall]);
    let new_key = "rm /etc/ssh/ssh_host_ed25519_key*; ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key";
    bed.read("n4", &["sh", "-c", new_key]);
    bed.tool(&["restart-sshd", "n4"]);

    let (report, code) = check(&bed);
    assert_eq!(code, Some(12), "{report:#}");
    for (node, column, level, words) in [
        (
            0,
            "ports",
            "obstacle",
            "port 7777 for the data is taken by python3",
        ),
        (1, "reachable", "obstacle", "start sshd there"),
        (2, "chain", "remark", "Open the data port"),
        (3, "host_key", "obstacle", "its host key has changed"),
    ] {
        let node = &report["nodes"][node];
        assert_eq!(node["ready"], level == "remark", "{node:#}");
        let fault = &node["cells"][column]["fault"];
        assert_eq!(fault["level"], level, "{node:#}");
        assert!(
            fault["sentence"].as_str().unwrap().contains(words),
            "{fault}"
        );
    }
}
