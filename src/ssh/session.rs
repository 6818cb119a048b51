//! A logged-in session: runs commands, several at a time, and copies files.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use super::pump::{Order, Pump};
use super::quote::{command_line, quote};
use crate::digest::Sha256;
use crate::error::{Error, Result};

/// Longest output that [`Session::exec`] takes.
const MAX_OUTPUT: u64 = 16 << 20;

/// A connection to a node on which commands run. Threads may share it; dropping it lets running
/// commands go on until their [`Running`] is dropped.
pub struct Session {
    name: String,
    sudo: bool,
    orders: Sender<Order>,
    /// A byte wakes the pump.
    bell: UnixStream,
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// With this status.
    Status(i32),
    /// By a signal, named as in `kill -l`.
    Signal(String),
}

/// What a finished command left.
#[derive(Debug)]
pub struct Output {
    /// How it ended.
    pub exit: Exit,
    /// Its standard output, at most 16 MiB.
    pub stdout: Vec<u8>,
    /// The end of its standard error.
    pub stderr: String,
}

/// How a command ended, and the end of its standard error.
pub(super) struct Ended {
    pub exit: Exit,
    pub stderr: String,
}

/// Why a command's end will never be known: a sentence.
pub(super) type Lost = String;

/// A running command.
pub struct Running {
    name: String,
    stream: UnixStream,
    ended: Receiver<std::result::Result<Ended, Lost>>,
}

/// Standard output of a command. Reading past the end fails with the reason, unless the command
/// ended with status 0.
pub struct Reader {
    stream: UnixStream,
    ended: Receiver<std::result::Result<Ended, Lost>>,
}

/// Standard input of a command; it ends when this is dropped.
pub struct Writer(UnixStream);

impl Session {
    /// Hands a logged-in session to its pump. `socket` is a handle of its socket.
    pub(super) fn start(
        name: &str,
        sudo: bool,
        session: ssh2::Session,
        socket: OwnedFd,
    ) -> Result<Self> {
        let failed = |cause: io::Error| Error::Failed(format!("cannot start a session: {cause}"));
        let (bell, heard) = UnixStream::pair().map_err(failed)?;
        let (orders, receiver) = mpsc::channel();
        let pump = Pump::new(session, socket, receiver, heard).map_err(failed)?;
        thread::Builder::new()
            .name(format!("ssh {name}"))
            .spawn(|| pump.run())
            .map_err(failed)?;
        Ok(Self {
            name: name.to_owned(),
            sudo,
            orders,
            bell,
        })
    }

    /// The node's name, as in errors.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Starts a POSIX shell script of one line.
    pub fn spawn(&self, script: &str) -> Result<Running> {
        let failed = |cause: io::Error| Error::Failed(format!("{}: {cause}", self.name));
        let command = command_line(script, self.sudo)?;
        let (stream, local) = UnixStream::pair().map_err(failed)?;
        local.set_nonblocking(true).map_err(failed)?;
        let (sender, ended) = mpsc::sync_channel(1);
        let order = Order {
            command,
            local,
            ended: sender,
        };
        // When the pump is gone, the order with its sender is dropped, and `wait` says so.
        let _ = self.orders.send(order);
        let _ = (&self.bell).write_all(b"!");
        Ok(Running {
            name: self.name.clone(),
            stream,
            ended,
        })
    }

    /// Runs a script to its end, with nothing on its standard input.
    pub fn exec(&self, script: &str) -> Result<Output> {
        self.exec_with(script, &mut io::empty())
    }

    /// Runs a script to its end, with `input` on its standard input. A script that takes input
    /// must not say much before it has taken all.
    pub fn exec_with(&self, script: &str, input: &mut dyn Read) -> Result<Output> {
        let running = self.spawn(script)?;
        match io::copy(input, &mut &running.stream) {
            Ok(_) => {}
            // The command ended early; its exit status tells more.
            Err(cause) if is_hang_up(&cause) => {}
            Err(cause) => {
                return Err(Error::Failed(format!(
                    "{}: cannot read what is to be sent: {cause}",
                    self.name
                )));
            }
        }
        running.finish()
    }

    /// Like [`Self::exec`], but any other end than status 0 is an error that quotes the script's
    /// standard error; `what` completes "cannot".
    pub fn run(&self, what: &str, script: &str) -> Result<String> {
        let output = self.exec(script)?;
        output.ok(&self.name, what)
    }

