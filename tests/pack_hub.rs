//! `bundle pack` as a process against the loopback hub: killed, locked out, and with many repositories.

#![cfg(test)]

#[path = "support/hub/mod.rs"]
mod loopback;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use loopback::synthetic::weights;
use loopback::{At, Content, Fault, Hub, Options};

/// Requests at once, and answers that wait for their turn; see `pack::hub_source`.
const IN_FLIGHT: usize = 8 + 8;

/// Files of the model that is packed with a kill; each is one segment.
const FILES: usize = 48;

/// The file that does not come.
const STALLED: usize = 20;

fn name(number: usize) -> String {
    format!("{number:02}.safetensors")
}

/// A command in a directory that is also its home.
fn bundle(dir: &Path, line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bundle"));
    command
        .args(line.split_whitespace())
        .current_dir(dir)
        .env("HOME", dir)
        .stdin(Stdio::null())
        .stderr(Stdio::piped());
    command
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

fn succeed(dir: &Path, line: &str) -> String {
    let output = bundle(dir, line).output().unwrap();
    assert!(output.status.success(), "{line}: {}", said(&output));
    said(&output)
}

/// How often each file was asked for.
fn requests(hub: &Hub) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for logged in hub.log() {
        if logged.at == At::Storage {
            *counts.entry(logged.path).or_default() += 1;
        }
    }
    counts
}

#[test]
fn one_pack_works_in_a_place_and_after_a_kill_only_what_was_in_flight_is_fetched_again() {
    let hub = Hub::start(Options::default()).unwrap();
    let files = (0..FILES).map(|number| {
        let bytes = weights::Random(number as u64).bytes(30_000);
        (name(number), Content::memory(bytes))
    });
    hub.commit("org/model", "main", files);
    hub.fault(At::Storage, &name(STALLED), 0..1, Fault::Silence);
    let dir = tempfile::tempdir().unwrap();
    let spec = "name = \"m\"\n[[model]]\nrepo = \"org/model\"\npath = \"/data/m\"\n";
    fs::write(dir.path().join("bundle.toml"), spec).unwrap();
    let line = format!("pack --mirror {} -o out", hub.url());

    let mut first = bundle(dir.path(), &line).spawn().unwrap();
    let journal = dir.path().join("out/.pack/journal");
    let ended = || {
        let text = fs::read_to_string(&journal).unwrap_or_default();
        text.matches("\"end\"").count()
    };
    while ended() < STALLED {
        assert!(first.try_wait().unwrap().is_none(), "it did not stall");
        thread::sleep(Duration::from_millis(1));
    }
    let second = bundle(dir.path(), &line).output().unwrap();
    assert_eq!(second.status.code(), Some(15), "{}", said(&second));
    let words = "another bundle process is packing here";
    assert!(said(&second).contains(words), "{}", said(&second));
    first.kill().unwrap();
    first.wait().unwrap();

    succeed(dir.path(), &line);
    let counts = requests(&hub);
    assert_eq!(counts.len(), FILES);
    for (file, count) in &counts {
        let is_packed = *file < name(STALLED);
        assert!(*count == 1 || !is_packed, "{file}: {count} requests");
    }
    let all: usize = counts.values().sum();
    assert!(all <= FILES + IN_FLIGHT, "{all} requests for {FILES} files");
    succeed(dir.path(), &line.replace("-o out", "-o whole"));
    for entry in fs::read_dir(dir.path().join("whole")).unwrap() {
        let whole = entry.unwrap().path();
        let file = dir.path().join("out").join(whole.file_name().unwrap());
        assert!(
            fs::read(&file).unwrap() == fs::read(&whole).unwrap(),
            "{file:?}"
        );
    }
}

/// Files of a repository by their path.
type Repo = BTreeMap<String, Vec<u8>>;

#[test]
fn a_model_its_adapters_and_a_repository_of_many_files_make_one_bundle() {
    let hub = Hub::start(Options::default()).unwrap();
    let adapter = |seed| -> Repo {
        let bytes = weights::Random(seed).bytes(20_000);
        [
            ("adapter_config.json".to_owned(), b"{\"r\": 8}\n".to_vec()),
            ("adapter_model.safetensors".to_owned(), bytes),
        ]
        .into()
    };
    let model = [
        ("config.json".to_owned(), b"{}\n".to_vec()),
        (
            "model.safetensors".to_owned(),
            weights::Random(1).bytes(90_000),
        ),
    ];
    // More than a page of the listing.
    let many = (0..1200).map(|number| {
        let path = format!("{:02}/part {number}#.txt", number % 7);
        (path, number.to_string().into_bytes())
    });
    let repos: [(&str, Repo); 4] = [
        ("org/model", model.into()),
        ("org/lora-a", adapter(2)),
        ("org/lora-b", adapter(3)),
        ("org/many", many.collect()),
    ];
    let mut spec = "name = \"all\"\n".to_owned();
    for (repo, files) in &repos {
        let contents = files.iter();
        let contents = contents.map(|(path, bytes)| (path.clone(), Content::memory(bytes.clone())));
        hub.commit(repo, "main", contents);
        spec += &[
            "[[model]]\nrepo = \"",
            repo,
            "\"\npath = \"/data/",
            repo,
            "\"\n",
        ]
        .concat();
    }
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("bundle.toml"), spec).unwrap();
    succeed(dir.path(), &format!("pack --mirror {}", hub.url()));
    succeed(dir.path(), "extract all.bundle -C out");
    for (repo, files) in &repos {
        let root = dir.path().join("out").join(repo.trim_start_matches("org/"));
        let found = walkdir::WalkDir::new(&root).into_iter();
        let found = found.filter(|entry| entry.as_ref().unwrap().file_type().is_file());
        assert_eq!(found.count(), files.len(), "{repo}");
        for (path, bytes) in files {
            assert!(
                fs::read(root.join(path)).unwrap() == *bytes,
                "{repo}: {path}"
            );
        }
    }
}
