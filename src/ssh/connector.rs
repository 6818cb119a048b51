//! Opening sessions: stream, handshake, host key, login. In this order; nothing of ours is shown
//! to a host that has not proved its key.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use super::auth::log_in;
use super::hosts::Node;
use super::known_hosts::{self, HostKey, KnownHosts, Place, Verdict, lookup_name};
use super::secrets::{Prompt, Secrets};
use super::session::Session;
use super::settings::Settings;
use super::transport::{JumpTrust, Transport};
use crate::error::{Error, Result};

/// For each step of handshake and login, in milliseconds; sshd may look up names meanwhile.
const STEP_TIMEOUT: u32 = 30_000;

/// Opens sessions to the nodes of one run. Threads share it.
pub struct Connector {
    known_hosts: Option<PathBuf>,
    accept_new: bool,
    secrets: Secrets,
    /// One thread at a time adds keys.
    adding: Mutex<()>,
}

impl Connector {
    /// `known_hosts` replaces the files of the ssh configuration. With `accept_new`, keys of
    /// hosts that are in none of the files are added to the first. Secrets come from `prompt`.
    #[must_use]
    pub fn new(known_hosts: Option<PathBuf>, accept_new: bool, prompt: Box<dyn Prompt>) -> Self {
        Self {
            known_hosts,
            accept_new,
            secrets: Secrets::new(prompt),
            adding: Mutex::new(()),
        }
    }

    /// Connects to a node and logs in. Errors name it, and say what to do.
    pub fn connect(&self, node: &Node) -> Result<Session> {
        self.connect_to(node)
            .map_err(|error| error.at(&node.address))
    }

    fn connect_to(&self, node: &Node) -> Result<Session> {
        let mut settings = Settings::of(node)?;
        if let Some(file) = &self.known_hosts {
            settings.known_hosts = vec![file.clone()];
        }
        let handle = Mutex::new(None);
        let open = || {
            let (session, socket) = self.open(&settings)?;
            *handle.lock().unwrap_or_else(PoisonError::into_inner) = Some(socket);
            Ok(session)
        };
        let session = log_in(&open, &settings, &self.secrets)?;
        let socket = handle.into_inner().unwrap_or_else(PoisonError::into_inner);
        let socket = socket.ok_or_else(|| Error::Failed("the connection is gone".into()))?;
        Session::start(&node.address, node.sudo, session, socket)
    }

    /// Up to the proof of the host key. Also returns a handle to wait for the socket.
    fn open(&self, settings: &Settings) -> Result<(ssh2::Session, std::os::fd::OwnedFd)> {
        let name = match &settings.host_key_alias {
            Some(alias) => alias.to_ascii_lowercase(),
            None => lookup_name(&settings.host, settings.port),
        };
        let known = KnownHosts::read(&settings.known_hosts)?;
        let trust = JumpTrust {
            known_hosts: self.known_hosts.as_deref(),
            accept_new: self.accept_new,
        };
        let transport = Transport::open(settings, &trust)?;
        let (socket, complaints) = (transport.handle()?, transport.complaints()?);
        let mut session = ssh2::Session::new().map_err(|cause| unusable(&cause))?;
        session.set_timeout(STEP_TIMEOUT);
        session
            .method_pref(ssh2::MethodType::HostKey, &known.algorithms(&name))
            .map_err(|cause| unusable(&cause))?;
        session.set_tcp_stream(transport);
        if let Err(cause) = session.handshake() {
            let said = complaints.map(super::transport::Complaints::read);
            return Err(no_handshake(&cause, settings, said.as_deref()));
        }
        let key = match session.host_key() {
            Some((key, _)) => HostKey(key.to_vec()),
            None => return Err(Error::HostKey("the server shows no host key".into())),
        };
        self.judge(&known, &name, &key, settings)?;
        Ok((session, socket))
    }

    /// Accepts the key, or says why not and what to do.
    fn judge(
        &self,
        known: &KnownHosts,
        name: &str,
        key: &HostKey,
        settings: &Settings,
    ) -> Result<()> {
        let (kind, fingerprint) = (key.kind(), key.fingerprint());
        match known.check(name, key) {
            Verdict::Known => Ok(()),
            Verdict::Unknown if self.accept_new => {
                let _one_at_a_time = self.adding.lock().unwrap_or_else(PoisonError::into_inner);
                match settings.known_hosts.first() {
                    Some(file) => known_hosts::append(file, name, key),
                    None => Ok(()),
                }
            }
            Verdict::Unknown => Err(Error::HostKey(format!(
                "its host key is not known: {kind} {fingerprint}. Compare that with \
                 `ssh-keygen -lf` of the key in /etc/ssh on its console; then call again with \
                 --accept-new-host-keys{}",
                known.authority().map_or(String::new(), no_authority)
            ))),
            Verdict::Changed(place) => Err(Error::HostKey(format!(
                "its host key has changed: it shows {kind} {fingerprint}, and line {} of {} says \
                 otherwise. Somebody may pose as the node. If it was reinstalled, remove that line \
                 (`ssh-keygen -f {1} -R '{name}'`)",
                place.line,
                place.file.display(),
            ))),
            Verdict::Revoked(place) => Err(Error::HostKey(format!(
                "its host key {kind} {fingerprint} is revoked by line {} of {}; give the node a \
                 new key",
                place.line,
                place.file.display(),
            ))),
        }
    }
}

/// libssh2 asks for plain host keys only, never for certificates.
fn no_authority(place: &Place) -> String {
    format!(
        ". The certificate authority in line {} of {} is of no help: host certificates are not checked",
        place.line,
        place.file.display()
    )
}

/// For what only happens without memory.
fn unusable(cause: &ssh2::Error) -> Error {
    Error::Failed(format!("cannot start an ssh session: {cause}"))
}

fn no_handshake(cause: &ssh2::Error, settings: &Settings, said: Option<&str>) -> Error {
    let cause = match (said, &settings.jump) {
        (Some(said), Some(jump)) if !said.is_empty() => {
            format!("jumping over {jump} failed: {said}")
        }
        _ => format!(
            "port {} does not complete an ssh handshake ({cause}); is it sshd, and not too busy?",
            settings.port
        ),
    };
    Error::Failed(cause)
}
