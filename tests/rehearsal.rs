//! `bundle install` and its relatives in rehearsal: nodes are directories, their agents real
//! processes that pass real data on over loopback. What needs no ssh and no containers is tried here.

#![cfg(test)]

#[path = "support/bundles.rs"]
mod bundles;
#[path = "support/weights.rs"]
mod weights;

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use bundle::agent::fleet::Member;
use bundle::agent::protocol::{Request, Version};
use bundle::agent::start;
use bundle::bundle::media::Media;
use bundle::digest::Sha256;
use bundle::install::source::Source;
use bundle::install::{activate, distribute, space};
use bundles::Content;

const CHUNK: usize = 16 << 20;
const NODES: [&str; 3] = ["127.0.0.11", "127.0.0.12", "127.0.0.13"];

/// Nodes, and a place for bundles.
struct Stage(tempfile::TempDir);

impl Stage {
    fn new() -> Self {
        let stage = Self(tempfile::tempdir().unwrap());
        stage.hosts(&NODES);
        stage
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn hosts(&self, nodes: &[&str]) {
        fs::write(self.path("hosts.txt"), nodes.join("\n")).unwrap();
    }

    /// A model of one file.
    fn pack(&self, name: &str, bytes: &[u8], volume_size: u64) -> PathBuf {
        let mut content = Content::model([("big", bytes.to_vec())]);
        content.volume_size = volume_size;
        content.write(&self.path(name));
        self.path(name)
    }

    fn bundle(&self, verb: &str, paths: &[&Path]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_bundle"))
            .args(verb.split_whitespace())
            .args(paths)
            .args(["--hosts", "hosts.txt", "--rehearsal", "nodes"])
            .current_dir(self.0.path())
            .output()
            .unwrap()
    }

    /// What an install said that must go well.
    fn install(&self, paths: &[&Path]) -> String {
        let output = self.bundle("install", paths);
        assert!(output.status.success(), "{}", said(&output));
        said(&output)
    }

    fn model(&self, node: &str) -> PathBuf {
        self.path("nodes").join(node).join("data/model")
    }

    /// The nodes with their agents, as the library sees them.
    fn members(&self) -> Vec<Member> {
        let member = |node: &str| {
            let (link, place) = start::local(
                Path::new(env!("CARGO_BIN_EXE_bundle")),
                &self.path("nodes").join(node),
                node,
            )
            .unwrap();
            Member {
                host: bundle::ssh::Node {
                    address: node.into(),
                    ..bundle::ssh::Node::default()
                },
                address: node.parse().unwrap(),
                link,
                place,
                is_here: false,
            }
        };
        NODES.into_iter().map(member).collect()
    }

    /// Brings a bundle to the nodes and prepares them all for it.
    fn prepare(&self, bundle: &Path) -> (Vec<Member>, Version) {
        let members = self.members();
        let media = Media::open(&[bundle.to_owned()]).unwrap();
        let version = Version {
            manifest: Some(Sha256::of(media.manifest_bytes())),
        };
        let paths = space::paths(media.manifest()).unwrap();
        let facts: Vec<_> = members
            .iter()
            .map(|member| member.facts(&paths, &[], false).unwrap())
            .collect();
        let show = distribute::Show {
            step: &|_| (),
            progress: &|_, _| (),
        };
        distribute::open(&members, media.manifest_bytes(), false).unwrap();
        distribute::fill(
            &members,
            &facts,
            &Source::Media(media),
            &distribute::Way::default(),
            &show,
        )
        .unwrap();
        for member in &members {
            let name = "tiny".into();
            member.perform(Request::Prepare { name, version }).unwrap();
        }
        (members, version)
    }

    fn check(&self, nodes: &[&str], bytes: &[u8]) {
        for node in nodes {
            let found = fs::read(self.model(node).join("big")).unwrap();
            assert!(found == bytes, "{node} has other content");
        }
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn volumes_come_on_several_media_one_after_the_other() {
    let stage = Stage::new();
    let bytes = weights::Random(1).bytes(3 * CHUNK);
    let first = stage.pack("first", &bytes, 20 << 20);
    for (medium, volume) in [("second", "vol-0002.tar"), ("third", "vol-0003.tar")] {
        fs::create_dir(stage.path(medium)).unwrap();
        fs::rename(first.join(volume), stage.path(medium).join(volume)).unwrap();
    }
    let output = stage.bundle("install", &[&first]);
    assert_eq!(output.status.code(), Some(10), "{}", said(&output));
    assert!(
        said(&output).contains("needed next: vol-0002.tar, vol-0003.tar."),
        "{}",
        said(&output)
    );
    // No node has all of it, so none can give it to the others.
    let output = stage.bundle("install --from-nodes", &[]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert!(said(&output).contains("no bundle is installed on the nodes"));
    // In any order; and what came before is not sent again.
    let output = stage.bundle("install", &[&first, &stage.path("third")]);
    assert_eq!(output.status.code(), Some(10), "{}", said(&output));
    assert!(said(&output).contains("sending up to 16 MB to 3 of 3 nodes"));
    assert!(said(&output).contains("needed next: vol-0002.tar."));
    assert!(NODES.iter().all(|node| !stage.model(node).exists()));
    let text = stage.install(&[&first, &stage.path("second")]);
    assert!(
        text.contains("sending up to 16 MB to 3 of 3 nodes"),
        "{text}"
    );
    stage.check(&NODES, &bytes);
}

#[test]
fn an_older_bundle_is_refused_unless_told() {
    let stage = Stage::new();
    let edition = |serial: u64| {
        let name = format!("edition{serial}");
        let mut content = Content::model([("big", format!("edition {serial}").into_bytes())]);
        content.serial = serial;
        content.write(&stage.path(&name));
        stage.path(&name)
    };
    let (old, new) = (edition(4), edition(5));
    stage.install(&[&old]);
    stage.install(&[&new]);
    for verb in ["install", "check"] {
        let output = stage.bundle(verb, &[&old]);
        assert_eq!(output.status.code(), Some(11), "{}", said(&output));
        // `check` shows it below its table.
        let text = said(&output) + &String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("has serial 4, but serial 5"), "{text}");
        assert!(text.contains(NODES[1]), "{text}");
    }
    stage.check(&NODES, b"edition 5");
    let output = stage.bundle("install --allow-older", &[&old]);
    assert!(output.status.success(), "{}", said(&output));
    stage.check(&NODES, b"edition 4");
    // What is rolled back to is no matter of serials, and the way forward is open.
    assert!(stage.bundle("rollback", &[]).status.success());
    stage.check(&NODES, b"edition 5");
    assert!(stage.bundle("rollback", &[]).status.success());
    stage.install(&[&new]);
    stage.check(&NODES, b"edition 5");
}

#[test]
fn damage_on_a_node_is_found_and_repaired_with_the_chunks_concerned() {
    let stage = Stage::new();
    let bytes = weights::Random(2).bytes(3 * CHUNK);
    let bundle = stage.pack("bundle", &bytes, 4 << 30);
    stage.install(&[&bundle]);
    let output = stage.bundle("verify", &[]);
    assert!(output.status.success(), "{}", said(&output));

    // As the disk does it: neither size nor time changes.
    let big = stage.model(NODES[1]).join("big");
    let time = fs::metadata(&big).unwrap().modified().unwrap();
    let file = fs::File::options().write(true).open(&big).unwrap();
    file.write_all_at(b"rot", CHUNK as u64 + 7).unwrap();
    file.set_modified(time).unwrap();
    assert!(stage.install(&[&bundle]).contains("nothing to send"));
    let output = stage.bundle("verify", &[&bundle]);
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    let text = said(&output);
    assert!(text.contains("127.0.0.12: damaged or missing: "), "{text}");
    assert!(text.contains("/data/model/big"), "{text}");
    let text = stage.install(&[&bundle]);
    assert!(
        text.contains("sending up to 16 MB to 1 of 3 nodes"),
        "{text}"
    );
    stage.check(&NODES, &bytes);

    for node in NODES {
        fs::remove_file(stage.model(node).join("big")).unwrap();
    }
    let output = stage.bundle("verify --json", &[]);
    assert_eq!(output.status.code(), Some(10), "{}", said(&output));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report[2]["node"], NODES[2]);
    assert_eq!(report[2]["damaged"].as_array().unwrap().len(), 1);
    stage.install(&[&bundle]);
    assert!(stage.bundle("verify", &[]).status.success());
}

#[test]
fn a_node_that_dies_before_it_switches_is_brought_up_before_anything_else() {
    let stage = Stage::new();
    let (old, new) = (b"old".to_vec(), b"new".to_vec());
    let v1 = stage.pack("v1", &old, 4 << 30);
    let v2 = stage.pack("v2", &new, 4 << 30);
    stage.install(&[&v1]);
    let name = "tiny".parse().unwrap();

    let (mut members, version) = stage.prepare(&v2);
    stage.check(&NODES, &old);
    drop(members.pop());
    for member in &members {
        member.perform(Request::Activate).unwrap();
    }
    drop(members);
    stage.check(&NODES[..2], &new);
    stage.check(&NODES[2..], &old);
    let output = stage.bundle("prune", &[]);
    assert!(
        said(&output).contains("127.0.0.13: the version"),
        "{}",
        said(&output)
    );

    // What `bundle up` does first.
    let members = stage.members();
    let known = activate::versions(&members, &name).unwrap();
    assert_eq!(activate::agreed(&name, &known).unwrap(), version);
    let switched = activate::activate(&members, &name, version, || Ok(false));
    assert!(switched.unwrap());
    assert!(!activate::activate(&members, &name, version, || panic!("nothing to do")).unwrap());
    drop(members);
    stage.check(&NODES, &new);
    assert!(stage.bundle("rollback", &[]).status.success());
    stage.check(&NODES, &old);
    assert!(stage.bundle("prune", &[]).status.success());
    let output = stage.bundle("rollback", &[]);
    assert!(
        said(&output).contains("no previous generation"),
        "{}",
        said(&output)
    );
}

#[test]
fn a_switch_that_broke_off_can_be_finished_or_undone() {
    let stage = Stage::new();
    let (old, new) = (b"old".to_vec(), b"new".to_vec());
    let v1 = stage.pack("v1", &old, 4 << 30);
    let v2 = stage.pack("v2", &new, 4 << 30);
    stage.install(&[&v1]);
    let break_off = |bundle: &Path| {
        let (members, _) = stage.prepare(bundle);
        members[1].perform(Request::Activate).unwrap();
    };
    break_off(&v2);
    assert!(stage.bundle("rollback", &[]).status.success());
    stage.check(&NODES, &old);
    break_off(&v2);
    stage.check(&NODES[1..2], &new);
    stage.install(&[&v2]);
    stage.check(&NODES, &new);
}

#[test]
fn no_node_switches_when_one_cannot() {
    let stage = Stage::new();
    let v1 = stage.pack("v1", b"old", 4 << 30);
    let v2 = stage.pack("v2", b"new", 4 << 30);
    stage.install(&[&v1]);
    let (members, version) = stage.prepare(&v2);
    // What is prepared must still be what was proven.
    let staged = stage
        .path("nodes")
        .join(NODES[2])
        .join("data/.bundle/tiny/staging/model/big");
    fs::write(staged, b"abc").unwrap();
    let name = "tiny".parse().unwrap();
    let error = activate::activate(&members, &name, version, || Ok(false)).unwrap_err();
    assert_eq!(error.exit_code(), 3);
    assert!(error.to_string().contains("127.0.0.13: "), "{error}");
    assert!(
        error.to_string().contains("no node was switched"),
        "{error}"
    );
    drop(members);
    stage.check(&NODES, b"old");
    stage.install(&[&v2]);
    stage.check(&NODES, b"new");
}

#[test]
fn nodes_that_have_the_bundle_serve_those_that_do_not() {
    let stage = Stage::new();
    let bytes = weights::Random(3).bytes(CHUNK + 5000);
    let bundle = stage.pack("bundle", &bytes, 4 << 30);
    stage.hosts(&NODES[1..2]);
    stage.install(&[&bundle]);
    fs::remove_dir_all(&bundle).unwrap();
    stage.hosts(&NODES);
    let output = stage.bundle("install --from-nodes", &[]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(
        said(&output).contains("MB to 2 of 3 nodes"),
        "{}",
        said(&output)
    );
    stage.check(&NODES, &bytes);
    assert!(stage.bundle("verify", &[]).status.success());

    // What nobody has cannot be had.
    for node in NODES {
        fs::write(stage.model(node).join("big"), "damage").unwrap();
    }
    let output = stage.bundle("install --from-nodes", &[]);
    assert_eq!(output.status.code(), Some(10), "{}", said(&output));
    assert!(
        said(&output).contains("its media are needed"),
        "{}",
        said(&output)
    );
}
