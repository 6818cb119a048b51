//! How to reach a node: `hosts.txt` first, then the user's ssh configuration, then ssh's defaults.

use std::env;
use std::io;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::hosts::{Node, expand_home};
use crate::error::{Error, Result};

/// Everything that a connection needs to know before it is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Settings {
    /// Where to connect to.
    pub host: String,
    pub port: u16,
    pub user: String,
    /// The private key of `hosts.txt`.
    pub key: Option<PathBuf>,
    /// Private keys to try besides; they need not exist.
    pub identity_files: Vec<PathBuf>,
    /// Agent keys are tried only when they belong to one of the files.
    pub identities_only: bool,
    pub agent: AgentSocket,
    /// Hosts to go through, as in ssh's `ProxyJump`.
    pub jump: Option<String>,
    /// The first one is where new keys are added.
    pub known_hosts: Vec<PathBuf>,
    /// The name under which the host key is looked up, instead of the host's.
    pub host_key_alias: Option<String>,
}

/// Where the ssh agent listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum AgentSocket {
    /// At `$SSH_AUTH_SOCK`.
    Environment,
    At(PathBuf),
    /// It must not be asked.
    None,
}

impl Settings {
    /// The settings for a node, asking the local ssh client for its configuration if there is one.
    pub fn of(node: &Node) -> Result<Self> {
        let mut settings = Self::defaults(&node.address);
        if let Some(configuration) = ask_client(node)? {
            settings.apply(&configuration)?;
        }
        if let Some(user) = &node.user {
            settings.user.clone_from(user);
        }
        if let Some(port) = node.port {
            settings.port = port;
        }
        settings.key.clone_from(&node.key);
        Ok(settings)
    }

    /// What ssh would do without any configuration.
    fn defaults(address: &str) -> Self {
        let user = env::var("USER").or_else(|_| env::var("LOGNAME"));
        let keys = ["~/.ssh/id_ed25519", "~/.ssh/id_ecdsa", "~/.ssh/id_rsa"];
        let known_hosts = ["~/.ssh/known_hosts", "/etc/ssh/ssh_known_hosts"];
        Self {
            host: address.to_owned(),
            port: 22,
            user: user.unwrap_or_else(|_| "root".into()),
            key: None,
            identity_files: keys.map(expand_home).to_vec(),
            identities_only: false,
            agent: AgentSocket::Environment,
            jump: None,
            known_hosts: known_hosts.map(expand_home).to_vec(),
            host_key_alias: None,
        }
    }

    /// Takes over what `ssh -G` printed: a key and its value a line.
    fn apply(&mut self, configuration: &str) -> Result<()> {
        let (mut user_files, mut global_files) = (Vec::new(), Vec::new());
        let mut identities = Vec::new();
        let files = |value: &str| {
            let files = value.split(' ').filter(|file| *file != "none");
            files.map(expand_home).collect()
        };
        for line in configuration.lines() {
            let (key, value) = line.split_once(' ').unwrap_or((line, ""));
            let set = (!value.is_empty() && value != "none").then(|| value.to_owned());
            match key {
                "hostname" => value.clone_into(&mut self.host),
                "user" => value.clone_into(&mut self.user),
                "port" => self.port = value.parse().unwrap_or(self.port),
                "identityfile" => identities.push(value),
                "identitiesonly" => self.identities_only = value == "yes",
                "identityagent" => self.agent = agent_socket(value),
                "proxyjump" => self.jump = set,
                "hostkeyalias" => self.host_key_alias = set,
                "userknownhostsfile" => user_files = files(value),
                "globalknownhostsfile" => global_files = files(value),
                "proxycommand" if set.is_some() => {
                    return Err(Error::Usage(format!(
                        "the ssh configuration reaches it with ProxyCommand, which bundle does not \
                         run; write ProxyJump instead of `ProxyCommand {value}`"
                    )));
                }
                _ => {}
            }
        }
        let files = identities.iter().map(|file| self.expand_tokens(file));
        self.identity_files = files.map(|file| expand_home(&file)).collect();
        user_files.extend(global_files);
        if !user_files.is_empty() {
            self.known_hosts = user_files;
        }
        Ok(())
    }
}

