//! One command on a session: its SSH channel at one side, a local socket at the other.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::SyncSender;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use ssh2::Channel;

use super::pump::{Line, Order, lost};
use super::session::{Ended, Exit, Lost};

/// Bytes that are moved at once, each way.
const CHUNK: usize = 128 << 10;

/// How much of the end of standard error is kept.
const STDERR_TAIL: usize = 4096;

/// The state of one command. Bytes that one side gave wait here until the other takes them, so
/// each side is read only as fast as the other allows.
pub(super) struct Conduit {
    command: String,
    local: UnixStream,
    ended: SyncSender<Result<Ended, Lost>>,
    stage: Stage,
    input: Pending,
    input_ended: bool,
    /// The command was told so.
    end_sent: bool,
    output: Pending,
    /// Where standard error is read into. As long as the output's: libssh2 computes how far it
    /// opens the window from the length of the buffer. When a key exchange interrupts that, the
    /// next read finishes it, and with another length it would count another window than it told
    /// sshd; what came beyond it was dropped, 124 KiB each time.
    errors: Box<[u8]>,
    stderr: Vec<u8>,
}

enum Stage {
    Opening,
    Starting(Channel),
    Running(Channel),
    /// The end was told to whoever waits.
    Done,
}

/// Bytes on their way.
struct Pending {
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Conduit {
    pub fn new(order: Order) -> Self {
        Self {
            command: order.command,
            local: order.local,
            ended: order.ended,
            stage: Stage::Opening,
            input: Pending::new(),
            input_ended: false,
            end_sent: false,
            output: Pending::new(),
            errors: vec![0; CHUNK].into(),
            stderr: Vec::new(),
        }
    }

    /// Its channel is not open, or the command not started yet.
    pub fn is_starting(&self) -> bool {
        matches!(self.stage, Stage::Opening | Stage::Starting(_))
    }

    pub fn is_done(&self) -> bool {
        matches!(self.stage, Stage::Done)
    }

    /// All output is taken; only the closing of the channel is waited for.
    pub fn is_closing(&self) -> bool {
        matches!(&self.stage, Stage::Running(channel) if channel.eof())
    }

    /// Something was taken in for it, while another conduit or another direction was served.
    pub fn has_news(&self) -> bool {
        match &self.stage {
            Stage::Running(channel) => {
                let output = self.output.is_empty() && channel.read_window().available > 0;
                let input = !self.input.is_empty() && channel.write_window().remaining > 0;
                output || input
            }
            _ => false,
        }
    }

    /// The local socket and what it is waited for; nothing when it does not matter now.
    pub fn interest(&self) -> Option<PollFd<'_>> {
        if !matches!(self.stage, Stage::Running(_)) {
            return None;
        }
        let mut flags = PollFlags::empty();
        if self.input.is_empty() && !self.input_ended {
            flags |= PollFlags::IN;
        }
        if !self.output.is_empty() {
            flags |= PollFlags::OUT;
        }
        // Without flags only its dropping is reported, which is seen to when all input is sent.
        (!flags.is_empty() || self.end_sent).then(|| PollFd::new(&self.local, flags))
    }

    /// Tells whoever waits how it ended.
    pub fn end(self, ended: Result<Ended, Lost>) {
        // Nobody may be left to hear it.
        let _ = self.ended.send(ended);
    }

    /// Does what can be done without waiting; whether that was anything. The error is that of a
    /// lost connection.
    pub fn step(&mut self, line: &Line) -> Result<bool, Lost> {
        match std::mem::replace(&mut self.stage, Stage::Done) {
            Stage::Opening => self.open(line),
            Stage::Starting(channel) => self.start(line, channel),
            Stage::Running(channel) => self.transfer(line, channel),
            Stage::Done => Ok(false),
        }
    }

    fn open(&mut self, line: &Line) -> Result<bool, Lost> {
        match line.complete(|| Ok(line.session.channel_session()?))? {
            None => self.stage = Stage::Opening,
            Some(Ok(channel)) => self.stage = Stage::Starting(channel),
            Some(Err(cause)) => self.refused(&format!("sshd opens no channel ({cause})")),
        }
        Ok(!matches!(self.stage, Stage::Opening))
    }

    fn start(&mut self, line: &Line, mut channel: Channel) -> Result<bool, Lost> {
        match line.complete(|| Ok(channel.exec(&self.command)?))? {
            None => {
                self.stage = Stage::Starting(channel);
                return Ok(false);
            }
            Some(Ok(())) => self.stage = Stage::Running(channel),
            Some(Err(cause)) => self.refused(&format!("sshd runs no command ({cause})")),
        }
        Ok(true)
    }

    fn refused(&mut self, reason: &str) {
        let _ = self.ended.send(Err(reason.to_owned()));
    }

