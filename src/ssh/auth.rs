//! Logging in: agent keys, key files, then passwords. A server that hangs up after some refusals
//! is connected to again, so that every key gets its chance.

use std::path::{Path, PathBuf};

use ssh2::ErrorCode;

use super::key_file::{KeyFile, public_blob};
use super::secrets::Secrets;
use super::settings::{AgentSocket, Settings};
use crate::error::{Error, Result};

/// How often a wrong passphrase or password can be corrected.
const TRIES: usize = 3;

/// `LIBSSH2_ERROR_*` that mean the server said no, as opposed to a key that cannot be used.
const REFUSED: [i32; 2] = [-18, -19];

/// `LIBSSH2_ERROR_*` that mean the connection is gone or dead.
pub(super) const DISCONNECTED: [i32; 6] = [-1, -7, -9, -13, -30, -43];

/// A session that is not logged in yet, and how to get another.
pub(super) struct Login<'a> {
    open: &'a dyn Fn() -> Result<ssh2::Session>,
    session: ssh2::Session,
    settings: &'a Settings,
    secrets: &'a Secrets,
    /// What was tried in vain, and what could not be tried, for the final error.
    tried: Vec<String>,
    /// Refusals on this connection.
    refusals: usize,
}

/// What became of one attempt.
enum Attempt {
    In,
    Refused,
    /// The key cannot be used, e.g. because the passphrase is wrong.
    Unusable,
}

/// Opens a session and logs in. `open` checks the host key before it returns.
pub(super) fn log_in(
    open: &dyn Fn() -> Result<ssh2::Session>,
    settings: &Settings,
    secrets: &Secrets,
) -> Result<ssh2::Session> {
    let mut login = Login {
        open,
        session: open()?,
        settings,
        secrets,
        tried: Vec::new(),
        refusals: 0,
    };
    let methods = login.methods()?;
    let done = login.session.authenticated()
        || methods.contains("publickey") && login.keys()?
        || login.typed()?;
    if done {
        Ok(login.session)
    } else {
        Err(login.failure(&methods))
    }
}

