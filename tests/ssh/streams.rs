//! Long-running commands: both directions at once, and connections that end in the middle.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use bundle::digest::{Sha256, sha256_of_reader};
use bundle::ssh::{Connector, Exit, NoPrompt, Node, Session};

use super::commands::noise;
use crate::sshd::Sshd;
use crate::{connect, failure, session};

const LENGTH: usize = 100_000_000;

/// Sends [`LENGTH`] bytes through `cat` and compares what comes back.
fn echo(session: &Session) {
    let content = noise(LENGTH);
    let hash = Sha256::of(&content);
    let (mut reader, mut writer) = session.spawn("cat").unwrap().split().unwrap();
    thread::scope(|scope| {
        scope.spawn(move || writer.write_all(&content).unwrap());
        let (back, length) = sha256_of_reader(&mut reader).unwrap();
        assert_eq!((back, length), (hash, LENGTH as u64));
    });
}

#[test]
fn both_directions_flow_at_once() {
    let sshd = Sshd::start("");
    echo(&session(&sshd));
}

/// By default a server does it after 1 GiB or more, depending on the cipher.
#[test]
fn nothing_is_lost_when_the_server_changes_keys_under_way() {
    let sshd = Sshd::start("RekeyLimit 4M\nMaxSessions 100");
    let session = session(&sshd);
    echo(&session);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| echo(&session));
        }
    });
}

#[test]
fn two_streams_and_commands_share_a_connection() {
    let sshd = Sshd::start("MaxSessions 100");
    let session = session(&sshd);
    thread::scope(|scope| {
        let streams = [0, 1].map(|_| scope.spawn(|| echo(&session)));
        while !streams.iter().all(thread::ScopedJoinHandle::is_finished) {
            assert_eq!(session.exec("exit 9").unwrap().exit, Exit::Status(9));
        }
    });
}

#[test]
fn output_that_nobody_takes_waits_out_there() {
    let sshd = Sshd::start("");
    let session = session(&sshd);
    let count = "dd if=/dev/zero bs=1M count=64 2>/dev/null; echo done >&2";
    let running = session.spawn(count).unwrap();
    // Others go on meanwhile, and what was held back is complete.
    for _ in 0..50 {
        assert_eq!(session.exec("true").unwrap().exit, Exit::Status(0));
    }
    let (mut reader, _writer) = running.split().unwrap();
    let length = io::copy(&mut reader, &mut io::sink()).unwrap();
    assert_eq!(length, 64 << 20);
}

#[test]
fn a_reader_learns_why_its_command_ended() {
    let sshd = Sshd::start("");
    let session = session(&sshd);
    for (script, reason) in [
        (
            "echo no such file >&2; exit 127",
            "it ended with status 127: no such file",
        ),
        ("kill -9 $$", "it was killed by SIGKILL"),
    ] {
        let (mut reader, _writer) = session.spawn(script).unwrap().split().unwrap();
        let error = reader.read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(error.to_string(), reason);
    }
}

#[test]
fn a_dropped_command_is_told_and_not_waited_for() {
    let sshd = Sshd::start("");
    let session = session(&sshd);
    let (told, late) = (sshd.path("told"), sshd.path("late"));
    let script = format!(
        "cat >/dev/null; echo >{}; sleep 20; echo >{}",
        told.display(),
        late.display()
    );
    drop(session.spawn(&script).unwrap());
    while !told.exists() {
        thread::sleep(Duration::from_millis(10));
    }
    drop(session);
    while !sshd.log().contains("Disconnected from") {
        thread::sleep(Duration::from_millis(10));
    }
    assert!(!late.exists());
}

#[test]
fn a_command_outlives_its_session_handle() {
    let sshd = Sshd::start("");
    let running = session(&sshd).spawn("cat; exit 3").unwrap();
    assert_eq!(running.finish().unwrap().exit, Exit::Status(3));
}

/// Stands between a session and its server.
struct Wire {
    port: u16,
    frozen: Arc<AtomicBool>,
    streams: Arc<Mutex<Vec<TcpStream>>>,
}

impl Wire {
    fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let wire = Self {
            port: listener.local_addr().unwrap().port(),
            frozen: Arc::default(),
            streams: Arc::default(),
        };
        let (frozen, streams) = (Arc::clone(&wire.frozen), Arc::clone(&wire.streams));
        thread::spawn(move || {
            for client in listener.incoming() {
                let client = client.unwrap();
                let server = TcpStream::connect(("127.0.0.1", port)).unwrap();
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let frozen = Arc::clone(&frozen);
                    thread::spawn(move || carry(from, to, &frozen));
                }
                streams.lock().unwrap().extend([client, server]);
            }
        });
        wire
    }

    fn cut(&self) {
        for stream in self.streams.lock().unwrap().iter() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, frozen: &AtomicBool) {
    let mut buffer = vec![0; 65536];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        while frozen.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(50));
        }
        if to.write_all(&buffer[..length]).is_err() {
            return;
        }
    }
}

fn session_over(wire: &Wire, sshd: &Sshd) -> Session {
    let file = sshd.path("wire_known_hosts");
    let name = format!("[127.0.0.1]:{}", wire.port);
    std::fs::write(&file, sshd.known_line(&name, "ed25519")).unwrap();
    let node = Node {
        port: Some(wire.port),
        ..sshd.node()
    };
    let connector = Connector::new(Some(file), false, Box::new(NoPrompt));
    connector.connect(&node).unwrap()
}

#[test]
fn a_connection_that_is_cut_fails_everything_with_a_reason() {
    let sshd = Sshd::start("");
    let wire = Wire::to(sshd.port);
    let session = session_over(&wire, &sshd);
    let (mut reader, mut writer) = session.spawn("cat").unwrap().split().unwrap();
    writer.write_all(b"x").unwrap();
    reader.read_exact(&mut [0]).unwrap();
    thread::scope(|scope| {
        let flood = scope.spawn(move || writer.write_all(&noise(LENGTH)));
        reader.read_exact(&mut vec![0; 1_000_000]).unwrap();
        wire.cut();
        let error = io::copy(&mut reader, &mut io::sink()).unwrap_err();
        assert!(
            error.to_string().contains("ssh connection is lost"),
            "{error}"
        );
        drop(reader);
        assert!(flood.join().unwrap().is_err());
    });
    let (message, _) = failure(session.exec("true"));
    assert!(
        message.starts_with("127.0.0.1: the ssh connection is lost"),
        "{message}"
    );
}

#[test]
fn a_silent_connection_is_given_up() {
    let sshd = Sshd::start("");
    let wire = Wire::to(sshd.port);
    let session = session_over(&wire, &sshd);
    let (mut reader, _writer) = session.spawn("cat").unwrap().split().unwrap();
    wire.frozen.store(true, Ordering::Relaxed);
    let error = reader.read_exact(&mut [0]).unwrap_err().to_string();
    assert_eq!(error, "the connection is dead: no sign of life for 30 s");
}

#[test]
fn an_idle_connection_is_kept() {
    // The server hangs up after two questions without an answer.
    let sshd = Sshd::start("ClientAliveInterval 1\nClientAliveCountMax 2");
    let session = connect(&sshd, &sshd.node()).unwrap();
    let running = session.spawn("sleep 6; exit 5").unwrap();
    assert_eq!(running.finish().unwrap().exit, Exit::Status(5));
}
