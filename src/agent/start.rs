//! Brings an agent to life: puts the executable on a node and runs it over SSH, or runs it here.

use std::fs::File;
use std::io::{self, Read, Seek as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use super::link::Link;
use crate::digest::{Sha256, sha256_of_reader};
use crate::error::{Error, Result};
use crate::ssh::{Exit, Session, quote};

/// Where a node may keep the executable, first choice first, for its own shell to expand. The
/// rest is for nodes whose disks are read-only, full, or mounted noexec.
const PLACES: &str = r#"/var/lib/bundle "${HOME:-/root}/.bundle" /opt/bundle "/dev/shm/bundle-$(id -u)" "/run/user/$(id -u)/bundle" "/tmp/bundle-$(id -u)""#;

/// The machine that the executable is built for, as `uname -m` calls it.
const MACHINE: &str = std::env::consts::ARCH;

/// The executable that becomes the agent, hashed once for all nodes.
#[derive(Clone, Debug)]
pub struct Executable {
    path: PathBuf,
    sha256: Sha256,
}

impl Executable {
    /// The running one.
    pub fn this() -> Result<Self> {
        Self::open(Path::new("/proc/self/exe"))
    }

    /// A given file.
    pub fn open(path: &Path) -> Result<Self> {
        let (sha256, _) = File::open(path)
            .and_then(sha256_of_reader)
            .map_err(Error::io("read", path))?;
        Ok(Self {
            path: path.to_owned(),
            sha256,
        })
    }

    /// Its file name on a node: another version gets another.
    fn name(&self) -> String {
        format!("bundle-{:.16}", self.sha256.to_string())
    }
}

/// Starts an agent on a node, sending the executable unless it is there already.
pub fn remote(session: &Session, executable: &Executable) -> Result<Link> {
    let path = install(session, executable)?;
    // Ends the line on which a login script may have left the cursor.
    let running = session.spawn(&format!("echo; exec {} agent", quote(&path)?))?;
    let (reader, writer) = running.split()?;
    Link::new(session.name(), reader, writer)
}

/// Starts an agent as a child process, with `root` as its `/`. `name` is for errors.
pub fn local(executable: &Path, root: &Path, name: &str) -> Result<Link> {
    let log = tempfile::tempfile().map_err(Error::io("create a file in", std::env::temp_dir()))?;
    let stderr = log.try_clone().map_err(Error::io("open", executable))?;
    let mut child = Command::new(executable)
        .arg("agent")
        .arg("--root")
        .arg(root)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(stderr)
        .spawn()
        .map_err(Error::io("run", executable))?;
    match (child.stdout.take(), child.stdin.take()) {
        (Some(stdout), Some(stdin)) => Link::new(name, ChildReader { stdout, child, log }, stdin),
        _ => Err(Error::Failed(format!("{name}: the agent has no pipes"))),
    }
}

/// Makes sure that the executable lies on the node, and returns where.
fn install(session: &Session, executable: &Executable) -> Result<String> {
    let name = executable.name();
    let places = find_places(session)?;
    for place in &places {
        let path = format!("{place}/{name}");
        if session.sha256(&quote(&path)?)? == Some(executable.sha256) {
            return Ok(path);
        }
    }
    let mut failure = Error::Failed(format!(
        "{}: no directory takes an executable; make /var/lib/bundle, ~/.bundle or /opt/bundle \
         writable there, on a filesystem that is not mounted noexec",
        session.name()
    ));
    for place in &places {
        let path = format!("{place}/{name}");
        let mut file = File::open(&executable.path).map_err(Error::io("read", &executable.path))?;
        match session.upload(&mut file, executable.sha256, "700", &path) {
            Ok(()) => return Ok(path),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// The directories in which a file can be written and run, in order of preference. Directories
/// that another user could change are left out.
fn find_places(session: &Session) -> Result<Vec<String>> {
    let script = format!(
        "echo; echo \"machine=$(uname -m)\"; for d in {PLACES}; do \
         mkdir -p \"$d/bin\" 2>/dev/null || continue; p=\"$d/bin/.probe$$\"; \
         if [ -O \"$d\" ] && [ ! -L \"$d\" ] && chmod 700 \"$d/bin\" && \
         {{ echo '#!/bin/sh' >\"$p\" && chmod 700 \"$p\" && \"$p\"; }} 2>/dev/null; \
         then echo \"place=$d/bin\"; rm -f \"$p\"; \
         else rm -f \"$p\"; rmdir \"$d/bin\" \"$d\"; fi 2>/dev/null; done; true"
    );
    let output = session.exec(&script)?;
    if output.exit != Exit::Status(0) && output.stderr.contains("sudo") {
        return Err(no_sudo(session.name(), output.stderr.trim()));
    }
    let said = output.ok(session.name(), "prepare the node")?;
    let value = |line: &'_ str, key: &str| line.trim_end().strip_prefix(key).map(str::to_owned);
    match said.lines().find_map(|line| value(line, "machine=")) {
        Some(machine) if machine == MACHINE => {}
        Some(machine) => {
            return Err(Error::Failed(format!(
                "{}: its machine is {machine}, but bundle is built for {MACHINE}",
                session.name()
            )));
        }
        None => {
            return Err(Error::Failed(format!(
                "{}: its shell did not run a simple script; it said {said:?}",
                session.name()
            )));
        }
    }
    Ok(said
        .lines()
        .filter_map(|line| value(line, "place="))
        .collect())
}

fn no_sudo(node: &str, said: &str) -> Error {
    Error::Failed(if said.contains("tty") {
        format!(
            "{node}: sudo does not work without a password and a terminal ({said}); add a NOPASSWD \
             rule to its sudoers and remove `Defaults requiretty`, or log in as root"
        )
    } else {
        format!(
            "{node}: sudo does not work without a password ({said}); add a NOPASSWD rule to its \
             sudoers, or log in as root"
        )
    })
}

/// Standard output of a child; at its end the child is waited for, and a bad end is an error.
struct ChildReader {
    stdout: ChildStdout,
    child: Child,
    log: File,
}

impl Read for ChildReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.stdout.read(buffer)?;
        if length > 0 || buffer.is_empty() {
            return Ok(length);
        }
        let status = self.child.wait()?;
        if status.success() {
            return Ok(0);
        }
        self.log.rewind()?;
        let said = io::read_to_string(&self.log).unwrap_or_default();
        Err(io::Error::other(format!(
            "it ended with {status}: {}",
            said.trim()
        )))
    }
}
