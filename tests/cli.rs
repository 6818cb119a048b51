//! The command line as data: every case of `tests/cli/*.toml` is run, and its exit code and words
//! are compared. Needs neither a node nor a network.

#![cfg(test)]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Cases {
    case: Vec<Case>,
}

/// A call and what comes of it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    /// Arguments, separated by spaces.
    run: String,
    /// Files in the current directory, and what they hold.
    #[serde(default)]
    files: BTreeMap<String, String>,
    /// Files that are one hole, and their bytes.
    #[serde(default)]
    holes: BTreeMap<String, u64>,
    /// A file that somebody else has locked.
    locked: Option<String>,
    /// The exit code.
    code: i32,
    /// What standard output must hold.
    #[serde(default)]
    stdout: Vec<String>,
    /// What standard error must hold.
    #[serde(default)]
    stderr: Vec<String>,
}

fn run(case: &Case) {
    let dir = tempfile::tempdir().unwrap();
    let create = |name: &str| {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        File::create(path).unwrap()
    };
    for (name, content) in &case.files {
        create(name).write_all(content.as_bytes()).unwrap();
    }
    for (name, len) in &case.holes {
        create(name).set_len(*len).unwrap();
    }
    let locked = case.locked.as_deref().map(create);
    if let Some(file) = &locked {
        file.lock().unwrap();
    }
    let output = Command::new(env!("CARGO_BIN_EXE_bundle"))
        .args(case.run.split_whitespace())
        .current_dir(dir.path())
        .output()
        .unwrap();
    let (stdout, stderr) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    let about = format!("`bundle {}`\n{stdout}\n{stderr}", case.run);
    assert_eq!(output.status.code(), Some(case.code), "{about}");
    for (words, said) in [(&case.stdout, stdout), (&case.stderr, stderr)] {
        for word in words {
            assert!(said.contains(word.as_str()), "{word:?} is missing: {about}");
        }
    }
    assert!(!about.contains("panicked"), "{about}");
}

#[test]
fn every_case_ends_as_written() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli");
    let mut count = 0;
    for file in fs::read_dir(dir).unwrap() {
        let text = fs::read_to_string(file.unwrap().path()).unwrap();
        let cases: Cases = toml::from_str(&text).unwrap();
        count += cases.case.len();
        cases.case.iter().for_each(run);
    }
    assert!(count > 30, "only {count} cases were found");
}

/// Names of the verbs, from the program's own help.
fn verbs() -> Vec<String> {
    let output = Command::new(env!("CARGO_BIN_EXE_bundle"))
        .arg("--help")
        .output()
        .unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    let list = help.split("Commands:\n").nth(1).unwrap();
    let verbs = list.lines().take_while(|line| line.starts_with("  "));
    let first = |line: &str| {
        line.split_whitespace()
            .next()
            .unwrap_or_default()
            .to_owned()
    };
    // Longer lines are continued with more space before them.
    let verbs = verbs.filter(|line| !line.starts_with("    "));
    verbs.map(first).collect()
}

#[test]
fn every_verb_explains_itself() {
    let verbs = verbs();
    assert!(verbs.contains(&"install".to_owned()), "{verbs:?}");
    for verb in verbs.iter().filter(|verb| *verb != "help") {
        let output = Command::new(env!("CARGO_BIN_EXE_bundle"))
            .args([verb, "--help"])
            .output()
            .unwrap();
        let help = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(0), "{verb}");
        let sentence = help.lines().next().unwrap_or_default();
        assert!(
            sentence.len() > 5 && help.contains("Usage: bundle"),
            "{help}"
        );
    }
}

#[test]
fn manual_pages_and_completions_know_every_verb() {
    let dir = tempfile::tempdir().unwrap();
    let bundle = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_bundle"))
            .args(args)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    bundle(&["man", dir.path().to_str().unwrap()]);
    let scripts = ["bash", "fish", "zsh"].map(|shell| bundle(&["completions", shell]));
    for verb in verbs().iter().filter(|verb| *verb != "help") {
        let page = fs::read_to_string(dir.path().join(format!("bundle-{verb}.1"))).unwrap();
        assert!(page.contains(".SH SYNOPSIS"), "{verb}");
        assert!(
            scripts.iter().all(|script| script.contains(verb.as_str())),
            "{verb}"
        );
    }
}
