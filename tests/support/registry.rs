//! A real `docker-registry` on loopback.

use std::fs::{self, File};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

pub const USER: &str = "user";
pub const PASSWORD: &str = "s3cret";

/// `htpasswd -nbB user s3cret`.
const HTPASSWD: &str = "user:$2y$05$abcdefghijklmnopqrstuuLK7U1u6pVRmL7L1BBM2aS35PSZnDXlK\n";

/// A registry; it ends with this.
pub struct Registry {
    child: Child,
    port: u16,
    dir: TempDir,
    login: Option<String>,
}

impl Registry {
    /// Starts one; with a login it wants that from everybody.
    pub fn start(login: Option<(&str, &str)>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let place = dir.path().display();
        let auth = login.map_or_else(String::new, |_| {
            fs::write(dir.path().join("htpasswd"), HTPASSWD).unwrap();
            format!("auth:\n  htpasswd:\n    realm: test\n    path: {place}/htpasswd\n")
        });
        let config = format!(
            "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {place}/storage\n\
             http:\n  addr: 127.0.0.1:{port}\n{auth}"
        );
        fs::write(dir.path().join("config.yml"), config).unwrap();
        let log = File::create(dir.path().join("log")).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(dir.path().join("config.yml"))
            .stdout(log)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            thread::sleep(Duration::from_millis(20));
        }
        let login = login.map(|(user, password)| format!("{user}:{password}"));
        Self {
            child,
            port,
            dir,
            login,
        }
    }

    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.host())
    }

    /// An image's name for `bundle`.
    pub fn name(&self, image: &str) -> String {
        format!("{}/{image}", self.host())
    }

    /// Copies an OCI layout here.
    pub fn push(&self, layout: &Path, image: &str, options: &[&str]) {
        let from = format!("oci:{}", layout.display());
        self.skopeo(
            "copy",
            &[&["--dest-tls-verify=false"], options, &[&from]].concat(),
            "--dest-creds",
            image,
        );
    }

    /// Copies an image from here to another transport of skopeo's.
    pub fn pull(&self, image: &str, to: &str, options: &[&str]) {
        let mut command = Command::new("skopeo");
        command
            .args(["copy", "--insecure-policy", "--src-tls-verify=false"])
            .args(options);
        let output = command
            .args([&format!("docker://{}", self.name(image)), to])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "skopeo copy {image} to {to}: {said}"
        );
    }

    /// `sha256:HEX` of a tag.
    pub fn digest(&self, image: &str) -> String {
        let options = ["--tls-verify=false", "--format", "{{.Digest}}"];
        self.skopeo("inspect", &options, "--creds", image)
            .trim()
            .to_owned()
    }

    /// Digests of the blobs of an image's layers as they are stored, in hex.
    pub fn blobs(&self, image: &str) -> Vec<String> {
        let manifest = self.skopeo(
            "inspect",
            &["--tls-verify=false", "--raw"],
            "--creds",
            image,
        );
        let manifest: Value = serde_json::from_str(&manifest).unwrap();
        let layers = manifest["layers"].as_array().unwrap().iter();
        layers
            .map(|layer| {
                layer["digest"]
                    .as_str()
                    .unwrap()
                    .trim_start_matches("sha256:")
                    .to_owned()
            })
            .collect()
    }

    /// The file that holds a blob.
    pub fn blob_path(&self, digest: &str) -> PathBuf {
        let below = format!(
            "storage/docker/registry/v2/blobs/sha256/{}/{digest}/data",
            &digest[..2]
        );
        self.dir.path().join(below)
    }

    /// GET requests for a blob so far.
    pub fn reads(&self, digest: &str) -> usize {
        let log = fs::read_to_string(self.dir.path().join("log")).unwrap();
        let requests = log.lines().filter(|line| line.contains("\"GET /v2/"));
        requests
            .filter(|line| line.contains(&format!("/blobs/sha256:{digest} ")))
            .count()
    }

    fn skopeo(&self, verb: &str, options: &[&str], login: &str, image: &str) -> String {
        let mut command = Command::new("skopeo");
        command.args([verb, "--insecure-policy"]).args(options);
        if let Some(secret) = &self.login {
            command.args([login, secret]);
        }
        let output = command
            .arg(format!("docker://{}", self.name(image)))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "skopeo {verb} {image}: {said}");
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
