//! The test bed from Rust: `tests/testbed/testbed`, one at a time on this machine.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A running test bed; it is taken down when dropped.
pub struct Testbed {
    dir: PathBuf,
    variables: BTreeMap<String, String>,
}

/// Runs the tool itself, with its state in `dir`.
fn tool(dir: &Path, args: &[&str]) -> Output {
    Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/testbed/testbed"))
        .args(args)
        .env("TESTBED_DIR", dir)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// Standard output, if it went well.
pub fn text(output: &Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{}\n{stdout}\n{stderr}",
        output.status
    );
    stdout
}

impl Testbed {
    /// `up` with these arguments, in a directory of its own. `TESTBED_HOME` lets several clones
    /// run the same test at once.
    pub fn up(name: &str, args: &[&str]) -> Self {
        let home = std::env::var_os("TESTBED_HOME").unwrap_or_else(|| "/var/lib".into());
        let dir = Path::new(&home).join(format!("bundle-testbed-{name}"));
        let mut bed = Self {
            dir: dir.clone(),
            variables: BTreeMap::new(),
        };
        tool(&dir, &["down"]);
        text(&tool(&dir, &[&["up"], args].concat()));
        let variables = text(&tool(&dir, &["env"]));
        let pair = |line: &str| {
            let (key, value) = line.trim_start_matches("export ").split_once('=')?;
            Some((key.to_owned(), value.trim_matches(['\'', '"']).to_owned()))
        };
        bed.variables = variables.lines().filter_map(pair).collect();
        bed
    }

    /// A variable of `testbed env`.
    pub fn variable(&self, key: &str) -> &str {
        self.variables
            .get(key)
            .unwrap_or_else(|| panic!("{key} is not in {:?}", self.variables))
    }

    /// A command of the tool.
    pub fn tool(&self, args: &[&str]) -> String {
        text(&tool(&self.dir, args))
    }

    /// Runs a command on a node, or on `origin`.
    pub fn exec(&self, node: &str, command: &[&str]) -> Output {
        tool(&self.dir, &[&["exec", node], command].concat())
    }

    /// The output of a command that must go well.
    pub fn read(&self, node: &str, command: &[&str]) -> String {
        text(&self.exec(node, command))
    }
}

impl Drop for Testbed {
    fn drop(&mut self) {
        if std::thread::panicking() && std::env::var_os("TESTBED_KEEP").is_some() {
            return;
        }
        tool(&self.dir, &["down"]);
    }
}
