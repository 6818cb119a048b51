//! Deltas from end to end: packed by the executable from directories and archives, installed by real
//! agents into directories that stand for nodes.

#![cfg(test)]

#[path = "support/weights.rs"]
mod weights;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use bundle::bundle::manifest::Manifest;
use bundle::digest::Sha256;

const CHUNK: usize = 16 << 20;
const NODES: [&str; 2] = ["127.0.0.11", "127.0.0.12"];

/// A place with a model, image archives, bundles and nodes.
struct Stage(tempfile::TempDir);

impl Stage {
    fn new() -> Self {
        let stage = Self(tempfile::tempdir().unwrap());
        fs::create_dir(stage.path("model")).unwrap();
        stage.hosts(&NODES);
        let spec = "name = \"d\"\n[image]\nref = \"example/d:1\"\n\
                    [[model]]\nrepo = \"o/d\"\npath = \"/data/d\"\n";
        fs::write(stage.path("bundle.toml"), spec).unwrap();
        stage
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn hosts(&self, nodes: &[&str]) {
        fs::write(self.path("hosts.txt"), nodes.join("\n")).unwrap();
    }

    fn run(&self, line: &str) -> Output {
        Command::new(env!("CARGO_BIN_EXE_bundle"))
            .args(line.split_whitespace())
            .current_dir(self.0.path())
            .output()
            .unwrap()
    }

    fn succeed(&self, line: &str) -> String {
        let output = self.run(line);
        assert!(output.status.success(), "{line}: {}", said(&output));
        said(&output)
    }

    /// Packs the model and an image of these layers.
    fn pack(&self, name: &str, layers: &[Vec<u8>], more: &str) -> Manifest {
        fs::write(self.path("image.tar"), archive(layers)).unwrap();
        self.succeed(&format!(
            "pack --model-dir model --image-tar image.tar -o {name} {more}"
        ));
        Manifest::parse(&fs::read(self.path(name).join("bundle.json")).unwrap()).unwrap()
    }

    fn install(&self, bundles: &str) -> Output {
        self.run(&format!(
            "install {bundles} --hosts hosts.txt --rehearsal nodes --no-start"
        ))
    }

    /// The model and the layers are on all of these nodes.
    fn check(&self, nodes: &[&str], layers: &[Vec<u8>]) {
        for node in nodes {
            let node = self.path("nodes").join(node);
            for entry in fs::read_dir(self.path("model")).unwrap() {
                let path = entry.unwrap().path();
                let there = node.join("data/d").join(path.file_name().unwrap());
                assert!(
                    fs::read(there).unwrap() == fs::read(&path).unwrap(),
                    "{path:?}"
                );
            }
            for layer in layers {
                let blob = format!("var/lib/bundle/d/images/blobs/sha256/{}", Sha256::of(layer));
                assert!(fs::read(node.join(blob)).unwrap() == *layer);
            }
        }
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

/// A layer: a tar of one file of noise.
fn layer(seed: u64, len: usize) -> Vec<u8> {
    tar_of(&[("noise", &weights::Random(seed).bytes(len))])
}

fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, *bytes).unwrap();
    }
    builder.into_inner().unwrap()
}

/// What `docker save` writes.
fn archive(layers: &[Vec<u8>]) -> Vec<u8> {
    let diff_ids: Vec<String> = (layers.iter())
        .map(|layer| format!("sha256:{}", Sha256::of(layer)))
        .collect();
    let config = serde_json::json!({"architecture": "amd64", "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": diff_ids}});
    let names: Vec<String> = (0..layers.len())
        .map(|n| format!("{n}/layer.tar"))
        .collect();
    let manifest = serde_json::json!([{"Config": "config.json", "RepoTags": ["example/d:1"],
        "Layers": names}]);
    let (config, manifest) = (config.to_string(), manifest.to_string());
    let mut files: Vec<(&str, &[u8])> = (names.iter().zip(layers))
        .map(|(name, layer)| (name.as_str(), &layer[..]))
        .collect();
    files.push(("config.json", config.as_bytes()));
    files.push(("manifest.json", manifest.as_bytes()));
    tar_of(&files)
}

