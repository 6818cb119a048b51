//! Brings an agent to life: puts the executable on a node and runs it over SSH, or runs it here.

use std::fs::File;
use std::io::{self, Read, Seek as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;
use std::time::Duration;

use super::link::Link;
use super::tunnel;
use crate::digest::{Sha256, sha256_of_reader};
use crate::error::{Error, Result};
use crate::ssh::session::Running;
use crate::ssh::{Exit, Session, quote};

/// Where a node may keep the executable, first choice first, for its own shell to expand. The
/// rest is for nodes whose disks are read-only, full, or mounted noexec.
const PLACES: &str = r#"/var/lib/bundle "${HOME:-/root}/.bundle" /opt/bundle "/dev/shm/bundle-$u" "/run/user/$u/bundle" "/tmp/bundle-$u""#;

/// The machine that the executable is built for, as `uname -m` calls it.
const MACHINE: &str = std::env::consts::ARCH;

/// How long an end of a tunnel may take until it says its first word, and how many bytes a login
/// script may say before.
const GREETING: Duration = Duration::from_secs(20);
const MAX_GREETING: u64 = 64 << 10;

/// Before the path of the executable, on the line after which it speaks as the agent.
const AGENT: &str = "agent=";

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

    /// Whether it is the one of this hash.
    #[must_use]
    pub fn is(&self, sha256: Sha256) -> bool {
        self.sha256 == sha256
    }

    /// Its file name on a node: another version gets another.
    fn name(&self) -> String {
        format!("bundle-{:.16}", self.sha256.to_string())
    }
}

/// A machine on which bundle runs, and can be called again.
pub enum Place {
    /// A node, with the path of the executable there.
    Remote(Session, String),
    /// This machine, with the path of the executable.
    Here(PathBuf),
}

/// Starts an agent on a node, sending the executable unless it is there already.
pub fn remote(session: Session, executable: &Executable) -> Result<(Link, Place)> {
    let (running, path) = match start_or_look(&session, executable)? {
        Found::Started(running, path) => (running, path),
        Found::Places(places) => {
            let path = send(&session, executable, &places)?;
            (session.spawn(&command(&path, "agent")?)?, path)
        }
    };
    let (reader, writer) = running.split()?;
    let link = Link::new(session.name(), reader, writer)?;
    Ok((link, Place::Remote(session, path)))
}

/// The script that runs the executable. First it ends the line on which a login script may have
/// left the cursor.
fn command(path: &str, arguments: &str) -> Result<String> {
    Ok(format!("echo; exec {} {arguments}", quote(path)?))
}

impl Place {
    /// Starts `bundle agent` with these arguments as an end of a tunnel. Returns its input and
    /// output in one, and the port that it names in its first line.
    pub fn tunnel(&self, arguments: &str) -> Result<(UnixStream, u16)> {
        let arguments = format!("agent {arguments}");
        match self {
            Self::Remote(session, path) => {
                let running = session.spawn(&command(path, &arguments)?)?;
                let greeted = running.stream().try_clone().and_then(greeting);
                let Ok(greeted) = greeted else {
                    let output = running.finish()?;
                    output.ok(session.name(), "start a way through ssh")?;
                    return Err(no_tunnel(session.name()));
                };
                Ok(greeted)
            }
            Self::Here(executable) => {
                let name = executable.display().to_string();
                let (near, far) = UnixStream::pair().map_err(Error::io("run", executable))?;
                let output = far.try_clone().map_err(Error::io("run", executable))?;
                let mut child = Command::new(executable)
                    .args(arguments.split_whitespace())
                    .stdin(OwnedFd::from(far))
                    .stdout(OwnedFd::from(output))
                    .spawn()
                    .map_err(Error::io("run", executable))?;
                // It ends with its input; nobody asks how.
                thread::spawn(move || child.wait());
                greeting(near).map_err(|_| no_tunnel(&name))
            }
        }
    }
}

fn no_tunnel(name: &str) -> Error {
    Error::Failed(format!("{name}: a way through ssh does not start"))
}

/// Waits for the end's first word, past whatever a login script says.
fn greeting(stream: UnixStream) -> io::Result<(UnixStream, u16)> {
    stream.set_read_timeout(Some(GREETING))?;
    let mut said = (&stream).take(MAX_GREETING);
    loop {
        let mut line = Vec::new();
        let mut byte = [0; 1];
        // Byte by byte: what follows the line is not ours to read.
        while byte != *b"\n" {
            said.read_exact(&mut byte)?;
            line.extend(byte);
        }
        let line = String::from_utf8_lossy(&line);
        let port = line.trim_end().strip_prefix(tunnel::GREETING);
        if let Some(port) = port.and_then(|port| port.trim().parse().ok()) {
            stream.set_read_timeout(None)?;
            return Ok((stream, port));
        }
    }
}

