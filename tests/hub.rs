//! The hub client against a loopback hub that misbehaves in every way we know of.

#![cfg(test)]

use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

use bundle::digest::{GitBlobHasher, Sha256};
use bundle::error::{Error, Result};
use bundle::http::{self, Patience};
use bundle::hub::{Client, Endpoint, Expected, Repository, Source, Token};

#[path = "support/hub/mod.rs"]
mod loopback;

use loopback::{Access, At, Content, Fault, Hub, Options};

const REPO: &str = "org/model";
const WEIGHTS: &str = "model.safetensors";
const ALWAYS: std::ops::Range<usize> = 0..usize::MAX;

/// Bytes in which each position shows.
fn pattern(len: usize) -> Vec<u8> {
    (0u32..).flat_map(u32::to_le_bytes).take(len).collect()
}

/// A hub with one model: a large file, a small one, an empty one.
fn hub(options: Options) -> Hub {
    let hub = Hub::start(options).unwrap();
    hub.commit(
        REPO,
        "main",
        [
            (WEIGHTS, Content::memory(pattern(100_000))),
            ("config.json", Content::memory("{\"a\": 1}\n")),
            ("empty.txt", Content::memory("")),
        ],
    );
    hub
}

fn quick() -> http::Options {
    http::Options {
        patience: Patience {
            attempts: 4,
            first_wait: Duration::from_millis(1),
            ..Patience::default()
        },
        ..http::Options::default()
    }
}

fn client_with(url: &str, token: Option<&str>, http: http::Options) -> Client {
    let file = token.map(|token| {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, token).unwrap();
        file
    });
    let token = file.and_then(|file| Token::find(Source::HuggingFace, Some(file.path())).unwrap());
    Client::new(bundle::hub::Options {
        endpoint: Endpoint::parse(Source::HuggingFace, url).unwrap(),
        token,
        http,
    })
    .unwrap()
}

fn client(hub: &Hub, token: Option<&str>) -> Client {
    client_with(&hub.url(), token, quick())
}

fn index(repository: &Repository, path: &str) -> usize {
    let position = |files: &[bundle::hub::RemoteFile]| {
        files.iter().position(|file| file.path.as_str() == path)
    };
    position(repository.files()).unwrap()
}

/// Reads a whole file in ranges of `step` bytes.
fn read_by(repository: &Repository, path: &str, step: usize) -> Result<Vec<u8>> {
    let file = index(repository, path);
    let size = usize::try_from(repository.files()[file].size).unwrap();
    let mut bytes = vec![0; size];
    for (number, part) in bytes.chunks_mut(step).enumerate() {
        repository.read(file, (number * step) as u64, part)?;
    }
    Ok(bytes)
}

/// The message of a refused read.
fn refusal(result: Result<Vec<u8>>) -> String {
    // Without the bytes, which would fill screens.
    result.map(|bytes| bytes.len()).unwrap_err().to_string()
}

fn read(repository: &Repository, path: &str) -> Result<Vec<u8>> {
    read_by(repository, path, usize::MAX >> 1)
}

#[test]
fn a_model_is_listed_and_read() {
    let hub = hub(Options::default());
    let repository = client(&hub, None).repository(REPO, "main").unwrap();
    let listed: Vec<_> = repository
        .files()
        .iter()
        .map(|file| (file.path.as_str(), file.size))
        .collect();
    assert_eq!(
        listed,
        [("config.json", 9), ("empty.txt", 0), (WEIGHTS, 100_000)]
    );
    let bytes = read_by(&repository, WEIGHTS, 30_000).unwrap();
    assert!(bytes == pattern(100_000));
    let expected = |path| repository.files()[index(&repository, path)].expected;
    assert_eq!(expected(WEIGHTS), Expected::Sha256(Sha256::of(&bytes)));
    let config = read(&repository, "config.json").unwrap();
    let mut hasher = GitBlobHasher::new(config.len() as u64);
    hasher.update(&config);
    assert_eq!(expected("config.json"), Expected::GitBlob(hasher.finish()));
    // Nothing is asked for an empty file.
    assert_eq!(read(&repository, "empty.txt").unwrap(), b"");
    assert!(hub.log().iter().all(|logged| logged.path != "empty.txt"));
}