#[test]
fn a_new_image_on_the_same_model_carries_its_new_layers_only_and_so_on() {
    let stage = Stage::new();
    let weights = weights::Random(1).bytes(2 * CHUNK);
    fs::write(stage.path("model/model.safetensors"), weights).unwrap();
    fs::write(stage.path("model/config.json"), "{}").unwrap();
    let system = layer(2, CHUNK + 5000);
    let old = [system.clone(), layer(3, 700_000)];
    let new = [system.clone(), layer(4, 800_000)];
    stage.pack("v1", &old, "");
    let v2 = stage.pack("v2", &new, "--base v1/bundle.json");
    assert_eq!((v2.serial, v2.chunks.len()), (1, 7));
    // The new layer and the config.
    assert!(
        (800_000..810_000).contains(&v2.stored_size()),
        "{}",
        v2.stored_size()
    );

    let output = stage.install("v2");
    assert_eq!(output.status.code(), Some(10), "{}", said(&output));
    let text = said(&output);
    for node in NODES {
        assert!(text.contains(&format!("{node} lacks ")), "{text}");
    }
    assert!(text.contains("model.safetensors"), "{text}");
    assert!(text.contains("install d serial 0"), "{text}");

    assert!(stage.install("v1").status.success());
    let output = stage.install("v2");
    assert!(output.status.success(), "{}", said(&output));
    assert!(
        said(&output).contains("sending up to 0 MB to 2 of 2"),
        "{}",
        said(&output)
    );
    stage.check(&NODES, &new);

    // A delta of the delta: part of a file changes, and content moves to another name.
    let mut weights = fs::read(stage.path("model/model.safetensors")).unwrap();
    weights[CHUNK + 9] ^= 1;
    fs::write(stage.path("model/model.safetensors"), weights).unwrap();
    fs::rename(
        stage.path("model/config.json"),
        stage.path("model/moved.json"),
    )
    .unwrap();
    let v3 = stage.pack("v3", &new, "--base v2");
    assert_eq!(v3.serial, 2);
    let output = stage.install("v3");
    assert!(output.status.success(), "{}", said(&output));
    stage.check(&NODES, &new);

    // A node that joins gets all of it from all three bundles.
    let joined = "127.0.0.13";
    stage.hosts(&[joined]);
    assert_eq!(stage.install("v3 v2").status.code(), Some(10));
    let output = stage.install("v3 v1 v2");
    assert!(output.status.success(), "{}", said(&output));
    stage.check(&[joined], &new);

    // Or from the nodes, which have what the delta left out.
    for media in ["v1", "v2", "v3"] {
        fs::remove_dir_all(stage.path(media)).unwrap();
    }
    let late = "127.0.0.14";
    stage.hosts(&[NODES[0], late, joined]);
    let output = stage.install("--from-nodes");
    assert!(output.status.success(), "{}", said(&output));
    assert!(
        said(&output).contains("to 1 of 3 nodes"),
        "{}",
        said(&output)
    );
    stage.check(&[late], &new);
}

#[test]
fn what_reads_a_delta_says_what_its_base_has() {
    let stage = Stage::new();
    fs::write(stage.path("model/a.json"), "1".repeat(1000)).unwrap();
    let layers = [layer(1, 5000)];
    stage.pack("v1", &layers, "");
    fs::write(stage.path("model/b.json"), "2".repeat(1000)).unwrap();
    stage.pack("v2", &layers, "--base v1");

    let text = stage.succeed("verify v2");
    assert!(text.contains("install d serial 0 first"), "{text}");
    assert!(stage.succeed("inspect v2").contains("builds on d serial 0"));
    stage.succeed("inspect v2 --html sheet.html");
    let sheet = fs::read_to_string(stage.path("sheet.html")).unwrap();
    assert!(sheet.contains("Builds on"), "{sheet}");

    // Nothing is new, so there is nothing to protect; and the archive says what its image is.
    let spec = fs::read_to_string(stage.path("bundle.toml")).unwrap();
    let spec = spec.replace("ref = \"example/d:1\"\n", "");
    fs::write(stage.path("bundle.toml"), spec).unwrap();
    let text =
        stage.succeed("pack --model-dir model --image-tar image.tar -o v3 --base v2 --parity 5%");
    assert!(text.contains("makes no recovery volumes"), "{text}");
    assert!(text.contains("the image is example/d:1, as"), "{text}");
    assert!(stage.succeed("inspect v3").contains("image example/d:1\n"));

    let output = stage.run("extract v2 -C out");
    assert_eq!(output.status.code(), Some(10));
    assert!(
        said(&output).contains("only in d serial 0"),
        "{}",
        said(&output)
    );
    assert!(stage.path("out/d/b.json").exists());
    stage.succeed("extract v1 v2 -C out");
    for name in ["a.json", "b.json"] {
        let path = Path::new("out/d").join(name).display().to_string();
        let model = stage.path("model").join(name);
        assert_eq!(
            fs::read(stage.path(&path)).unwrap(),
            fs::read(model).unwrap()
        );
    }
    let strangers = stage.run("verify v1 nodes");
    assert_eq!(strangers.status.code(), Some(0), "{}", said(&strangers));

    // What was lost of the base cannot be packed from the delta alone.
    fs::remove_file(stage.path("v1/vol-0001.tar")).unwrap();
    let output = stage.run("verify v1 --request ask.json");
    assert_eq!(output.status.code(), Some(10), "{}", said(&output));
    let output = stage.run("pack --only ask.json v2");
    assert_eq!(output.status.code(), Some(10), "{}", said(&output));
    let words = "leaves out what d serial 0 has; name the directory of that one too";
    assert!(said(&output).contains(words), "{}", said(&output));
}

#[test]
fn a_delta_is_the_same_for_two_people() {
    let stage = Stage::new();
    fs::write(stage.path("model/a.json"), "1".repeat(1000)).unwrap();
    let layers = [layer(1, 20_000_000)];
    stage.pack("v1", &layers, "");
    fs::write(stage.path("model/b.json"), "2".repeat(1000)).unwrap();
    stage.pack("one", &layers, "--base v1 --jobs 1");
    stage.pack("other", &layers, "--base v1/bundle.json --jobs 4");
    for name in ["bundle.json", "SHA256SUMS", "vol-0001.tar"] {
        let read = |bundle: &str| fs::read(stage.path(bundle).join(name)).unwrap();
        assert!(read("one") == read("other"), "{name}");
    }
}
