//! Commands on the node: run to the end with limits, or followed line by line.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::child::{Children, Running};
use super::outbox::Outbox;
use super::protocol::{Event, Exited};
use crate::error::{Error, Result};

/// Bytes kept of each output stream; what follows is read and dropped.
const MAX_OUTPUT: u64 = 4 << 20;

/// Bytes of a followed line; a longer one comes in several parts.
const MAX_LINE: u64 = 64 << 10;

/// How long a stream may stay open after its command ended: a daemon that the command left
/// behind can keep it open for ever.
const GRACE: Duration = Duration::from_secs(1);

/// Runs a command to its end, with `stdin` as its input. Killed after `timeout`, which is an error.
pub fn run(children: &Children, argv: &[String], stdin: &str, timeout: Duration) -> Result<Exited> {
    let running = children.spawn(argv)?;
    let (input, stdout, stderr) = {
        let mut child = running.child();
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    };
    let stdin = stdin.to_owned();
    thread::spawn(move || {
        // A command that ends without reading its input is no failure of ours.
        input.map(|mut input| input.write_all(stdin.as_bytes()))
    });
    let (stdout, stderr) = (collect(stdout), collect(stderr));
    let Some(status) = running.wait(Some(Instant::now() + timeout))? else {
        return Err(Error::Failed(format!(
            "{:?} did not end within {} s and was killed",
            argv.join(" "),
            timeout.as_secs()
        )));
    };
    Ok(Exited {
        status: exit_status(status),
        stdout: text(&stdout),
        stderr: text(&stderr),
    })
}

/// Runs a command and sends its output lines as events of call `id` until it ends.
pub fn follow(children: &Children, argv: &[String], id: u64, outbox: &Outbox) -> Result<Exited> {
    let running = children.spawn(argv)?;
    let (stdout, stderr) = {
        let mut child = running.child();
        drop(child.stdin.take());
        (child.stdout.take(), child.stderr.take())
    };
    thread::scope(|scope| {
        scope.spawn(|| stdout.map(|stream| send_lines(stream, id, outbox)));
        scope.spawn(|| stderr.map(|stream| send_lines(stream, id, outbox)));
    });
    finish(&running)
}

fn finish(running: &Running) -> Result<Exited> {
    let status = running.wait(None)?.map_or(-1, exit_status);
    Ok(Exited {
        status,
        stdout: String::new(),
        stderr: String::new(),
    })
}

fn send_lines(stream: impl Read, id: u64, outbox: &Outbox) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    while reader
        .by_ref()
        .take(MAX_LINE)
        .read_until(b'\n', &mut line)?
        > 0
    {
        let text = String::from_utf8_lossy(line.trim_ascii_end()).into_owned();
        outbox.event(Event::Line { id, text });
        line.clear();
    }
    Ok(())
}

/// Reads a stream in a thread; the pieces come through a channel so that waiting can end early.
fn collect(stream: Option<impl Read + Send + 'static>) -> Receiver<Vec<u8>> {
    let (sender, pieces) = channel();
    thread::spawn(move || {
        let Some(mut stream) = stream else { return };
        let mut left = MAX_OUTPUT;
        let mut buffer = vec![0; 64 << 10];
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            let kept = count.min(usize::try_from(left).unwrap_or(count));
            left -= kept as u64;
            if kept > 0 && sender.send(buffer[..kept].to_vec()).is_err() {
                return;
            }
        }
    });
    pieces
}

fn text(pieces: &Receiver<Vec<u8>>) -> String {
    let deadline = Instant::now() + GRACE;
    let mut bytes = Vec::new();
    while let Ok(piece) = pieces.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        bytes.extend(piece);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// As a shell counts it: 128 + N after signal N.
fn exit_status(status: ExitStatus) -> i32 {
    status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal))
        .unwrap_or(-1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str, stdin: &str, seconds: u64) -> Result<Exited> {
        let argv = ["sh", "-c", script].map(str::to_owned);
        run(
            &Children::default(),
            &argv,
            stdin,
            Duration::from_secs(seconds),
        )
    }

    #[test]
    fn streams_and_status_come_back() {
        let exited = sh("cat; echo oops >&2; exit 3", "hello", 60).unwrap();
        let expected = Exited {
            status: 3,
            stdout: "hello".into(),
            stderr: "oops\n".into(),
        };
        assert_eq!(exited, expected);
        assert_eq!(sh("kill -9 $$", "", 60).unwrap().status, 137);
    }

    #[test]
    fn a_command_that_hangs_is_killed_with_its_children() {
        let dir = tempfile::tempdir().unwrap();
        let pid_file = dir.path().join("pid");
        let script = format!("sleep 1000 & echo $! > {}; wait", pid_file.display());
        let error = sh(&script, "", 1).unwrap_err().to_string();
        assert!(error.contains("did not end within 1 s"), "{error}");
        let pid = std::fs::read_to_string(&pid_file).unwrap();
        let proc = format!("/proc/{}/stat", pid.trim());
        let gone_or_zombie =
            || std::fs::read_to_string(&proc).map_or(true, |stat| stat.contains(") Z"));
        while !gone_or_zombie() {
            thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn a_daemon_left_behind_does_not_hold_the_answer() {
        let exited = sh("sleep 5 & echo started", "", 60).unwrap();
        assert_eq!(exited.stdout, "started\n");
    }

    #[test]
    fn output_is_limited() {
        let exited = sh("head -c 9000000 /dev/zero", "", 60).unwrap();
        assert_eq!(exited.stdout.len() as u64, MAX_OUTPUT);
    }

    #[test]
    fn a_missing_program_is_named() {
        let argv = ["no-such-program".to_owned()];
        let error = run(&Children::default(), &argv, "", GRACE).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("no-such-program: it is not installed")
        );
    }
}