#[test]
fn a_signed_url_is_used_for_many_ranges() {
    let hub = hub(Options::default());
    let repository = client(&hub, None).repository(REPO, "main").unwrap();
    read_by(&repository, WEIGHTS, 10_000).unwrap();
    let count = |at| hub.log().iter().filter(|logged| logged.at == at).count();
    assert_eq!((count(At::Resolve), count(At::Storage)), (1, 10));
}

#[test]
fn an_expired_signed_url_is_replaced() {
    let hub = hub(Options {
        signed_life: Duration::from_millis(100),
        ..Options::default()
    });
    let repository = client(&hub, None).repository(REPO, "main").unwrap();
    let file = index(&repository, WEIGHTS);
    let mut bytes = vec![0; 1000];
    repository.read(file, 0, &mut bytes).unwrap();
    thread::sleep(Duration::from_millis(150));
    repository.read(file, 4000, &mut bytes).unwrap();
    assert!(bytes == pattern(100_000)[4000..5000]);
    assert!(hub.log().iter().any(|logged| logged.status == 403));
}

/// Each fault that goes away: the bytes are right in the end.
#[test]
fn passing_faults_are_outlived() {
    let later = |seconds: &str| vec![("retry-after", seconds.to_owned())];
    let cases = [
        (At::Storage, Fault::Status(500, vec![])),
        (At::Storage, Fault::Status(503, later("0"))),
        (At::Storage, Fault::Status(403, vec![])),
        (At::Storage, Fault::Status(404, vec![])),
        (At::Storage, Fault::Truncate(10)),
        (At::Storage, Fault::HangUp),
        (At::Storage, Fault::Reset(70_000)),
        (At::Storage, Fault::WebPage),
        (At::Storage, Fault::IgnoreRange),
        (At::Resolve, Fault::Status(502, vec![])),
        (At::Resolve, Fault::Status(429, later("0"))),
        (At::Resolve, Fault::Status(408, vec![])),
        (At::Resolve, Fault::HangUp),
        (At::Resolve, Fault::WebPage),
    ];
    for (at, fault) in cases {
        let hub = hub(Options::default());
        hub.fault(at, WEIGHTS, 0..2, fault.clone());
        let repository = client(&hub, None).repository(REPO, "main").unwrap();
        let mut bytes = vec![0; 80_000];
        repository
            .read(index(&repository, WEIGHTS), 20_000, &mut bytes)
            .unwrap();
        assert!(bytes == pattern(100_000)[20_000..], "{fault:?}");
        let tries = hub.log().iter().filter(|logged| logged.at == at).count();
        assert!(tries > 2, "{fault:?} did not happen");
    }
}

/// Each fault that stays: refused with a sentence that names file, host and cause.
#[test]
fn lasting_faults_are_refused_with_a_sentence() {
    let digest = "ab".repeat(32);
    let etag = format!("\"{digest}\"");
    let cases = [
        (
            At::Storage,
            Fault::Status(500, vec![]),
            "500 Internal Server Error",
        ),
        (At::Storage, Fault::Status(403, vec![]), "403 Forbidden"),
        (
            At::Storage,
            Fault::Truncate(10),
            "broke off after 10 of 50000 bytes",
        ),
        (At::Storage, Fault::Reset(10), "broke off"),
        (
            At::Storage,
            Fault::WebPage,
            "a web page instead of the file",
        ),
        (At::Storage, Fault::IgnoreRange, "ignored the byte range"),
        (
            At::Storage,
            Fault::Header("content-range", "bytes 0-49999/100000".into()),
            "instead of \"bytes 20000-69999/100000\"",
        ),
        (
            At::Storage,
            Fault::Header("content-range", "bytes 20000-69999/70000".into()),
            "the file has 70000 bytes, the listing says 100000",
        ),
        (At::Resolve, Fault::WebPage, "a web page"),
        (At::Resolve, Fault::Status(404, vec![]), "nothing at"),
        (
            At::Resolve,
            Fault::Status(404, vec![("x-error-code", "EntryNotFound".into())]),
            "no longer has this file",
        ),
        (
            At::Resolve,
            Fault::Header("x-repo-commit", "other".into()),
            "commit other",
        ),
        (
            At::Resolve,
            Fault::Header("x-linked-size", "7".into()),
            "has 7 bytes",
        ),
        (At::Resolve, Fault::Header("x-linked-etag", etag), &*digest),
        (
            At::Resolve,
            Fault::Header("location", "gopher://x".into()),
            "redirect to nowhere",
        ),
        (
            At::Resolve,
            Fault::Header("location", String::new()),
            "redirects without end",
        ),
    ];
    for (at, fault, part) in cases {
        let hub = hub(Options::default());
        hub.fault(at, WEIGHTS, ALWAYS, fault.clone());
        let repository = client(&hub, None).repository(REPO, "main").unwrap();
        let mut bytes = vec![0; 50_000];
        let error = repository.read(index(&repository, WEIGHTS), 20_000, &mut bytes);
        let message = error.unwrap_err().to_string();
        for part in [
            part,
            "cannot fetch model.safetensors of org/model from 127.0.0.1:",
        ] {
            assert!(message.contains(part), "{fault:?}: {message} lacks {part}");
        }
        assert!(!message.contains("Signature"), "{message}");
    }
}

