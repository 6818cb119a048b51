//! What somebody outside needs to know to help: facts, commands, status and logs as texts, without
//! secrets.

use std::collections::BTreeMap;

use serde_json::Value;

use super::causes::LogLine;
use super::container;
use super::failure::read_log;
use super::node::Node;
use super::redact::Redactor;
use crate::bundle::manifest::Manifest;
use crate::error::Result;
use crate::ssh::fan_out;

/// Log lines of each node.
const LOG_LINES: u32 = 20_000;

/// What is run on each node, and the file that takes its output.
const COMMANDS: [(&str, &[&str]); 6] = [
    ("uname.txt", &["uname", "-a"]),
    ("os-release.txt", &["cat", "/etc/os-release"]),
    ("nvidia-smi.txt", &["nvidia-smi"]),
    ("disks.txt", &["df", "-h"]),
    ("memory.txt", &["free", "-m"]),
    ("addresses.txt", &["ip", "address"]),
];

/// Texts by file name; directories are those of nodes.
pub type Files = BTreeMap<String, String>;

/// What the nodes tell. A part that cannot be had says why in its place.
#[must_use]
pub fn of_nodes(nodes: &[Node], manifest: &Manifest) -> Files {
    let name = container::name(&manifest.name);
    let files = fan_out(nodes, |node| of_node(node, &name));
    files.into_iter().flatten().collect()
}

fn of_node(node: &Node, container: &str) -> Files {
    let mut files = Files::new();
    let mut add = |file: &str, text: Result<String>| {
        let text = text.unwrap_or_else(|error| format!("{error}\n"));
        files.insert(format!("{}/{file}", node.name), text);
    };
    for (file, argv) in COMMANDS {
        let output = node.exec(argv, "");
        add(file, output.map(|exited| exited.stdout + &exited.stderr));
    }
    let mut runtime = |file: &str, args: &[&str]| {
        let args: Vec<String> = args.iter().map(ToString::to_string).collect();
        let output = node.runtime(&args);
        add(file, output.map(|exited| exited.stdout + &exited.stderr));
    };
    runtime("runtime.txt", &["version"]);
    runtime("containers.txt", &["ps", "--all"]);
    runtime("container.json", &["container", "inspect", container]);
    runtime("ray.txt", &["exec", container, "ray", "status"]);
    let log = read_log(node, container, LOG_LINES);
    add("log.txt", log.map(|lines| lines.iter().map(line).collect()));
    files
}

fn line(line: &LogLine) -> String {
    format!("{} {}\n", line.time, line.text)
}

/// The manifest without its long lists of files and chunks.
#[must_use]
pub fn summary(manifest: &Manifest) -> Value {
    let mut value = serde_json::to_value(manifest).unwrap_or_default();
    for list in ["chunks", "volumes"] {
        value[list] = Value::from(value[list].as_array().map_or(0, Vec::len));
    }
    for part in ["models", "images"] {
        for item in value[part].as_array_mut().into_iter().flatten() {
            item["files"] = Value::from(item["files"].as_array().map_or(0, Vec::len));
        }
    }
    value
}

/// Removes secrets from all texts: those of the spec, of the containers and of this environment
/// wherever they stand, others by their names and forms.
#[must_use]
pub fn redact(
    files: Files,
    manifest: &Manifest,
    environment: impl Iterator<Item = (String, String)>,
) -> Files {
    let mut redactor = Redactor::default();
    for (name, value) in manifest.cluster.env.clone().into_iter().chain(environment) {
        redactor.learn(&name, &value);
    }
    for (name, value) in files
        .iter()
        .filter(|(name, _)| name.ends_with("/container.json"))
        .flat_map(|(_, text)| variables(text))
    {
        redactor.learn(&name, &value);
    }
    for pair in manifest.cluster.serve_args.windows(2) {
        redactor.learn(&pair[0], &pair[1]);
    }
    files
        .into_iter()
        .map(|(name, text)| (name, redactor.clean(&text)))
        .collect()
}

/// The environment of a container, from what `inspect` prints.
fn variables(json: &str) -> Vec<(String, String)> {
    let found: Value = serde_json::from_str(json).unwrap_or_default();
    let pairs = found[0]["Config"]["Env"].as_array().into_iter().flatten();
    pairs
        .filter_map(|pair| pair.as_str()?.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::cluster_spec::ClusterSpec;
    use crate::cluster::deployment::tests::manifest;

    #[test]
    fn planted_secrets_are_in_no_file() {
        let cluster: ClusterSpec = toml::from_str(
            "serve_args = [\"--api-key\", \"planted-argument\"]\nenv = { MY_PASSWORD = \"planted-variable\" }",
        )
        .unwrap();
        let manifest = manifest(cluster, true);
        let inspect = r#"[{"Config": {"Env": ["PATH=/bin", "HF_TOKEN=planted-inspect"]}}]"#;
        let log =
            "said planted-variable and planted-inspect and planted-argument and planted-origin";
        let files = [
            ("n1/container.json", inspect),
            ("n1/log.txt", log),
            ("bundle.json", &summary(&manifest).to_string()),
        ];
        let files = files.map(|(name, text)| (name.to_owned(), text.to_owned()));
        let environment = [("SECRET_KEY".to_owned(), "planted-origin".to_owned())];
        let cleaned = redact(
            files.into_iter().collect(),
            &manifest,
            environment.into_iter(),
        );
        assert_eq!(cleaned.len(), 3);
        for (name, text) in cleaned {
            assert!(!text.contains("planted"), "{name}: {text}");
        }
    }
}
