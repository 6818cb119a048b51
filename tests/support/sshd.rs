//! A real sshd on loopback with host keys, configuration and authorized keys of its own.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use bundle::ssh::Node;

/// A user who exists for one server only, with the user id 1234.
pub const GUEST: &str = "guest";

/// The guest's password.
pub const GUEST_PASSWORD: &str = "correct horse";

/// [`GUEST_PASSWORD`] as `openssl passwd -6` writes it.
const GUEST_HASH: &str = "$6$testbed$.MTiYkVH/cBHMcUzt1hICLgCLL3pkuJZxSGnrU1YBlVeZqnZgCEoItLJbNIwMG5/fm5CM86lgJ7qonCbGJuZl1";

/// Runs until dropped.
pub struct Sshd {
    dir: tempfile::TempDir,
    server: Child,
    pub port: u16,
}

impl Sshd {
    /// Starts a server with more lines of `sshd_config`. The key of [`Self::key`] logs in.
    pub fn start(configuration: &str) -> Self {
        Self::launch(configuration, None)
    }

    /// Starts a server in a mount namespace of its own, after a shell script that is given the
    /// server's directory. Needs root.
    pub fn start_in(configuration: &str, setup: &str) -> Self {
        Self::launch(configuration, Some(setup))
    }

    /// As [`Self::start_in`], with a user [`GUEST`] who has this login shell and an empty home.
    pub fn start_with_guest(configuration: &str, shell: &str, setup: &str) -> Self {
        let accounts = format!(
            "for file in passwd shadow; do cp /etc/$file $1/$file; done
             echo '{GUEST}:x:1234:1234::/home/{GUEST}:{shell}' >>$1/passwd
             echo '{GUEST}:{GUEST_HASH}:19000:0:99999:7:::' >>$1/shadow
             for file in passwd shadow; do mount --bind $1/$file /etc/$file; done
             mount -t tmpfs tmpfs /home; mkdir /home/{GUEST}; chown 1234 /home/{GUEST}
             mkdir -p /var/lib/bundle; mount -t tmpfs -o mode=755 tmpfs /var/lib/bundle\n"
        );
        Self::launch(configuration, Some(&(accounts + setup)))
    }

    fn launch(configuration: &str, setup: Option<&str>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        // The server reads authorized keys as the user who logs in.
        run("chmod", &["755", dir.path().to_str().unwrap()]);
        make_key(&dir.path().join("key"), "", "ed25519");
        for kind in ["ed25519", "ecdsa"] {
            make_key(&dir.path().join(format!("host_{kind}")), "", kind);
        }
        fs::copy(
            dir.path().join("key.pub"),
            dir.path().join("authorized_keys"),
        )
        .unwrap();
        let port = free_port();
        let file = dir.path().join("sshd_config");
        // The first value of an option counts, so what the test wants stands first.
        let text = format!(
            "{configuration}\nListenAddress 127.0.0.1:{port}\nHostKey {0}/host_ed25519\n\
             HostKey {0}/host_ecdsa\nAuthorizedKeysFile {0}/authorized_keys\nStrictModes no\n\
             PidFile none\nUsePAM no\nPermitRootLogin yes\nMaxStartups 100\n\
             PasswordAuthentication no\nKbdInteractiveAuthentication no\n",
            dir.path().display()
        );
        fs::write(&file, text).unwrap();
        if rustix::process::geteuid().is_root() {
            fs::create_dir_all("/run/sshd").unwrap();
        }
        let log = fs::File::create(dir.path().join("log")).unwrap();
        let mut command = Command::new("/usr/sbin/sshd");
        if let Some(setup) = setup {
            command = Command::new("unshare");
            let script = format!("{setup}\nshift; exec /usr/sbin/sshd \"$@\"");
            command.args(["--mount", "sh", "-euc", &script, "sh"]);
            command.arg(dir.path());
        }
        let server = command
            .args(["-D", "-e", "-f"])
            .arg(&file)
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut sshd = Self { dir, server, port };
        sshd.wait_until_it_listens();
        sshd
    }

    fn wait_until_it_listens(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            let ended = self.server.try_wait().unwrap();
            assert!(ended.is_none(), "{ended:?}: {}", self.log());
            assert!(Instant::now() < deadline, "{}", self.log());
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// A file in the server's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The private key that logs in.
    pub fn key(&self) -> PathBuf {
        self.path("key")
    }

    /// What the server logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// Adds `NAME.pub` to those that log in.
    pub fn authorize(&self, key: &Path) {
        let public = fs::read_to_string(key.with_extension("pub")).unwrap();
        let file = self.path("authorized_keys");
        let old = fs::read_to_string(&file).unwrap();
        fs::write(file, old + &public).unwrap();
    }

    /// The line of hosts.txt for this server, with the key that logs in.
    pub fn node(&self) -> Node {
        Node {
            address: "127.0.0.1".into(),
            user: Some(user()),
            port: Some(self.port),
            key: Some(self.key()),
            ..Node::default()
        }
    }

    /// A `known_hosts` line for the server, from `HOSTS` and one of its keys.
    pub fn known_line(&self, hosts: &str, kind: &str) -> String {
        let public = fs::read_to_string(self.path(&format!("host_{kind}.pub"))).unwrap();
        format!("{hosts} {public}")
    }

    /// How `known_hosts` calls the server.
    pub fn known_name(&self) -> String {
        format!("[127.0.0.1]:{}", self.port)
    }

    /// A file that knows the server's ed25519 key.
    pub fn known_hosts(&self) -> PathBuf {
        let file = self.path("known_hosts");
        fs::write(&file, self.known_line(&self.known_name(), "ed25519")).unwrap();
        file
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
        if thread::panicking() {
            eprintln!("sshd said:\n{}", self.log());
        }
    }
}

/// Who runs the tests.
pub fn user() -> String {
    let output = Command::new("id").arg("-un").output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// `ssh-keygen`, with an empty passphrase for none.
pub fn make_key(path: &Path, passphrase: &str, kind: &str) {
    let path = path.to_str().unwrap();
    run(
        "ssh-keygen",
        &["-q", "-t", kind, "-N", passphrase, "-C", "test", "-f", path],
    );
}

/// Runs a command that must succeed.
pub fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {output:?}"
    );
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}