#[test]
fn a_stalled_connection_is_given_up() {
    for (at, fault) in [
        (At::Resolve, Fault::Silence),
        (At::Storage, Fault::Silence),
        (At::Storage, Fault::Stall(10)),
    ] {
        let hub = hub(Options::default());
        hub.fault(at, WEIGHTS, ALWAYS, fault.clone());
        let options = http::Options {
            stall: Duration::from_millis(300),
            patience: Patience {
                attempts: 2,
                ..quick().patience
            },
            ..quick()
        };
        let client = client_with(&hub.url(), None, options);
        let repository = client.repository(REPO, "main").unwrap();
        let message = refusal(read(&repository, WEIGHTS));
        assert!(message.contains("timed out"), "{fault:?}: {message}");
        assert!(message.contains("(tried 2 times)"), "{message}");
    }
}

#[test]
fn a_change_between_two_ranges_is_refused() {
    let hub = hub(Options::default());
    let repository = client(&hub, None).repository(REPO, "main").unwrap();
    hub.fault(
        At::Storage,
        WEIGHTS,
        1..2,
        Fault::Header("etag", "\"new\"".into()),
    );
    let message = refusal(read_by(&repository, WEIGHTS, 60_000));
    assert!(
        message.contains("the file changed there while it was fetched"),
        "{message}"
    );
}

#[test]
fn a_small_file_may_come_whole_where_a_range_was_asked() {
    let hub = hub(Options::default());
    hub.fault(At::Resolve, "config.json", ALWAYS, Fault::IgnoreRange);
    let repository = client(&hub, None).repository(REPO, "main").unwrap();
    assert_eq!(read(&repository, "config.json").unwrap(), b"{\"a\": 1}\n");
}

/// A mirror may pass requests on to the hub with an absolute redirect, as hf-mirror.com does.
#[test]
fn a_mirror_that_redirects_to_the_hub_works() {
    let hub = hub(Options::default());
    let mirror = self::hub(Options::default());
    let client = client(&mirror, None);
    let repository = client.repository(REPO, "main").unwrap();
    let target = format!("{}/{REPO}/resolve/main/config.json", hub.url());
    let moved = Fault::Status(308, vec![("location", target)]);
    mirror.fault(At::Resolve, "config.json", ALWAYS, moved);
    assert_eq!(read(&repository, "config.json").unwrap(), b"{\"a\": 1}\n");
}

#[test]
fn wrong_bytes_are_for_the_caller_to_find() {
    let hub = hub(Options::default());
    hub.fault(At::Storage, WEIGHTS, 0..1, Fault::WrongByte);
    let repository = client(&hub, None).repository(REPO, "main").unwrap();
    let bytes = read(&repository, WEIGHTS).unwrap();
    let expected = repository.files()[index(&repository, WEIGHTS)].expected;
    assert_ne!(expected, Expected::Sha256(Sha256::of(&bytes)));
}

