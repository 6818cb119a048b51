//! Logging in: keys, keys with a passphrase, an agent's keys, and many nodes at once.

use bundle::ssh::{Connector, NoPrompt, fan_out};

use crate::sshd::{Sshd, make_key};
use crate::{Scripted, connect, connect_with, failure, text};

#[test]
fn a_key_that_is_not_authorized_is_refused_with_what_was_tried() {
    let sshd = Sshd::start("");
    let key = sshd.path("stranger");
    make_key(&key, "", "ed25519");
    let mut node = sshd.node();
    node.key = Some(key.clone());
    let (sentence, code) = failure(connect(&sshd, &node));
    assert!(sentence.contains(&text(key)), "{sentence}");
    assert_eq!(code, 1);
}

#[test]
fn a_passphrase_is_asked_for_once_and_again_when_it_is_wrong() {
    let sshd = Sshd::start("");
    let key = sshd.path("locked");
    make_key(&key, "open sesame", "ed25519");
    sshd.authorize(&key);
    let mut node = sshd.node();
    node.key = Some(key);
    let prompt = Scripted::new(&["wrong", "open sesame"]);
    let session = connect_with(&sshd, &node, &prompt).unwrap();
    assert_eq!(session.run("greet", "echo hello").unwrap().trim(), "hello");
    assert_eq!(prompt.questions().len(), 2, "{:?}", prompt.questions());
    assert!(
        prompt
            .questions()
            .iter()
            .all(|question| !question.contains("sesame"))
    );
    let (sentence, _) = failure(connect_with(&sshd, &node, &Scripted::new(&[])));
    assert!(sentence.contains("passphrase"), "{sentence}");
}

/// Without OpenSSL's locks this corrupts memory within a few rounds.
#[test]
fn many_sessions_at_once_do_not_disturb_each_other() {
    let sshd = Sshd::start("");
    let (connector, node) = (
        Connector::new(Some(sshd.known_hosts()), false, Box::new(NoPrompt)),
        sshd.node(),
    );
    let numbers: Vec<usize> = (0..24).collect();
    for _ in 0..4 {
        let answers = fan_out(&numbers, |number| {
            let session = connector.connect(&node).unwrap();
            session.run("count", &format!("echo {number}")).unwrap()
        });
        for (number, answer) in numbers.iter().zip(answers) {
            assert_eq!(answer.trim(), number.to_string());
        }
    }
}
