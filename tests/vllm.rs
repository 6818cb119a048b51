//! A real vLLM on CPUs: a tiny Llama with random weights, split over two nodes of the test bed, with
//! Ray and with vLLM's own multi-node mode. `make test-vllm`.

#![cfg(test)]

#[path = "support/testbed.rs"]
mod testbed;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use testbed::{Testbed, text};

const BUNDLE: &str = env!("CARGO_BIN_EXE_bundle");

/// What an operator writes for a CPU image without a C++ compiler; the two nodes share every layer.
fn spec(executor: &str) -> String {
    format!(
        "name = \"tiny\"\n[image]\nref = \"bundle-test/vllm-cpu:1\"\n[[model]]\nrepo = \"test/tiny\"\npath = \"/data/models/tiny\"\n\
         [cluster]\nexecutor = \"{executor}\"\ngpus = \"none\"\ntensor_parallel = 2\n\
         pipeline_parallel = 1\nserve_args = [\"--enforce-eager\", \"--max-model-len\", \"256\"]\n\
         env = {{ VLLM_CPU_KVCACHE_SPACE = \"1\", TORCHDYNAMO_DISABLE = \"1\" }}\n"
    )
}

fn pack(work: &Path, executor: &str, archive: &str) {
    fs::write(work.join("bundle.toml"), spec(executor)).unwrap();
    let packed = Command::new(BUNDLE)
        .args(["pack", "--model-dir", "model", "--image-tar", archive])
        .args(["--output", executor])
        .current_dir(work)
        .output()
        .unwrap();
    text(&packed);
}

/// What a person would type on the origin.
fn bundle(bed: &Testbed, work: &Path, args: &str) -> Output {
    let (hosts, known_hosts) = (
        bed.variable("TESTBED_HOSTS"),
        bed.variable("TESTBED_KNOWN_HOSTS"),
    );
    let line = format!(
        "cd {} && exec {BUNDLE} {args} --hosts {hosts} --known-hosts {known_hosts}",
        work.display()
    );
    bed.exec("origin", &["sh", "-c", &line])
}

/// The text of a completion, asked from outside the cluster; the same each time.
fn complete(bed: &Testbed) -> String {
    let request =
        r#"{"model": "/model/tiny", "prompt": "Hello", "max_tokens": 8, "temperature": 0}"#;
    let url = "http://10.77.0.11:8000/v1/completions";
    let json = "Content-Type: application/json";
    let answer = bed.read("origin", &["curl", "-sf", "-H", json, "-d", request, url]);
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(answer["usage"]["completion_tokens"], 8, "{answer}");
    answer["choices"][0]["text"].as_str().unwrap().to_owned()
}

/// Packs, installs, asks, and stops.
fn serve(bed: &Testbed, work: &Path, executor: &str, archive: &str) -> String {
    pack(work, executor, archive);
    let said = text(&bundle(
        bed,
        work,
        &format!("install {executor} --timeout 15"),
    ));
    assert!(said.contains("answers at http://10.77.0.11:8000"), "{said}");
    let told = complete(bed);
    let status = text(&bundle(bed, work, "status --json"));
    let status: Value = serde_json::from_str(&status).unwrap();
    for node in status["nodes"].as_array().unwrap() {
        assert_eq!(node["container"]["status"], "running", "{status}");
    }
    let logs = text(&bundle(bed, work, "logs --tail 5000"));
    let ranks = |node: &str| {
        logs.lines()
            .any(|line| line.starts_with(node) && line.contains("world_size=2"))
    };
    assert!(ranks("10.77.0.11") || ranks("10.77.0.12"), "{logs}");
    text(&bundle(bed, work, "down"));
    told
}

#[test]
#[ignore = "needs root, the test bed and 20 GB: make test-vllm"]
fn a_model_split_over_two_nodes_answers_the_same_with_ray_and_without() {
    let bed = Testbed::up("vllm", &["2"]);
    let archive = bed.tool(&["image", "vllm"]).trim().to_owned();
    let work = tempfile::tempdir().unwrap();
    let model = work.path().join("model");
    let maker = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/testbed/vllm/tiny_llama");
    text(&Command::new(maker).arg(&model).output().unwrap());
    let with_ray = serve(&bed, work.path(), "ray", &archive);
    let without = serve(&bed, work.path(), "mp", &archive);
    assert_eq!(with_ray, without);
}
