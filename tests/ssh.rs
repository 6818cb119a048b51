//! Sessions against a real sshd on loopback.

#![cfg(test)]

#[path = "support/sshd.rs"]
mod sshd;

mod ssh {
    mod auth;
    mod commands;
    mod host_keys;
    mod logins;
    mod streams;
    mod userlands;
}

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use bundle::ssh::{Connector, NoPrompt, Node, Prompt, Session};
use sshd::Sshd;

/// Connects to a server whose key is known, without anybody to ask.
fn connect(sshd: &Sshd, node: &Node) -> bundle::error::Result<Session> {
    Connector::new(Some(sshd.known_hosts()), false, Box::new(NoPrompt)).connect(node)
}

/// A logged-in session.
fn session(sshd: &Sshd) -> Session {
    connect(sshd, &sshd.node()).unwrap()
}

/// The sentence of a failure, and its exit code.
fn failure<T>(result: bundle::error::Result<T>) -> (String, u8) {
    let error = result.err().expect("it must fail");
    (error.to_string(), error.exit_code())
}

/// Gives prepared answers and keeps the questions.
#[derive(Clone, Default)]
struct Scripted {
    answers: Arc<Mutex<Vec<&'static str>>>,
    questions: Arc<Mutex<Vec<String>>>,
}

impl Scripted {
    fn new(answers: &[&'static str]) -> Self {
        Self {
            answers: Arc::new(Mutex::new(answers.iter().rev().copied().collect())),
            questions: Arc::default(),
        }
    }

    fn questions(&self) -> Vec<String> {
        self.questions.lock().unwrap().clone()
    }
}

impl Prompt for Scripted {
    fn ask(&self, question: &str, _echo: bool) -> Option<String> {
        self.questions.lock().unwrap().push(question.to_owned());
        self.answers.lock().unwrap().pop().map(str::to_owned)
    }
}

/// Connects with prepared answers.
fn connect_with(sshd: &Sshd, node: &Node, prompt: &Scripted) -> bundle::error::Result<Session> {
    Connector::new(Some(sshd.known_hosts()), false, Box::new(prompt.clone())).connect(node)
}

/// A path as text.
fn text(path: PathBuf) -> String {
    path.into_os_string().into_string().unwrap()
}