impl Settings {
    /// The tokens of `ssh_config(5)`, which `ssh -G` leaves in the names of key files.
    fn expand_tokens(&self, text: &str) -> String {
        let home = env::var("HOME").unwrap_or_default();
        let local_user = env::var("USER").unwrap_or_default();
        let mut expanded = String::with_capacity(text.len());
        let mut characters = text.chars();
        while let Some(character) = characters.next() {
            if character != '%' {
                expanded.push(character);
                continue;
            }
            match characters.next() {
                Some('h') => expanded.push_str(&self.host),
                Some('r') => expanded.push_str(&self.user),
                Some('p') => expanded.push_str(&self.port.to_string()),
                Some('d') => expanded.push_str(&home),
                Some('u') => expanded.push_str(&local_user),
                Some('%') => expanded.push('%'),
                // Such a file does not exist, and is passed over.
                other => expanded.extend(['%'].into_iter().chain(other)),
            }
        }
        expanded
    }
}

fn agent_socket(value: &str) -> AgentSocket {
    match value {
        "none" => AgentSocket::None,
        "SSH_AUTH_SOCK" => AgentSocket::Environment,
        path => AgentSocket::At(expand_home(path)),
    }
}

/// What `ssh -G` says for a node; nothing when there is no ssh client on this machine.
fn ask_client(node: &Node) -> Result<Option<String>> {
    let mut command = Command::new("ssh");
    command.arg("-G").stdin(Stdio::null());
    if let Some(user) = &node.user {
        command.args(["-l", user]);
    }
    if let Some(port) = node.port {
        command.args(["-p", &port.to_string()]);
    }
    let output = match command.arg("--").arg(&node.address).output() {
        Ok(output) => output,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(Error::io("run", "ssh")(cause)),
    };
    if !output.status.success() {
        return Err(Error::Usage(format!(
            "the ssh configuration cannot be read (`ssh -G {}`): {}",
            node.address,
            String::from_utf8_lossy(&output.stderr).trim()
        )));
    }
    Ok(Some(String::from_utf8_lossy(&output.stdout).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clients_configuration_is_taken_over() {
        let mut settings = Settings::defaults("gpu1");
        settings
            .apply(
                "host gpu1\nuser admin\nhostname 10.0.0.11\nport 2222\nidentityfile /k/one\n\
                 identityfile /k/%r_%h_%%_%x\nidentitiesonly yes\nidentityagent /run/agent\n\
                 proxyjump bastion:22\nhostkeyalias g\nuserknownhostsfile /u/one none /u/two\n\
                 globalknownhostsfile /etc/g\nproxycommand none\nforwardagent no\n",
            )
            .unwrap();
        let expected = Settings {
            host: "10.0.0.11".into(),
            port: 2222,
            user: "admin".into(),
            key: None,
            identity_files: vec!["/k/one".into(), "/k/admin_10.0.0.11_%_%x".into()],
            identities_only: true,
            agent: AgentSocket::At("/run/agent".into()),
            jump: Some("bastion:22".into()),
            known_hosts: vec!["/u/one".into(), "/u/two".into(), "/etc/g".into()],
            host_key_alias: Some("g".into()),
        };
        assert_eq!(settings, expected);
    }

    #[test]
    fn a_proxy_command_is_refused() {
        let error = Settings::defaults("a")
            .apply("proxycommand nc %h %p")
            .unwrap_err();
        assert!(error.to_string().contains("`ProxyCommand nc %h %p`"));
    }

    #[test]
    fn the_agents_place_is_understood() {
        let cases = [
            ("none", AgentSocket::None),
            ("SSH_AUTH_SOCK", AgentSocket::Environment),
            ("/x", AgentSocket::At("/x".into())),
        ];
        for (value, socket) in cases {
            assert_eq!(agent_socket(value), socket);
        }
    }

    #[test]
    fn hosts_txt_wins() {
        let node = Node {
            address: "127.0.0.1".into(),
            user: Some("admin".into()),
            port: Some(2222),
            key: Some("/k".into()),
            ..Node::default()
        };
        let settings = Settings::of(&node).unwrap();
        assert_eq!(
            (settings.user.as_str(), settings.port, settings.key),
            ("admin", 2222, Some("/k".into()))
        );
    }
}