#[test]
fn a_repository_of_thousands_of_files_is_listed_whole() {
    let hub = Hub::start(Options {
        foreign_links: true,
        ..Options::default()
    })
    .unwrap();
    let files = (0..3000).map(|n| {
        let name = format!("data/{:02}/part {n}#%.txt", n % 50);
        (name, Content::memory(n.to_string()))
    });
    hub.commit(REPO, "main", files);
    let repository = client(&hub, None).repository(REPO, "main").unwrap();
    let paths: BTreeSet<_> = repository
        .files()
        .iter()
        .map(|file| file.path.as_str())
        .collect();
    assert_eq!(paths.len(), 3000);
    assert!(repository.files().is_sorted_by_key(|file| &file.path));
    assert_eq!(
        read(&repository, "data/49/part 2999#%.txt").unwrap(),
        b"2999"
    );
    let pages = hub
        .log()
        .iter()
        .filter(|logged| logged.target.contains("/tree/"))
        .count();
    assert_eq!(pages, 4, "3000 files in 50 directories");
}

#[test]
fn names_of_every_kind_are_read() {
    let hub = Hub::start(Options::default()).unwrap();
    let names = [
        "a b.bin",
        "c#d.bin",
        "e%20f.bin",
        "g?h=i&j.bin",
        "Ünïcode/日本語.bin",
        "+plus;semi,comma.bin",
        "small a#b%.txt",
        "q'uo\"te.txt",
    ];
    let files = names.map(|name| (name, Content::memory(name)));
    hub.commit(REPO, "refs/pr/1", files);
    let repository = client(&hub, None).repository(REPO, "refs/pr/1").unwrap();
    assert_eq!(repository.files().len(), names.len());
    for name in names {
        assert_eq!(read(&repository, name).unwrap(), name.as_bytes(), "{name}");
    }
}

#[test]
fn a_name_that_leaves_the_model_is_refused() {
    let hub = Hub::start(Options::default()).unwrap();
    hub.commit(REPO, "main", [("../evil", Content::memory("x"))]);
    let error = client(&hub, None).repository(REPO, "main").unwrap_err();
    assert!(
        error.to_string().contains("unsafe path \"../evil\""),
        "{error}"
    );
}

#[test]
fn a_branch_is_pinned_to_its_commit() {
    let hub = Hub::start(Options::default()).unwrap();
    let first = hub.commit(REPO, "main", [("config.json", Content::memory("first"))]);
    let client = client(&hub, None);
    let repository = client.repository(REPO, "main").unwrap();
    hub.commit(REPO, "main", [("config.json", Content::memory("other"))]);
    assert_eq!(repository.commit(), first);
    assert_eq!(read(&repository, "config.json").unwrap(), b"first");
    let again = client.repository(REPO, &first).unwrap();
    assert_eq!(again.files(), repository.files());
}

#[test]
fn many_threads_read_at_once() {
    let hub = hub(Options::default());
    hub.fault(At::Storage, WEIGHTS, 3..9, Fault::Reset(100));
    let repository = client(&hub, None).repository(REPO, "main").unwrap();
    let (repository, expected) = (&repository, &pattern(100_000));
    thread::scope(|scope| {
        for worker in 0..8 {
            scope.spawn(move || {
                for round in 0..20 {
                    let from = (worker * 9973 + round * 1009) % 90_000;
                    let mut bytes = vec![0; 10_000];
                    let file = index(repository, WEIGHTS);
                    repository.read(file, from as u64, &mut bytes).unwrap();
                    assert!(bytes == expected[from..from + 10_000]);
                }
            });
        }
    });
}

#[test]
fn the_token_is_seen_by_the_hub_alone() {
    let hub = hub(Options {
        token: Some("hf_good".into()),
        ..Options::default()
    });
    hub.protect(REPO, Access::Private);
    let repository = client(&hub, Some("hf_good"))
        .repository(REPO, "main")
        .unwrap();
    assert!(read_by(&repository, WEIGHTS, 40_000).unwrap() == pattern(100_000));
    assert_eq!(read(&repository, "config.json").unwrap(), b"{\"a\": 1}\n");
    for logged in hub.log() {
        let at_hub = logged.at != At::Storage;
        assert_eq!(logged.authorized, at_hub, "{logged:?}");
    }
}

