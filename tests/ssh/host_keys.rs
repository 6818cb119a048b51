//! Host keys are checked before anything of ours is shown.

use std::fs;
use std::process::Command;

use bundle::ssh::{Connector, NoPrompt};

use crate::failure;
use crate::sshd::Sshd;

/// Connects with this text as `known_hosts`; the text after it, and what came of it.
fn connect(sshd: &Sshd, known: &str, accept_new: bool) -> (String, Result<(), (String, u8)>) {
    let file = sshd.path("given");
    fs::write(&file, known).unwrap();
    let connector = Connector::new(Some(file.clone()), accept_new, Box::new(NoPrompt));
    let result = connector.connect(&sshd.node());
    let result = match result {
        Ok(session) => {
            assert_eq!(session.exec("true").unwrap().stderr, "");
            Ok(())
        }
        error => Err(failure(error)),
    };
    (fs::read_to_string(file).unwrap(), result)
}

fn fingerprint(sshd: &Sshd, kind: &str) -> String {
    let output = Command::new("ssh-keygen")
        .arg("-lf")
        .arg(sshd.path(&format!("host_{kind}.pub")))
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.split_whitespace().nth(1).unwrap().to_owned()
}

#[test]
fn a_known_key_of_any_kind_is_taken() {
    let sshd = Sshd::start("");
    let name = sshd.known_name();
    for kind in ["ed25519", "ecdsa"] {
        let (_, result) = connect(&sshd, &sshd.known_line(&name, kind), false);
        assert_eq!(result, Ok(()), "{kind}");
    }
}

#[test]
fn a_hashed_name_is_found() {
    let sshd = Sshd::start("");
    let file = sshd.known_hosts();
    crate::sshd::run("ssh-keygen", &["-Hf", file.to_str().unwrap()]);
    let text = fs::read_to_string(file).unwrap();
    assert!(text.starts_with("|1|"), "{text}");
    assert_eq!(connect(&sshd, &text, false).1, Ok(()));
}

#[test]
fn an_unknown_key_is_shown_and_refused_before_any_login() {
    let sshd = Sshd::start("LogLevel DEBUG1");
    let name_without_port = sshd.known_line("127.0.0.1", "ed25519");
    let pattern = sshd.known_line("*", "ed25519");
    let authority = format!("@cert-authority {}", sshd.known_line("*", "ed25519"));
    for known in ["", &name_without_port, &pattern, &authority] {
        let (after, result) = connect(&sshd, known, false);
        let (message, code) = result.unwrap_err();
        assert_eq!((code, after.as_str()), (12, known));
        for part in [
            "127.0.0.1: ",
            &fingerprint(&sshd, "ed25519"),
            "--accept-new-host-keys",
        ] {
            assert!(message.contains(part), "{message}");
        }
        let told = message.contains("host certificates are not checked");
        assert_eq!(told, known.starts_with("@cert-authority"), "{message}");
    }
    assert!(!sshd.log().contains("userauth-request"), "{}", sshd.log());
}

#[test]
fn a_new_key_is_added_once_when_that_is_allowed() {
    let sshd = Sshd::start("");
    let (added, result) = connect(&sshd, "# mine", true);
    assert_eq!(result, Ok(()));
    assert_eq!(added.lines().count(), 2);
    let (again, result) = connect(&sshd, &added, true);
    assert_eq!((result, &again), (Ok(()), &added));
    assert_eq!(connect(&sshd, &added, false).1, Ok(()));
}

#[test]
fn a_changed_key_is_refused_even_when_new_ones_are_accepted() {
    let (sshd, other) = (Sshd::start(""), Sshd::start(""));
    let changed = format!("# x\n{}", other.known_line(&sshd.known_name(), "ed25519"));
    let (after, result) = connect(&sshd, &changed, true);
    let (message, code) = result.unwrap_err();
    assert_eq!((code, after), (12, changed));
    assert!(message.contains("has changed"), "{message}");
    assert!(message.contains("line 2 of"), "{message}");
}

#[test]
fn a_revoked_key_is_refused_though_it_is_known() {
    let sshd = Sshd::start("");
    let known = sshd.known_line(&sshd.known_name(), "ed25519");
    for hosts in ["*", &sshd.known_name()] {
        let revoked = format!("{known}@revoked {}", sshd.known_line(hosts, "ed25519"));
        let (message, code) = connect(&sshd, &revoked, true).1.unwrap_err();
        assert_eq!(code, 12);
        assert!(message.contains("is revoked by line 2"), "{message}");
    }
}
