//! Commands, their ends, and files.

use std::io::{self, Read};
use std::thread;

use std::time::Duration;

use bundle::digest::Sha256;
use bundle::ssh::{Exit, Node};

use crate::sshd::{Sshd, run};
use crate::{connect, failure, session, text};

#[test]
fn status_output_and_errors_come_back() {
    let sshd = Sshd::start("");
    let session = session(&sshd);
    for (script, exit, stdout, stderr) in [
        ("true", Exit::Status(0), "", ""),
        (
            "echo out; echo err >&2; exit 7",
            Exit::Status(7),
            "out\n",
            "err\n",
        ),
        ("exit 255", Exit::Status(255), "", ""),
        ("kill -KILL $$", Exit::Signal("KILL".into()), "", ""),
        (
            "echo x; kill -TERM $$",
            Exit::Signal("TERM".into()),
            "x\n",
            "",
        ),
        ("exec >&-; sleep 0.2; exit 3", Exit::Status(3), "", ""),
        ("cat; exit 4", Exit::Status(4), "", ""),
    ] {
        let output = session.exec(script).unwrap();
        let got = (
            output.exit,
            String::from_utf8(output.stdout).unwrap(),
            output.stderr,
        );
        assert_eq!(
            got,
            (exit, stdout.to_owned(), stderr.to_owned()),
            "{script}"
        );
    }
}

#[test]
fn a_failed_command_is_a_sentence() {
    let sshd = Sshd::start("");
    let session = session(&sshd);
    let (message, code) = failure(session.run("do it", "echo one >&2; echo two >&2; exit 5"));
    assert_eq!(
        message,
        "127.0.0.1: cannot do it: it ended with status 5: one; two"
    );
    assert_eq!(code, 1);
    let (_, code) = failure(session.run("do it", "echo x: No space left on device >&2; exit 1"));
    assert_eq!(code, 13);
    assert_eq!(session.run("say", "echo x").unwrap(), "x\n");
}

#[test]
fn only_the_end_of_long_errors_is_kept() {
    let sshd = Sshd::start("");
    let script = "i=0; while [ $i -lt 20000 ]; do echo line $i >&2; i=$((i+1)); done; exit 1";
    let output = session(&sshd).exec(script).unwrap();
    assert!(output.stderr.ends_with("line 19998\nline 19999\n"));
    assert!(output.stderr.len() <= 4096);
}

#[test]
fn threads_share_a_session() {
    let sshd = Sshd::start("MaxSessions 100");
    let session = session(&sshd);
    thread::scope(|scope| {
        for number in 1..=40 {
            let session = &session;
            scope.spawn(move || {
                let script = format!("head -c {number}00000 /dev/zero | wc -c; exit {number}");
                let output = session.exec(&script).unwrap();
                assert_eq!(output.exit, Exit::Status(number));
                assert_eq!(output.stdout, format!("{number}00000\n").into_bytes());
            });
        }
    });
}

#[test]
fn a_refused_channel_fails_its_command_only() {
    let sshd = Sshd::start("MaxSessions 1");
    let session = session(&sshd);
    let running = session.spawn("cat").unwrap();
    let (message, _) = failure(session.exec("true"));
    assert!(message.contains("sshd opens no channel"), "{message}");
    assert_eq!(running.finish().unwrap().exit, Exit::Status(0));
    // sshd gives the place free a moment after the command's end.
    let exit = (0..50).find_map(|_| {
        thread::sleep(Duration::from_millis(100));
        session.exec("true").ok()
    });
    assert_eq!(exit.unwrap().exit, Exit::Status(0));
}

