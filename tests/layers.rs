//! Keeps the direction of the layers that `src/lib.rs` describes: a module uses only modules of
//! the rows below its own.

#![cfg(test)]

use std::fs;
use std::path::Path;

/// Top to bottom.
const ROWS: &[&[&str]] = &[
    &["main"],
    &["cli"],
    &["pack", "verify", "install", "cluster"],
    &["agent"],
    &["hub", "image", "ssh", "relay"],
    &["bundle"],
    &["digest", "path", "fs", "http", "nss", "parallel", "error"],
];

fn row_of(module: &str) -> Option<usize> {
    ROWS.iter().position(|row| row.contains(&module))
}

/// Modules that a source text names as `crate::MODULE`, comments left out.
fn used(text: &str) -> Vec<String> {
    let code = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    let code: String = code.collect::<Vec<_>>().join("\n");
    code.split("crate::")
        .skip(1)
        .map(|rest| {
            rest.chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect()
        })
        .collect()
}

/// The files of a top-level module, `src/hub.rs` or below `src/hub/`.
fn sources(root: &Path) -> Vec<(String, String)> {
    walkdir::WalkDir::new(root)
        .into_iter()
        .filter_map(Result::ok)
        .filter(|entry| {
            entry
                .path()
                .extension()
                .is_some_and(|extension| extension == "rs")
        })
        .map(|entry| {
            let below = entry
                .path()
                .strip_prefix(root)
                .unwrap()
                .to_string_lossy()
                .into_owned();
            (below, fs::read_to_string(entry.path()).unwrap())
        })
        .collect()
}

/// `a/b.rs uses c`, for each use of a module that is not in a row below.
fn violations(sources: &[(String, String)]) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in sources {
        let module = path.split(['/', '.']).next().unwrap();
        if module == "lib" {
            continue;
        }
        let own =
            row_of(module).unwrap_or_else(|| panic!("{path} is in no row of tests/layers.rs"));
        for name in used(text) {
            let allowed = name == module
                || row_of(&name).is_none_or(|row| row > own || own == ROWS.len() - 1);
            if !allowed {
                found.push(format!("{path} uses {name}"));
            }
        }
    }
    found
}

#[test]
fn modules_use_only_what_is_below_them() {
    let sources = sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    assert!(sources.len() > 20, "found only {} files", sources.len());
    assert_eq!(violations(&sources), Vec::<String>::new());
}

#[test]
fn a_use_against_the_direction_is_found() {
    let upward = (
        "bundle/x.rs".to_owned(),
        "use crate::hub::Client;".to_owned(),
    );
    let sideways = (
        "hub/x.rs".to_owned(),
        "fn f() { crate::image::g() }".to_owned(),
    );
    let downward = (
        "hub/y.rs".to_owned(),
        "use crate::error::Error;\n// crate::cli".to_owned(),
    );
    let found = violations(&[upward, sideways, downward]);
    assert_eq!(found, ["bundle/x.rs uses hub", "hub/x.rs uses image"]);
}
