//! Logging in as a person would: `bundle check` with the user's ssh configuration and agent, and
//! passwords typed on a terminal. Server and client have files of their own in mount namespaces.

use std::fs;
use std::io::{Read as _, Write as _};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::sshd::{GUEST, GUEST_PASSWORD, Sshd, make_key};
use crate::text;

/// A user with hosts.txt and `~/.ssh` of their own.
struct Client {
    dir: tempfile::TempDir,
}

impl Client {
    /// `configuration` is the user's `~/.ssh/config`.
    fn new(hosts: &str, configuration: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ssh = dir.path().join("dotssh");
        fs::create_dir(&ssh).unwrap();
        fs::write(ssh.join("config"), configuration).unwrap();
        fs::write(dir.path().join("hosts.txt"), hosts).unwrap();
        Self { dir }
    }

    fn script(&self, arguments: &str) -> String {
        format!(
            "mkdir -p /root/.ssh; mount --bind {0}/dotssh /root/.ssh; cd {0}; exec {1} check {arguments}",
            self.dir.path().display(),
            env!("CARGO_BIN_EXE_bundle")
        )
    }

    /// Without a terminal.
    fn check(&self, arguments: &str, environment: &[(&str, &str)]) -> Output {
        Command::new("setsid")
            .args(["--wait", "unshare", "--mount", "sh", "-ec"])
            .arg(self.script(arguments))
            .env_remove("SSH_AUTH_SOCK")
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .output()
            .unwrap()
    }