#[test]
fn a_hundred_megabytes_arrive_whole() {
    let sshd = Sshd::start("");
    let session = session(&sshd);
    let content = noise(100_000_000);
    let hash = Sha256::of(&content);
    let path = text(sshd.path("it's \\ a \"file\"!"));
    session
        .upload(&mut &content[..], hash, "700", &path)
        .unwrap();
    assert_eq!(Sha256::of(&std::fs::read(&path).unwrap()), hash);
    let files = std::fs::read_dir(sshd.path("")).unwrap();
    let names = files.map(|entry| text(entry.unwrap().path()));
    assert!(!names.into_iter().any(|name| name.contains(".part")));
    let quoted = bundle::ssh::quote(&path).unwrap();
    assert_eq!(session.sha256(&quoted).unwrap(), Some(hash));
    let mode = session
        .run("look", &format!("stat -c %a {quoted}"))
        .unwrap();
    assert_eq!(mode, "700\n");
}

#[test]
fn a_damaged_upload_leaves_the_old_file() {
    let sshd = Sshd::start("");
    let session = session(&sshd);
    let path = sshd.path("file");
    std::fs::write(&path, "old").unwrap();
    let wrong = Sha256::of(b"expected");
    let (message, _) =
        failure(session.upload(&mut &b"arrived"[..], wrong, "700", path.to_str().unwrap()));
    assert!(message.contains("arrived damaged"), "{message}");
    assert_eq!(std::fs::read(&path).unwrap(), b"old");
    let missing = text(sshd.path("no/such/dir"));
    let (message, _) = failure(session.upload(&mut &b"x"[..], Sha256::of(b"x"), "700", &missing));
    assert!(message.contains("cannot write"), "{message}");
}

#[test]
fn a_source_that_breaks_is_not_a_short_file() {
    struct Breaking;
    impl Read for Breaking {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("the disk is gone"))
        }
    }
    let sshd = Sshd::start("");
    let session = session(&sshd);
    let path = text(sshd.path("file"));
    let (message, _) = failure(session.upload(&mut Breaking, Sha256::of(b""), "700", &path));
    assert!(message.ends_with("the disk is gone"), "{message}");
    assert!(!sshd.path("file").exists());
}

#[test]
fn output_without_end_is_refused() {
    let sshd = Sshd::start("");
    let (message, _) = failure(session(&sshd).exec("cat /dev/zero"));
    assert!(message.contains("printed more than"), "{message}");
}

#[test]
fn sudo_comes_before_the_shell() {
    // A sudo that says what it was asked for.
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("sudo");
    let script = "#!/bin/sh\necho sudo \"$1\"; shift; exec \"$@\"\n";
    std::fs::write(&file, script).unwrap();
    run("chmod", &["755", file.to_str().unwrap()]);
    let path = dir.path().display();
    let sshd = Sshd::start(&format!("SetEnv PATH={path}:/usr/bin:/bin"));
    let node = Node {
        sudo: true,
        ..sshd.node()
    };
    let session = connect(&sshd, &node).unwrap();
    assert_eq!(session.run("x", "echo done").unwrap(), "sudo -n\ndone\n");
}

#[test]
fn what_cannot_be_reached_says_why() {
    let sshd = Sshd::start("");
    let gone = Node {
        port: Some({
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            listener.local_addr().unwrap().port()
        }),
        ..sshd.node()
    };
    let (message, code) = failure(connect(&sshd, &gone));
    assert!(message.contains("nothing listens on port"), "{message}");
    assert_eq!(code, 1);
    let nameless = Node {
        address: "no-such-host.invalid".into(),
        ..sshd.node()
    };
    let (message, _) = failure(connect(&sshd, &nameless));
    assert!(message.contains("has no address here"), "{message}");
}

#[test]
fn a_port_that_is_not_ssh_says_so() {
    let sshd = Sshd::start("");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let node = Node {
        port: Some(listener.local_addr().unwrap().port()),
        ..sshd.node()
    };
    let web = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        io::Write::write_all(&mut stream, b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
    });
    let (message, _) = failure(connect(&sshd, &node));
    assert!(
        message.contains("does not complete an ssh handshake"),
        "{message}"
    );
    web.join().unwrap();
}

/// Bytes that do not compress.
pub(super) fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}