    /// Writes `size` bytes of `content`, whose hash is `sha256`, to a file with the permissions
    /// `mode` (octal digits). It appears under its name complete and checked, or not at all.
    pub fn upload(
        &self,
        content: &mut dyn Read,
        sha256: Sha256,
        mode: &str,
        path: &str,
    ) -> Result<()> {
        // An upload whose connection was lost may still hold its file open: that one cannot be run.
        let (target, part) = (quote(path)?, quote(&format!("{path}.{sha256}.part"))?);
        let output = self.exec_with(
            &format!(
                "umask 077 && rm -f {part} && cat >{part} && chmod {mode} {part} || {{ rm -f {part}; exit 1; }}"
            ),
            content,
        )?;
        output.ok(&self.name, &format!("write {path}"))?;
        let arrived = self.sha256(&part)?;
        if arrived != Some(sha256) {
            self.exec(&format!("rm -f {part}"))?;
            return Err(Error::Failed(format!(
                "{}: {path} arrived damaged; is its disk or memory broken?",
                self.name
            )));
        }
        self.run(&format!("write {path}"), &format!("mv -f {part} {target}"))?;
        Ok(())
    }

    /// The hash of a file there, `quoted` for the shell; nothing when it cannot be read. Without
    /// `sha256sum` out there, the file is read back.
    pub fn sha256(&self, quoted: &str) -> Result<Option<Sha256>> {
        let output = self.exec(&format!("echo; sha256sum <{quoted}"))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let hash = text.split_whitespace().find_map(|word| word.parse().ok());
        if hash.is_some() {
            return Ok(hash);
        }
        let running = self.spawn(&format!("cat {quoted}"))?;
        let hashed = crate::digest::sha256_of_reader(&running.stream);
        let complete = running.finish()?.exit == Exit::Status(0);
        Ok(hashed.ok().filter(|_| complete).map(|(hash, _)| hash))
    }
}

impl Output {
    /// Standard output of a command that succeeded; otherwise "NODE: cannot WHAT: STDERR".
    pub fn ok(self, name: &str, what: &str) -> Result<String> {
        if self.exit == Exit::Status(0) {
            return Ok(String::from_utf8_lossy(&self.stdout).into_owned());
        }
        let said = one_line(&self.stderr);
        let message = format!("{name}: cannot {what}: {}{said}", self.exit);
        Err(if said.contains("No space left on device") {
            Error::NoSpace(message)
        } else {
            Error::Failed(message)
        })
    }
}

impl Running {
    /// Its output and input, as one socket.
    #[must_use]
    pub fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// Ends its input, takes its output to the end, and waits for it.
    pub fn finish(self) -> Result<Output> {
        let _ = self.stream.shutdown(Shutdown::Write);
        let mut stdout = Vec::new();
        let read = (&self.stream).take(MAX_OUTPUT + 1).read_to_end(&mut stdout);
        if read.is_ok_and(|length| length as u64 > MAX_OUTPUT) {
            return Err(Error::Failed(format!(
                "{}: a command printed more than {MAX_OUTPUT} bytes",
                self.name
            )));
        }
        match end(&self.ended) {
            Ok(Ended { exit, stderr }) => Ok(Output {
                exit,
                stdout,
                stderr,
            }),
            Err(lost) => Err(Error::Failed(format!("{}: {lost}", self.name))),
        }
    }

    /// Its output and input, to be used at the same time.
    pub fn split(self) -> Result<(Reader, Writer)> {
        let writer = self.stream.try_clone().map_err(|cause| {
            Error::Failed(format!("{}: no file handle is left: {cause}", self.name))
        })?;
        let reader = Reader {
            stream: self.stream,
            ended: self.ended,
        };
        Ok((reader, Writer(writer)))
    }
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.stream.read(buffer) {
            Ok(0) if !buffer.is_empty() => {}
            Err(cause) if is_hang_up(&cause) => {}
            other => return other,
        }
        match end(&self.ended) {
            Ok(Ended {
                exit: Exit::Status(0),
                ..
            }) => Ok(0),
            Ok(Ended { exit, stderr }) => {
                Err(io::Error::other(format!("{exit}{}", one_line(&stderr))))
            }
            Err(lost) => Err(io::Error::other(lost)),
        }
    }
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Fails only when the command is gone already.
        let _ = self.0.shutdown(Shutdown::Write);
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "it ended with status {status}"),
            Self::Signal(name) => write!(f, "it was killed by SIG{name}"),
        }
    }
}

/// Waits for the end of a command; a pump that is gone cannot tell it.
fn end(ended: &Receiver<std::result::Result<Ended, Lost>>) -> std::result::Result<Ended, Lost> {
    ended
        .recv()
        .unwrap_or_else(|_| Err("the ssh connection is closed".into()))
}

/// ": LINES" of what a command said, or nothing.
fn one_line(stderr: &str) -> String {
    let lines: Vec<&str> = stderr
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    if lines.is_empty() {
        String::new()
    } else {
        format!(": {}", lines.join("; "))
    }
}

/// The other end of a socket pair was closed, with or without unread bytes in it.
fn is_hang_up(cause: &io::Error) -> bool {
    matches!(
        cause.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
    )
}