    /// On a terminal, on which each answer is typed after its question. All that it showed.
    fn check_typing(&self, arguments: &str, answers: &[(&str, &str)]) -> String {
        let command = format!("unshare --mount sh -ec '{}'", self.script(arguments));
        let mut child = Command::new("script")
            .args(["--quiet", "--return", "--command", &command, "/dev/null"])
            .env_remove("SSH_AUTH_SOCK")
            .env("NO_COLOR", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (mut keys, mut screen) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut shown = String::new();
        let (mut answers, mut from) = (answers.iter(), 0);
        let mut next = answers.next();
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = screen.read(&mut buffer) {
            shown.push_str(&String::from_utf8_lossy(&buffer[..length]));
            while let Some((question, answer)) = next
                && let Some(at) = shown[from..].find(question)
            {
                from += at + question.len();
                writeln!(keys, "{answer}").unwrap();
                next = answers.next();
            }
        }
        drop(keys);
        child.wait().unwrap();
        assert!(next.is_none(), "never asked {next:?}: {shown}");
        shown
    }
}

/// The line of hosts.txt of a server whose keys and settings come from elsewhere.
fn line(sshd: &Sshd, more: &str) -> String {
    format!("127.0.0.1 port={} {more}\n", sshd.port)
}

fn known(sshd: &Sshd) -> String {
    format!("--known-hosts {}", text(sshd.known_hosts()))
}

/// Whether the only node could be reached, or why not.
fn reached(output: &Output) -> Result<(), String> {
    let stderr = String::from_utf8_lossy(&output.stderr);
    let report: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {stderr}"));
    let cells = &report["nodes"][0]["cells"];
    match cells.get("runtime").or(cells.get("clock")) {
        Some(_) => Ok(()),
        None => Err(cells.to_string()),
    }
}

#[test]
#[ignore = "needs root"]
fn a_password_is_typed_on_the_terminal_and_nowhere_else() {
    let sshd = Sshd::start_with_guest("PasswordAuthentication yes", "/bin/sh", "");
    let client = Client::new(&line(&sshd, &format!("user={GUEST}")), "");
    let question = format!("Password of {GUEST}@127.0.0.1");
    let shown = client.check_typing(
        &known(&sshd),
        &[(&question, "wrong"), (&question, GUEST_PASSWORD)],
    );
    assert!(shown.contains("127.0.0.1  yes"), "{shown}");
    assert!(!shown.contains(GUEST_PASSWORD), "{shown}");
    let refused = reached(&client.check(&format!("--json {}", known(&sshd)), &[])).unwrap_err();
    assert!(refused.contains("no login as guest"), "{refused}");
}

#[test]
#[ignore = "needs root"]
fn a_servers_own_questions_are_answered() {
    // PAM asks; this is its smallest configuration.
    let pam = "printf 'auth required pam_unix.so\\naccount required pam_permit.so\\nsession required pam_permit.so\\n' >$1/pam
        mount --bind $1/pam /etc/pam.d/sshd";
    let sshd = Sshd::start_with_guest(
        "UsePAM yes\nKbdInteractiveAuthentication yes",
        "/bin/sh",
        pam,
    );
    let client = Client::new(&line(&sshd, &format!("user={GUEST}")), "");
    let shown = client.check_typing(&known(&sshd), &[("Password of guest", GUEST_PASSWORD)]);
    assert!(shown.contains("127.0.0.1  yes"), "{shown}");
}

#[test]
#[ignore = "needs root"]
fn a_passphrase_is_typed_on_the_terminal() {
    let sshd = Sshd::start_with_guest("", "/bin/sh", "");
    let key = sshd.path("locked");
    make_key(&key, "open sesame", "ed25519");
    sshd.authorize(&key);
    let hosts = line(&sshd, &format!("user={GUEST} key={}", text(key)));
    let client = Client::new(&hosts, "");
    let shown = client.check_typing(&known(&sshd), &[("Passphrase of", "open sesame")]);
    assert!(shown.contains("127.0.0.1  yes"), "{shown}");
    assert!(!shown.contains("sesame"), "{shown}");
}

#[test]
#[ignore = "needs root"]
fn every_key_of_the_agent_is_tried() {
    let sshd = Sshd::start_with_guest("MaxAuthTries 2", "/bin/sh", "");
    let socket = text(sshd.path("agent"));
    let mut agent = Command::new("ssh-agent")
        .args(["-D", "-a", &socket])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    while !sshd.path("agent").exists() {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let add = |path: std::path::PathBuf| {
        let added = Command::new("ssh-add")
            .arg(path)
            .env("SSH_AUTH_SOCK", &socket)
            .output();
        assert!(added.unwrap().status.success());
    };
    for number in 0..5 {
        let stranger = sshd.path(&format!("stranger{number}"));
        make_key(&stranger, "", "ed25519");
        add(stranger);
    }
    add(sshd.key());
    let client = Client::new(&line(&sshd, &format!("user={GUEST}")), "");
    let arguments = format!("--json {}", known(&sshd));
    let environment = [("SSH_AUTH_SOCK", socket.as_str())];
    let with = reached(&client.check(&arguments, &environment));
    let without = reached(&client.check(&arguments, &[]));
    agent.kill().unwrap();
    agent.wait().unwrap();
    assert_eq!(with, Ok(()));
    assert!(without.is_err());
}

#[test]
#[ignore = "needs root"]
fn the_users_ssh_configuration_leads_over_a_jump_host() {
    let (jump, sshd) = (
        Sshd::start("LogLevel VERBOSE"),
        Sshd::start_with_guest("", "/bin/sh", ""),
    );
    // The jump host's key is checked like any other: `known` goes to both files.
    let known = sshd.path("both");
    let lines = [&jump, &sshd].map(|sshd| sshd.known_line(&sshd.known_name(), "ed25519"));
    fs::write(&known, lines.concat()).unwrap();
    let configuration = format!(
        "Host gateway\n HostName 127.0.0.1\n Port {}\n User root\n IdentityFile {}\n\
         Host gpu1\n HostName 127.0.0.1\n Port {}\n User {GUEST}\n IdentityFile {}/%r\n ProxyJump gateway\n\
         Host *\n UserKnownHostsFile {}\n",
        jump.port,
        text(jump.key()),
        sshd.port,
        text(sshd.path("")),
        text(known.clone())
    );
    fs::copy(sshd.key(), sshd.path(GUEST)).unwrap();
    let client = Client::new("gpu1\n", &configuration);
    assert_eq!(reached(&client.check("--json", &[])), Ok(()));
    assert!(jump.log().contains("Accepted publickey"), "{}", jump.log());
    fs::write(&known, &lines[1]).unwrap();
    let refused = reached(&client.check("--json", &[])).unwrap_err();
    assert!(
        refused.contains("Host key verification failed"),
        "{refused}"
    );
}

#[test]
#[ignore = "needs root"]
fn an_unknown_host_key_is_exit_code_12_and_accepted_on_request() {
    let sshd = Sshd::start_with_guest("", "/bin/sh", "");
    let hosts = line(&sshd, &format!("user={GUEST} key={}", text(sshd.key())));
    let client = Client::new(&hosts, "");
    let first = client.check("", &[]);
    let shown = String::from_utf8_lossy(&first.stdout).into_owned();
    assert_eq!(first.status.code(), Some(12), "{shown}");
    assert!(
        shown.contains("refused!") && shown.contains("SHA256:"),
        "{shown}"
    );
    for arguments in ["--json --accept-new-host-keys", "--json"] {
        assert_eq!(
            reached(&client.check(arguments, &[])),
            Ok(()),
            "{arguments}"
        );
    }
    let file = client.dir.path().join("dotssh/known_hosts");
    fs::write(
        &file,
        Sshd::start("").known_line(&sshd.known_name(), "ed25519"),
    )
    .unwrap();
    let changed = client.check("--accept-new-host-keys", &[]);
    assert_eq!(changed.status.code(), Some(12));
}
