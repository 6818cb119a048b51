//! Passwords and passphrases: asked once, remembered in memory for the other nodes.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How secrets are asked for. Calls never overlap.
pub trait Prompt: Send + Sync {
    /// The answer of a person at a terminal, shown while typed only if `echo`. Nothing when there
    /// is no terminal, or the person does not want to answer.
    fn ask(&self, question: &str, echo: bool) -> Option<String>;
}

/// For runs without a terminal: knows no answer.
pub struct NoPrompt;

impl Prompt for NoPrompt {
    fn ask(&self, _question: &str, _echo: bool) -> Option<String> {
        None
    }
}

/// The person to ask, and what was learnt. Asking holds the lock, so that 32 nodes that need the
/// same passphrase lead to one question.
pub(super) struct Secrets {
    prompt: Box<dyn Prompt>,
    learnt: Mutex<Learnt>,
}

#[derive(Default)]
struct Learnt {
    passphrases: HashMap<PathBuf, Option<String>>,
    /// By user: clusters mostly have one password.
    passwords: HashMap<String, String>,
}

impl Secrets {
    pub fn new(prompt: Box<dyn Prompt>) -> Self {
        Self {
            prompt,
            learnt: Mutex::default(),
        }
    }

    /// The passphrase of a key file. `wrong` is the one that did not open it.
    pub fn passphrase(&self, key: &Path, wrong: Option<&str>) -> Option<String> {
        let mut learnt = self.lock();
        match learnt.passphrases.get(key) {
            Some(known) if known.as_deref() != wrong || known.is_none() => known.clone(),
            _ => {
                let question = format!("Passphrase of {}: ", key.display());
                let answer = self.prompt.ask(&question, false);
                learnt.passphrases.insert(key.to_owned(), answer.clone());
                answer
            }
        }
    }

    /// The password of a user on a host. `wrong` is the one that the host refused.
    pub fn password(&self, user: &str, host: &str, wrong: Option<&str>) -> Option<String> {
        let mut learnt = self.lock();
        match learnt.passwords.get(user) {
            Some(known) if Some(known.as_str()) != wrong => Some(known.clone()),
            _ => {
                let question = format!("Password of {user}@{host} (tried on the next nodes too): ");
                let answer = self.prompt.ask(&question, false)?;
                learnt.passwords.insert(user.to_owned(), answer.clone());
                Some(answer)
            }
        }
    }

    /// The answer to a host's own question, e.g. for a one-time code; never remembered.
    pub fn other(&self, question: &str, echo: bool) -> Option<String> {
        let _one_at_a_time = self.lock();
        self.prompt.ask(question, echo)
    }

    fn lock(&self) -> MutexGuard<'_, Learnt> {
        self.learnt.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Answers "1", "2", ... and then nothing.
    struct Counting(AtomicUsize);

    impl Prompt for Counting {
        fn ask(&self, _question: &str, _echo: bool) -> Option<String> {
            let count = self.0.fetch_add(1, Ordering::Relaxed) + 1;
            (count < 3).then(|| count.to_string())
        }
    }

    fn secrets() -> Secrets {
        Secrets::new(Box::new(Counting(AtomicUsize::new(0))))
    }

    #[test]
    fn a_passphrase_is_asked_once_until_it_is_wrong() {
        let (secrets, key) = (secrets(), Path::new("/k"));
        for (wrong, answer) in [
            (None, Some("1")),
            (None, Some("1")),
            (Some("1"), Some("2")),
            (Some("1"), Some("2")),
            (Some("2"), None),
            (None, None),
        ] {
            assert_eq!(secrets.passphrase(key, wrong).as_deref(), answer);
        }
    }

    #[test]
    fn a_password_serves_the_other_hosts_of_the_user() {
        let secrets = secrets();
        assert_eq!(secrets.password("root", "a", None).as_deref(), Some("1"));
        assert_eq!(secrets.password("root", "b", None).as_deref(), Some("1"));
        assert_eq!(
            secrets.password("root", "b", Some("1")).as_deref(),
            Some("2")
        );
        assert_eq!(secrets.password("admin", "a", None), None);
    }
}