    fn transfer(&mut self, line: &Line, mut channel: Channel) -> Result<bool, Lost> {
        // Takes packets in, also when nothing is read because nobody takes the output.
        if let Some(Err(cause)) = line.complete(|| Ok(channel.wait_eof()?))? {
            return Err(lost(cause));
        }
        let mut moved = self.take_output(line, &mut channel)?;
        moved |= self.give_output();
        moved |= self.take_input();
        moved |= self.give_input(line, &mut channel)?;
        if self.end_sent && self.is_dropped() {
            // The command got the end of its input; nobody waits for more.
            line.complete(|| Ok(channel.close()?))?;
            return Ok(true);
        }
        if channel.eof() && self.output.is_empty() {
            match line.complete(|| Ok(channel.wait_close()?))? {
                None => {}
                Some(Err(cause)) => return Err(lost(cause)),
                Some(Ok(())) => {
                    self.finish(line, channel)?;
                    return Ok(true);
                }
            }
        }
        self.stage = Stage::Running(channel);
        Ok(moved)
    }

    /// Reads the channel, unless output still waits for its reader: then the window closes.
    fn take_output(&mut self, line: &Line, channel: &mut Channel) -> Result<bool, Lost> {
        if !self.output.is_empty() {
            return Ok(false);
        }
        let mut moved = false;
        let mut errors = channel.stderr();
        if let Some(result) = line.complete(|| errors.read(&mut self.errors))? {
            let length = result.map_err(lost)?;
            self.stderr.extend_from_slice(&self.errors[..length]);
            let surplus = self.stderr.len().saturating_sub(STDERR_TAIL);
            self.stderr.drain(..surplus);
            moved |= length > 0;
        }
        if let Some(result) = line.complete(|| channel.read(&mut self.output.buffer))? {
            self.output.fill(result.map_err(lost)?);
            moved |= !self.output.is_empty();
        }
        Ok(moved)
    }

    fn give_output(&mut self) -> bool {
        let mut moved = false;
        while !self.output.is_empty() {
            match self.local.write(self.output.rest()) {
                Ok(length) => self.output.take(length),
                Err(cause) if is_for_later(&cause) => break,
                // Nobody reads any more.
                Err(_) => self.output.fill(0),
            }
            moved = true;
        }
        moved
    }

    fn take_input(&mut self) -> bool {
        if self.input_ended || !self.input.is_empty() {
            return false;
        }
        match self.local.read(&mut self.input.buffer) {
            Ok(0) => self.input_ended = true,
            Ok(length) => self.input.fill(length),
            Err(cause) if is_for_later(&cause) => return false,
            Err(_) => self.input_ended = true,
        }
        true
    }

    fn give_input(&mut self, line: &Line, channel: &mut Channel) -> Result<bool, Lost> {
        let mut moved = false;
        while !self.input.is_empty() {
            match line.complete(|| channel.write(self.input.rest()))? {
                None => return Ok(moved),
                Some(result) => self.input.take(result.map_err(lost)?),
            }
            moved = true;
        }
        if self.input_ended
            && !self.end_sent
            && let Some(result) = line.complete(|| Ok(channel.send_eof()?))?
        {
            result.map_err(lost)?;
            self.end_sent = true;
            moved = true;
        }
        Ok(moved)
    }

    /// Whether the other end of the local socket is gone, in both directions.
    fn is_dropped(&self) -> bool {
        let mut fds = [PollFd::new(&self.local, PollFlags::empty())];
        let polled = poll(&mut fds, Some(&Timespec::default()));
        polled.is_ok() && fds[0].revents().contains(PollFlags::HUP)
    }

    fn finish(&mut self, line: &Line, mut channel: Channel) -> Result<(), Lost> {
        let exit = exit_of(&channel);
        line.complete(|| Ok(channel.close()?))?;
        let stderr = String::from_utf8_lossy(&self.stderr).into_owned();
        let _ = self.ended.send(Ok(Ended { exit, stderr }));
        Ok(())
    }
}

fn exit_of(channel: &Channel) -> Exit {
    // The status is 0 after a signal, so that is asked for first.
    let signal = channel.exit_signal().ok().and_then(|end| end.exit_signal);
    match signal {
        Some(name) => Exit::Signal(name),
        None => Exit::Status(channel.exit_status().unwrap_or(-1)),
    }
}

impl Pending {
    fn new() -> Self {
        Self {
            buffer: vec![0; CHUNK].into(),
            start: 0,
            end: 0,
        }
    }

    fn is_empty(&self) -> bool {
        self.start == self.end
    }

    fn rest(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// The buffer now begins with `length` new bytes.
    fn fill(&mut self, length: usize) {
        (self.start, self.end) = (0, length);
    }

    fn take(&mut self, length: usize) {
        self.start += length;
    }
}

fn is_for_later(cause: &io::Error) -> bool {
    matches!(
        cause.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}