#[test]
fn who_may_not_read_is_told_what_to_do() {
    let protected = || {
        let hub = hub(Options {
            token: Some("hf_good".into()),
            other_token: Some("hf_other".into()),
            ..Options::default()
        });
        hub.commit("org/secret", "main", [("a", Content::memory("a"))]);
        hub.protect("org/secret", Access::Private);
        hub.protect(REPO, Access::Gated);
        hub
    };
    let cases = [
        (REPO, "main", None, "accept its licence at"),
        (REPO, "main", Some("hf_other"), "with that account"),
        (REPO, "main", Some("hf_bad"), "does not accept the token"),
        (
            REPO,
            "dev",
            Some("hf_good"),
            "no such branch, tag or commit",
        ),
        ("org/secret", "main", None, "if it is private, give a token"),
        (
            "org/secret",
            "main",
            Some("hf_other"),
            "that the token may see",
        ),
        ("org/none", "main", None, "no public model at"),
    ];
    for (repo, revision, token, part) in cases {
        let hub = protected();
        let message = client(&hub, token)
            .repository(repo, revision)
            .and_then(|repository| read(&repository, WEIGHTS))
            .unwrap_err()
            .to_string();
        assert!(message.contains(part), "{repo} {token:?}: {message}");
        assert!(!message.contains("hf_"), "{message}");
    }
}

#[test]
fn a_listing_that_is_no_listing_is_refused() {
    let cases = [
        (Fault::WebPage, "a web page that is not a hub's answer"),
        (
            Fault::Status(500, vec![]),
            "500 Internal Server Error (tried 4 times)",
        ),
        (Fault::Truncate(10), "broke off"),
    ];
    for (fault, part) in cases {
        let hub = hub(Options::default());
        hub.fault(At::Api, REPO, 1..usize::MAX, fault);
        let error = client(&hub, None).repository(REPO, "main").unwrap_err();
        let message = error.to_string();
        for part in [part, "the list of files of org/model at main", "127.0.0.1:"] {
            assert!(message.contains(part), "{message} lacks {part}");
        }
    }
}

#[test]
fn a_pause_is_kept_by_all_requests_to_the_host() {
    let hub = hub(Options::default());
    let client = client(&hub, None);
    let repository = client.repository(REPO, "main").unwrap();
    let exhausted = Fault::Header("ratelimit", "\"resolvers\";r=0;t=1".into());
    hub.fault(At::Resolve, WEIGHTS, 0..1, exhausted);
    read(&repository, WEIGHTS).unwrap();
    let begun = std::time::Instant::now();
    read(&repository, "config.json").unwrap();
    // The lower bound is the promise; there is no upper one.
    assert!(begun.elapsed() > Duration::from_millis(800));
}

#[test]
fn a_pause_beyond_reason_is_refused() {
    let hub = hub(Options::default());
    let repository = client(&hub, None).repository(REPO, "main").unwrap();
    let long = Fault::Status(429, vec![("retry-after", "7200".into())]);
    hub.fault(At::Resolve, WEIGHTS, ALWAYS, long);
    let message = refusal(read(&repository, WEIGHTS));
    assert!(
        message.contains("429 Too Many Requests and wants 120 minutes"),
        "{message}"
    );
}

#[test]
fn a_stop_ends_the_waiting() {
    let hub = hub(Options::default());
    hub.fault(At::Storage, WEIGHTS, ALWAYS, Fault::Status(503, vec![]));
    let options = http::Options {
        patience: Patience::default(),
        ..http::Options::default()
    };
    let stop = options.stop.clone();
    let client = client_with(&hub.url(), None, options);
    let repository = client.repository(REPO, "main").unwrap();
    let error = thread::scope(|scope| {
        let reader = scope.spawn(|| read(&repository, WEIGHTS).unwrap_err());
        while !hub.log().iter().any(|logged| logged.at == At::Storage) {
            thread::yield_now();
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        reader.join().unwrap()
    });
    assert!(matches!(error, Error::Interrupted(_)), "{error}");
}

#[test]
fn nobody_there_is_said_plainly() {
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let client = client_with(&format!("http://{port}"), None, quick());
    let message = client.repository(REPO, "main").unwrap_err().to_string();
    let host = format!("from {port}: Connection refused");
    assert!(message.contains(&host), "{message}");
}
