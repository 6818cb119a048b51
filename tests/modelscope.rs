//! ModelScope as the source of models, as the library and as `bundle pack --source modelscope`.

#![cfg(test)]

use bundle::error::Result;
use bundle::http;
use bundle::hub::{Client, Endpoint, Repository, Source, Token};

#[path = "support/hub/mod.rs"]
mod loopback;

use loopback::{Access, At, Content, Fault, Hub, Options};

const REPO: &str = "org/model";

fn hub(branch: &str) -> Hub {
    let hub = Hub::start(Options {
        token: Some("ms-good".into()),
        ..Options::default()
    })
    .unwrap();
    let files = [
        ("w.safetensors", vec![7; 50_000]),
        ("d/a b#ü%.json", b"{}\n".to_vec()),
        ("empty", Vec::new()),
    ];
    let files = files.map(|(path, bytes)| (path, Content::memory(bytes)));
    hub.commit(REPO, branch, files);
    hub
}

fn list(hub: &Hub, revision: &str, token: Option<Token>) -> Result<Repository> {
    let options = bundle::hub::Options {
        endpoint: Endpoint::parse(Source::ModelScope, &hub.url())?,
        token,
        http: http::Options::default(),
    };
    Client::new(options)?.repository(REPO, revision)
}

fn read(repository: &Repository, number: usize) -> Result<Vec<u8>> {
    let size = usize::try_from(repository.files()[number].size).unwrap();
    let mut bytes = vec![0; size];
    for (part, piece) in bytes.chunks_mut(20_000).enumerate() {
        repository.read(number, part as u64 * 20_000, piece)?;
    }
    Ok(bytes)
}

#[test]
fn a_model_is_listed_and_read() {
    let hub = hub("master");
    hub.fault(At::Storage, "w.safetensors", 0..1, Fault::Reset(100));
    let repository = list(&hub, "main", None).unwrap();
    let paths: Vec<_> = repository
        .files()
        .iter()
        .map(|file| file.path.as_str())
        .collect();
    assert_eq!(paths, ["d/a b#ü%.json", "empty", "w.safetensors"]);
    assert_eq!(read(&repository, 0).unwrap(), b"{}\n");
    assert!(read(&repository, 2).unwrap() == vec![7; 50_000]);
}

#[test]
fn a_commit_stays_the_same_when_the_branch_moves() {
    let hub = hub("dev");
    let repository = list(&hub, "dev", None).unwrap();
    hub.commit(REPO, "dev", [("other", Content::memory("x"))]);
    assert!(read(&repository, 2).is_ok());
    let again = list(&hub, repository.commit(), None).unwrap();
    assert_eq!(again.files(), repository.files());
}

#[test]
fn refusals_say_what_to_do() {
    let hub = hub("master");
    let message = list(&hub, "v9", None).unwrap_err().to_string();
    assert!(
        message.contains("no such branch, tag or commit"),
        "{message}"
    );
    hub.protect(REPO, Access::Private);
    let message = list(&hub, "master", None).unwrap_err().to_string();
    assert!(message.contains("/models/org/model"), "{message}");
    let many = (0..3000).map(|n| (format!("{n}"), Content::memory("")));
    hub.commit("org/model", "many", many);
    hub.protect(REPO, Access::Public);
    let message = list(&hub, "many", None).unwrap_err().to_string();
    assert!(message.contains("3000 entries or more"), "{message}");
}

#[test]
fn the_token_is_seen_by_modelscope_alone() {
    let hub = hub("master");
    hub.protect(REPO, Access::Private);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, "ms-good\n").unwrap();
    let token = Token::find(Source::ModelScope, Some(file.path())).unwrap();
    let repository = list(&hub, "master", token).unwrap();
    read(&repository, 2).unwrap();
    for logged in hub.log() {
        assert_eq!(logged.authorized, logged.at != At::Storage, "{logged:?}");
    }
}

#[test]
fn pack_takes_a_model_from_modelscope() {
    let hub = hub("master");
    let dir = tempfile::tempdir().unwrap();
    let spec = format!("name = \"m\"\n[[model]]\nrepo = \"{REPO}\"\npath = \"/m\"\n");
    std::fs::write(dir.path().join("bundle.toml"), spec).unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_bundle"))
        .args(["pack", "--source", "modelscope", "--mirror", &hub.url()])
        .env("HF_TOKEN", "hf_must_not_be_sent")
        .current_dir(dir.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(hub.log().iter().all(|logged| !logged.authorized));
}