/// Starts an agent as a child process, with `root` as its `/`. `name` is for errors.
pub fn local(executable: &Path, root: &Path, name: &str) -> Result<(Link, Place)> {
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
    let link = match (child.stdout.take(), child.stdin.take()) {
        (Some(stdout), Some(stdin)) => Link::new(name, ChildReader { stdout, child, log }, stdin)?,
        _ => return Err(Error::Failed(format!("{name}: the agent has no pipes"))),
    };
    Ok((link, Place::Here(executable.to_owned())))
}

/// Runs the executable if it is there and says of itself that it is intact. Otherwise tries where
/// a file can be written and run. Directories that another user could change are left out.
fn start_script(executable: &Executable) -> String {
    let (name, sha256) = (executable.name(), executable.sha256);
    format!(
        "echo; u=$(id -u); set -- {PLACES}; \
         for d; do f=\"$d/bin/{name}\"; \
         {{ [ -O \"$d\" ] && [ ! -L \"$d\" ] && [ -x \"$f\" ] && chmod 700 \"$d/bin\" && \
         \"$f\" agent --is {sha256}; }} 2>/dev/null && echo \"{AGENT}$f\" && exec \"$f\" agent; done; \
         echo \"machine=$(uname -m)\"; \
         for d; do mkdir -p \"$d/bin\" 2>/dev/null || continue; p=\"$d/bin/.probe$$\"; \
         if [ -O \"$d\" ] && [ ! -L \"$d\" ] && chmod 700 \"$d/bin\" && \
         {{ echo '#!/bin/sh' >\"$p\" && chmod 700 \"$p\" && \"$p\"; }} 2>/dev/null; \
         then echo \"place=$d/bin\"; rm -f \"$p\"; \
         else rm -f \"$p\"; rmdir \"$d/bin\" \"$d\"; fi 2>/dev/null; done; true"
    )
}

/// What the first call to a node led to.
enum Found {
    /// The executable was there, at this path, and is the agent now.
    Started(Running, String),
    /// It was not. Directories in which a file can be written and run, in order of preference.
    Places(Vec<String>),
}

/// Starts the agent where the executable is there and intact: it looks at itself, which costs no
/// more than a tool of the node would, and is one call instead of three. Otherwise tries the places
/// for it.
fn start_or_look(session: &Session, executable: &Executable) -> Result<Found> {
    let running = session.spawn(&start_script(executable))?;
    let said = first_words(running.stream()).map_err(|cause| {
        Error::Failed(format!("{}: cannot hear the node: {cause}", session.name()))
    })?;
    let value = |key: &str| {
        let lines = said.lines().map(str::trim_end);
        lines
            .filter_map(|line| line.strip_prefix(key).map(str::to_owned))
            .collect::<Vec<_>>()
    };
    if let Some(path) = value(AGENT).pop() {
        return Ok(Found::Started(running, path));
    }
    let output = running.finish()?;
    if output.exit != Exit::Status(0) && output.stderr.contains("sudo") {
        return Err(no_sudo(session.name(), output.stderr.trim()));
    }
    output.ok(session.name(), "prepare the node")?;
    match value("machine=").first() {
        Some(machine) if machine == MACHINE => Ok(Found::Places(value("place="))),
        Some(machine) => Err(Error::Failed(format!(
            "{}: its machine is {machine}, but bundle is built for {MACHINE}",
            session.name()
        ))),
        None => Err(Error::Failed(format!(
            "{}: its shell did not run a simple script; it said {said:?}",
            session.name()
        ))),
    }
}

/// All that is said, up to the line after which the agent speaks: what follows is not ours to read.
fn first_words(stream: &UnixStream) -> io::Result<String> {
    let mut said = stream.take(MAX_GREETING);
    let mut text = Vec::new();
    loop {
        let start = text.len();
        let mut byte = [0; 1];
        while byte != *b"\n" {
            if said.read(&mut byte)? == 0 {
                return Ok(String::from_utf8_lossy(&text).into());
            }
            text.extend(byte);
        }
        if text[start..].starts_with(AGENT.as_bytes()) {
            return Ok(String::from_utf8_lossy(&text).into());
        }
    }
}

/// Sends the executable to the first place that takes it; returns where it is.
fn send(session: &Session, executable: &Executable, places: &[String]) -> Result<String> {
    let mut failure = Error::Failed(format!(
        "{}: no directory takes an executable; make /var/lib/bundle, ~/.bundle or /opt/bundle \
         writable there, on a filesystem that is not mounted noexec",
        session.name()
    ));
    for place in places {
        let path = format!("{place}/{}", executable.name());
        let mut file = File::open(&executable.path).map_err(Error::io("read", &executable.path))?;
        match session.upload(&mut file, executable.sha256, "700", &path) {
            Ok(()) => return Ok(path),
            Err(error) => failure = error,
        }
    }
    Err(failure)
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