impl Login<'_> {
    /// The methods that the server still accepts, comma-separated. Asking may log in already.
    fn methods(&mut self) -> Result<String> {
        match self.session.auth_methods(&self.settings.user) {
            Ok(methods) => Ok(methods.to_owned()),
            Err(_) if self.session.authenticated() => Ok(String::new()),
            Err(cause) => Err(Error::Failed(format!(
                "sshd ended the conversation before the login ({cause}); see its log there"
            ))),
        }
    }

    /// Key of hosts.txt, agent, other plain keys, and last the keys that need a passphrase.
    fn keys(&mut self) -> Result<bool> {
        let files = self.key_files()?;
        let (named, others): (Vec<_>, Vec<_>) = files
            .into_iter()
            .partition(|(path, _)| Some(path) == self.settings.key.as_ref());
        let plain = |keys: &[(PathBuf, KeyFile)], login: &mut Self| -> Result<bool> {
            for (path, key) in keys.iter().filter(|(_, key)| !key.encrypted) {
                if matches!(login.key(path, key, None)?, Attempt::In) {
                    return Ok(true);
                }
                login.tried.push(path.display().to_string());
            }
            Ok(false)
        };
        if plain(&named, self)? || self.agent()? || plain(&others, self)? {
            return Ok(true);
        }
        for (path, key) in named.iter().chain(&others).filter(|(_, key)| key.encrypted) {
            if self.encrypted_key(path, key)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The private keys that exist; the one of hosts.txt must.
    fn key_files(&self) -> Result<Vec<(PathBuf, KeyFile)>> {
        let mut files = Vec::new();
        if let Some(path) = &self.settings.key {
            files.push((path.clone(), KeyFile::read(path)?));
        }
        for path in &self.settings.identity_files {
            if self.settings.key.as_ref() != Some(path)
                && let Ok(key) = KeyFile::read(path)
            {
                files.push((path.clone(), key));
            }
        }
        Ok(files)
    }

    fn key(&mut self, path: &Path, key: &KeyFile, passphrase: Option<&str>) -> Result<Attempt> {
        let user = &self.settings.user;
        let attempt = attempt(
            &mut self.session,
            self.open,
            &mut self.refusals,
            |session| session.userauth_pubkey_memory(user, None, &key.text, passphrase),
        )?;
        if matches!((&attempt, passphrase), (Attempt::Unusable, None)) {
            self.tried.push(format!(
                "{} is of a kind that is not supported",
                path.display()
            ));
        }
        Ok(attempt)
    }

    fn encrypted_key(&mut self, path: &Path, key: &KeyFile) -> Result<bool> {
        let mut wrong = None;
        for _ in 0..TRIES {
            let Some(passphrase) = self.secrets.passphrase(path, wrong.as_deref()) else {
                break;
            };
            match self.key(path, key, Some(&passphrase))? {
                Attempt::In => return Ok(true),
                Attempt::Refused => {
                    self.tried.push(path.display().to_string());
                    return Ok(false);
                }
                Attempt::Unusable => wrong = Some(passphrase),
            }
        }
        self.tried.push(format!(
            "{} not, for want of its passphrase (add it to ssh-agent)",
            path.display()
        ));
        Ok(false)
    }

    /// All identities of the agent, or those that belong to the configured files.
    fn agent(&mut self) -> Result<bool> {
        let wanted: Option<Vec<Vec<u8>>> = self.settings.identities_only.then(|| {
            let files = self
                .settings
                .identity_files
                .iter()
                .chain(&self.settings.key);
            let public = |path: &PathBuf| public_blob(&path.with_added_extension("pub"));
            files.filter_map(public).collect()
        });
        let identities = match agent_of(&self.session, &self.settings.agent) {
            Some(agent) => agent.identities().unwrap_or_default(),
            None => return Ok(false),
        };
        for identity in identities {
            if wanted
                .as_ref()
                .is_some_and(|blobs| !blobs.iter().any(|blob| blob == identity.blob()))
            {
                continue;
            }
            let settings = self.settings;
            let attempt = attempt(
                &mut self.session,
                self.open,
                &mut self.refusals,
                |session| {
                    let Some(agent) = agent_of(session, &settings.agent) else {
                        return Err(ssh2::Error::unknown());
                    };
                    agent.userauth(&settings.user, &identity)
                },
            )?;
            if matches!(attempt, Attempt::In) {
                return Ok(true);
            }
            self.tried
                .push(format!("agent key {:?}", identity.comment()));
        }
        Ok(false)
    }

    /// A password, or the answers to the server's questions; what the server accepts by now.
    fn typed(&mut self) -> Result<bool> {
        let methods = self.methods()?;
        if self.session.authenticated() {
            return Ok(true);
        }
        if methods.split(',').any(|method| method == "password") {
            self.password()
        } else if methods
            .split(',')
            .any(|method| method == "keyboard-interactive")
        {
            self.questions()
        } else {
            Ok(false)
        }
    }

    fn password(&mut self) -> Result<bool> {
        let Settings { user, host, .. } = self.settings;
        let mut wrong = None;
        for _ in 0..TRIES {
            let Some(password) = self.secrets.password(user, host, wrong.as_deref()) else {
                return Ok(false);
            };
            let attempt = attempt(
                &mut self.session,
                self.open,
                &mut self.refusals,
                |session| session.userauth_password(user, &password),
            )?;
            if matches!(attempt, Attempt::In) {
                return Ok(true);
            }
            wrong = Some(password);
        }
        self.tried.push("password".into());
        Ok(false)
    }

    fn questions(&mut self) -> Result<bool> {
        let settings = self.settings;
        let mut answers = Answers {
            settings,
            secrets: self.secrets,
            password: None,
            gave_up: false,
        };
        for _ in 0..TRIES {
            let attempt = attempt(
                &mut self.session,
                self.open,
                &mut self.refusals,
                |session| session.userauth_keyboard_interactive(&settings.user, &mut answers),
            )?;
            if matches!(attempt, Attempt::In) {
                return Ok(true);
            }
            if answers.gave_up {
                return Ok(false);
            }
        }
        self.tried.push("keyboard-interactive".into());
        Ok(false)
    }

    fn failure(&self, methods: &str) -> Error {
        let Settings { user, host, .. } = self.settings;
        let tried = if self.tried.is_empty() {
            "there was no key to try".to_owned()
        } else {
            format!("tried {}", self.tried.join(", "))
        };
        Error::Failed(format!(
            "no login as {user}: {tried}; sshd there takes {methods}. Name a key with key= in \
             hosts.txt, load one into ssh-agent, or put one there with `ssh-copy-id {user}@{host}`"
        ))
    }
}

/// Tries one credential. A server that hangs up instead of answering is asked again on a new
/// connection, unless this was the first it heard of us there.
fn attempt(
    session: &mut ssh2::Session,
    open: &dyn Fn() -> Result<ssh2::Session>,
    refusals: &mut usize,
    mut credential: impl FnMut(&ssh2::Session) -> std::result::Result<(), ssh2::Error>,
) -> Result<Attempt> {
    loop {
        let error = match credential(session) {
            Ok(()) if session.authenticated() => return Ok(Attempt::In),
            Ok(()) => return Ok(Attempt::Refused),
            Err(error) => error,
        };
        let (ErrorCode::Session(code) | ErrorCode::SFTP(code)) = error.code();
        // A connection that ends while libssh2 waits for the answer has the code of a refusal.
        let hung_up = DISCONNECTED.contains(&code) || error.message().starts_with("Waiting for");
        if !hung_up {
            *refusals += 1;
            return Ok(if REFUSED.contains(&code) {
                Attempt::Refused
            } else {
                Attempt::Unusable
            });
        }
        *session = open()?;
        if std::mem::take(refusals) == 0 {
            return Ok(Attempt::Refused);
        }
    }
}

/// The agent with its identities listed, if one answers.
fn agent_of(session: &ssh2::Session, socket: &AgentSocket) -> Option<ssh2::Agent> {
    let mut agent = session.agent().ok()?;
    match socket {
        AgentSocket::None => return None,
        AgentSocket::Environment => {}
        AgentSocket::At(path) => agent.set_identity_path(path).ok()?,
    }
    agent.connect().ok()?;
    agent.list_identities().ok()?;
    Some(agent)
}

/// Answers a server's questions: the one hidden question for the password from memory.
struct Answers<'a> {
    settings: &'a Settings,
    secrets: &'a Secrets,
    /// The one given last, which was wrong if it is asked for again.
    password: Option<String>,
    gave_up: bool,
}

impl Answers<'_> {
    fn answer(&mut self, question: &str, echo: bool) -> Option<String> {
        let Settings { user, host, .. } = self.settings;
        if !echo && question.to_lowercase().contains("password") {
            let wrong = self.password.take();
            self.password = self.secrets.password(user, host, wrong.as_deref());
            return self.password.clone();
        }
        self.secrets
            .other(&format!("{user}@{host}: {question}"), echo)
    }
}

impl ssh2::KeyboardInteractivePrompt for Answers<'_> {
    fn prompt(
        &mut self,
        _user: &str,
        _instructions: &str,
        prompts: &[ssh2::Prompt<'_>],
    ) -> Vec<String> {
        prompts
            .iter()
            .map(|prompt| {
                self.answer(&prompt.text, prompt.echo).unwrap_or_else(|| {
                    self.gave_up = true;
                    String::new()
                })
            })
            .collect()
    }
}
