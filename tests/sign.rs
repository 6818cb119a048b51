//! Signing and trusting, against the real `minisign`.

#![cfg(test)]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

const BUNDLE: &str = env!("CARGO_BIN_EXE_bundle");

/// Runs a command in a directory that is also its home, so that nobody's own keys count.
fn run(dir: &Path, program: &str, line: &str) -> Output {
    let arguments = line.split_whitespace();
    Command::new(program)
        .args(arguments)
        .current_dir(dir)
        .env("HOME", dir)
        .output()
        .unwrap()
}

fn code(dir: &Path, line: &str) -> Option<i32> {
    run(dir, BUNDLE, line).status.code()
}

/// A directory with a spec and a model of one file.
fn work() -> tempfile::TempDir {
    let work = tempfile::tempdir().unwrap();
    fs::create_dir(work.path().join("model")).unwrap();
    fs::write(work.path().join("model/config.json"), "{}").unwrap();
    let spec = "name = \"s\"\n[[model]]\nrepo = \"o/s\"\npath = \"/data/s\"\n";
    fs::write(work.path().join("bundle.toml"), spec).unwrap();
    work
}

#[test]
fn once_a_key_is_trusted_only_its_bundles_are_accepted() {
    let work = work();
    let dir = work.path();
    assert_eq!(code(dir, "keygen a.key --no-password"), Some(0));
    assert_eq!(code(dir, "keygen b.key --no-password"), Some(0));
    assert_eq!(
        code(dir, "keygen a.key --no-password"),
        Some(1),
        "a key was overwritten"
    );
    assert_eq!(code(dir, "pack --model-dir model -o plain"), Some(0));
    assert_eq!(
        code(dir, "pack --model-dir model -o signed --sign a.key"),
        Some(0)
    );
    assert!(
        run(&dir.join("signed"), "sha256sum", "-c SHA256SUMS")
            .status
            .success()
    );

    assert_eq!(code(dir, "verify signed"), Some(0));
    assert_eq!(code(dir, "verify signed --pubkey a.key.pub"), Some(0));
    assert_eq!(code(dir, "verify signed --pubkey b.key.pub"), Some(11));
    assert_eq!(
        code(dir, "verify signed --pubkey b.key.pub --pubkey a.key.pub"),
        Some(0)
    );
    assert_eq!(code(dir, "verify plain --pubkey a.key.pub"), Some(11));
    assert_eq!(
        code(dir, "extract plain -C out --pubkey a.key.pub"),
        Some(11)
    );
    assert!(!dir.join("out").exists());

    let store = dir.join(".config/bundle/trusted");
    fs::create_dir_all(&store).unwrap();
    fs::copy(dir.join("a.key.pub"), store.join("sender.pub")).unwrap();
    assert_eq!(code(dir, "verify signed"), Some(0));
    assert_eq!(code(dir, "verify plain"), Some(11));
}

#[test]
fn a_changed_manifest_is_not_trusted() {
    let work = work();
    let dir = work.path();
    code(dir, "keygen a.key --no-password");
    code(dir, "pack --model-dir model -o signed --sign a.key");
    let manifest = dir.join("signed/bundle.json");
    let text = fs::read_to_string(&manifest)
        .unwrap()
        .replace("/data/s", "/data/t");
    fs::write(&manifest, text).unwrap();
    assert_eq!(code(dir, "verify signed --pubkey a.key.pub"), Some(11));
}

#[test]
#[ignore = "needs minisign: make test"]
fn the_real_minisign_verifies_and_its_signatures_count() {
    let work = work();
    let dir = work.path();
    code(dir, "keygen a.key --no-password");
    code(dir, "pack --model-dir model -o signed --sign a.key");
    let verified = run(dir, "minisign", "-V -p a.key.pub -m signed/bundle.json");
    assert!(
        verified.status.success(),
        "{}",
        String::from_utf8_lossy(&verified.stderr)
    );

    let made = run(dir, "minisign", "-G -W -p c.pub -s c.key");
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
    assert!(
        run(dir, "minisign", "-S -s c.key -m signed/bundle.json")
            .status
            .success()
    );
    // The checksum list still names the first signature, so only trust is asked for here.
    assert_eq!(code(dir, "extract signed -C out --pubkey c.pub"), Some(0));
    assert_eq!(
        code(dir, "extract signed -C out2 --pubkey a.key.pub"),
        Some(11)
    );
}
