//! Reaching a hub through proxies and TLS authorities, as the library and as `bundle pack`.

#![cfg(test)]

use std::path::Path;
use std::process::Output;

use bundle::http;
use bundle::hub::{Client, Endpoint, Source};

#[path = "support/hub/mod.rs"]
mod loopback;
#[path = "support/proxy.rs"]
mod proxy;
#[path = "support/tls.rs"]
mod tls;

use loopback::{Content, Hub, Options};
use proxy::Proxy;

const REPO: &str = "org/model";

fn hub(options: Options) -> Hub {
    let hub = Hub::start(options).unwrap();
    let weights = Content::memory(vec![7; 50_000]);
    let config = Content::memory("{}\n");
    hub.commit(
        REPO,
        "main",
        [("w.safetensors", weights), ("config.json", config)],
    );
    hub
}

/// Lists the model and reads all of it.
fn fetch(url: &str, http: http::Options) -> Result<usize, String> {
    let endpoint = Endpoint::parse(Source::HuggingFace, url).unwrap();
    let options = bundle::hub::Options {
        endpoint,
        token: None,
        http,
    };
    let fetch = || {
        let repository = Client::new(options)?.repository(REPO, "main")?;
        let mut total = 0;
        for (number, file) in repository.files().iter().enumerate() {
            let mut bytes = vec![0; usize::try_from(file.size).unwrap()];
            repository.read(number, 0, &mut bytes)?;
            total += bytes.len();
        }
        bundle::error::Result::Ok(total)
    };
    fetch().map_err(|error| error.to_string())
}

/// Runs `bundle pack` in a directory with a spec for the model.
fn pack(dir: &Path, arguments: &[&str], env: &[(&str, &str)]) -> Output {
    let spec = format!("name = \"m\"\n[[model]]\nrepo = \"{REPO}\"\npath = \"/m\"\n");
    std::fs::write(dir.join("bundle.toml"), spec).unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_bundle"));
    for name in [
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "NO_PROXY",
        "HF_ENDPOINT",
    ] {
        command.env_remove(name).env_remove(name.to_lowercase());
    }
    command
        .arg("pack")
        .args(arguments)
        .envs(env.iter().copied())
        .current_dir(dir)
        .output()
        .unwrap()
}

#[test]
fn a_private_authority_is_trusted_only_when_named() {
    let (config, pem) = tls::loopback();
    let hub = hub(Options {
        tls: Some(config),
        ..Options::default()
    });
    let message = fetch(&hub.url(), http::Options::default()).unwrap_err();
    assert!(message.contains("invalid peer certificate"), "{message}");
    assert!(message.contains("--ca-file"), "{message}");
    let dir = tempfile::tempdir().unwrap();
    let ca_file = dir.path().join("ca.pem");
    std::fs::write(&ca_file, pem).unwrap();
    let options = http::Options {
        ca_file: Some(ca_file),
        ..http::Options::default()
    };
    assert_eq!(fetch(&hub.url(), options), Ok(50_003));
}

#[test]
fn a_proxy_carries_both_origins() {
    let (config, pem) = tls::loopback();
    let dir = tempfile::tempdir().unwrap();
    let ca_file = dir.path().join("ca.pem");
    std::fs::write(&ca_file, pem).unwrap();
    for (tls, method) in [(None, "GET"), (Some(config), "CONNECT")] {
        let hub = hub(Options {
            tls,
            ..Options::default()
        });
        let proxy = Proxy::start().unwrap();
        let options = http::Options {
            proxy: Some(proxy.url()),
            ca_file: Some(ca_file.clone()),
            ..http::Options::default()
        };
        assert_eq!(fetch(&hub.url(), options), Ok(50_003));
        let mut log = proxy.log();
        log.sort();
        log.dedup();
        assert_eq!(log.len(), 2, "{log:?}");
        assert!(log.iter().all(|line| line.starts_with(method)), "{log:?}");
    }
}

#[test]
fn a_proxy_that_is_not_there_is_blamed() {
    let hub = hub(Options::default());
    let options = http::Options {
        // Port 9 (discard) has no listener on any machine of today.
        proxy: Some("http://127.0.0.1:9".into()),
        ..http::Options::default()
    };
    let message = fetch(&hub.url(), options).unwrap_err();
    assert!(
        message.contains("(through the proxy of --proxy)"),
        "{message}"
    );
}

#[test]
fn pack_obeys_the_proxy_variables() {
    let hub = hub(Options::default());
    let cases = [
        (vec![("HTTP_PROXY", true)], true),
        (vec![("ALL_PROXY", true)], true),
        (vec![("HTTP_PROXY", true), ("NO_PROXY", false)], false),
        (vec![("HTTPS_PROXY", true)], false),
    ];
    for (variables, used) in cases {
        let proxy = Proxy::start().unwrap();
        let (url, dir) = (proxy.url(), tempfile::tempdir().unwrap());
        let value = |is_proxy| if is_proxy { url.as_str() } else { "127.0.0.1" };
        let env: Vec<_> = variables
            .iter()
            .map(|(name, kind)| (*name, value(*kind)))
            .collect();
        let output = pack(dir.path(), &["--mirror", &hub.url()], &env);
        assert!(output.status.success(), "{output:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("; to download: "), "{said}");
        assert_eq!(!proxy.log().is_empty(), used, "{variables:?}");
    }
}

#[test]
fn pack_takes_a_proxy_and_an_authority() {
    let (config, pem) = tls::loopback();
    let hub = hub(Options {
        tls: Some(config),
        ..Options::default()
    });
    let proxy = Proxy::start().unwrap();
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("ca.pem"), pem).unwrap();
    let url = proxy.url();
    let arguments = [
        "--mirror",
        &hub.url(),
        "--proxy",
        &url,
        "--ca-file",
        "ca.pem",
    ];
    let output = pack(dir.path(), &arguments, &[]);
    assert!(output.status.success(), "{output:?}");
    assert!(!proxy.log().is_empty());
}
