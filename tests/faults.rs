//! What happens in real server rooms, on the test bed: each fault strikes in the middle of an
//! install over eight nodes. The others finish, the node and the cause are named, nothing is ever
//! visible by half, and the same command again sends only what is missing.

#![cfg(test)]

#[path = "support/testbed.rs"]
mod testbed;
#[path = "support/weights.rs"]
mod weights;

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use testbed::{Testbed, text};

const BUNDLE: &str = env!("CARGO_BIN_EXE_bundle");
const FILE: &str = "/data/m/noise/model.safetensors";

/// Bytes of the model: noise, so that what is sent is as long.
const SIZE: usize = 160 << 20;

/// Slow enough to strike within an install, which takes some twelve seconds then.
const RATE: &str = "120mbit";

/// One test bed at a time: two cores carry no more.
static ONE: Mutex<()> = Mutex::new(());

struct Stage {
    bed: Testbed,
    work: tempfile::TempDir,
    sha256: String,
    _one: MutexGuard<'static, ()>,
}

impl Stage {
    /// Eight nodes that have the executable already, then slow links.
    fn set(name: &str) -> Self {
        let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let bed = Testbed::up(&format!("faults-{name}"), &["8", "--no-docker"]);
        let work = tempfile::tempdir().unwrap();
        let noise = weights::Random(11).bytes(SIZE);
        let model = work.path().join("model");
        fs::create_dir(&model).unwrap();
        fs::write(model.join("model.safetensors"), &noise).unwrap();
        let spec = "name = \"noise\"\n[[model]]\nrepo = \"o/noise\"\npath = \"/data/m/noise\"\n";
        fs::write(work.path().join("bundle.toml"), spec).unwrap();
        let pack = ["pack", "--model-dir", "model"];
        text(
            &Command::new(BUNDLE)
                .args(pack)
                .current_dir(work.path())
                .output()
                .unwrap(),
        );
        let sha256 = bundle::digest::Sha256::of(&noise).to_string();
        let stage = Self {
            bed,
            work,
            sha256,
            _one: one,
        };
        stage.bundle("check");
        for node in 1..=8 {
            stage.bed.tool(&["rate", &format!("n{node}"), RATE]);
        }
        stage
    }

    /// Installs a small version before the big one, which stays packed.
    fn install_old(&self) {
        let big = self.work.path().join("noise.bundle");
        let aside = self.work.path().join("big");
        fs::rename(&big, &aside).unwrap();
        fs::write(self.work.path().join("model/model.safetensors"), "old").unwrap();
        let pack = ["pack", "--model-dir", "model"];
        text(
            &Command::new(BUNDLE)
                .args(pack)
                .current_dir(self.work.path())
                .output()
                .unwrap(),
        );
        text(&self.bundle("install --no-start"));
        fs::remove_dir_all(&big).unwrap();
        fs::rename(&aside, &big).unwrap();
    }

    fn check_old_everywhere(&self) {
        for node in 1..=8 {
            let content = self.bed.read(&format!("n{node}"), &["cat", FILE]);
            assert_eq!(content, "old", "n{node}");
        }
    }

    /// Runs a verb on the origin.
    fn bundle(&self, verb: &str) -> Output {
        let hosts = self.bed.variable("TESTBED_HOSTS");
        let known_hosts = self.bed.variable("TESTBED_KNOWN_HOSTS");
        let line = format!(
            "cd {} && exec {BUNDLE} {verb} --hosts {hosts} --known-hosts {known_hosts}",
            self.work.path().display()
        );
        self.bed.exec("origin", &["sh", "-c", &line])
    }

    /// Installs, and lets `strike` happen once node 8 has got some of it.
    fn install_with(&self, strike: impl FnOnce(&Testbed) + Send) -> Output {
        let before = self.received();
        thread::scope(|scope| {
            let install = scope.spawn(|| self.bundle("install --no-start"));
            self.wait_for_data(before);
            strike(&self.bed);
            install.join().unwrap()
        })
    }

    /// Bytes that node 8 has received over its cable.
    fn received(&self) -> u64 {
        self.received_by("n8")
    }

    fn received_by(&self, node: &str) -> u64 {
        let table = self.bed.read(node, &["cat", "/proc/net/dev"]);
        let line = table
            .lines()
            .find(|line| !line.contains(" lo:") && line.contains(": "));
        let numbers = line.and_then(|line| line.split_once(':')).unwrap().1;
        numbers.split_whitespace().next().unwrap().parse().unwrap()
    }

    /// Until node 8 has received 60 MB more than before.
    fn wait_for_data(&self, before: u64) {
        let deadline = Instant::now() + Duration::from_mins(1);
        while Instant::now() < deadline {
            if self.received() > before + 60_000_000 {
                return;
            }
            thread::sleep(Duration::from_millis(200));
        }
        panic!("nothing reached n8 within a minute");
    }

    /// Nothing is visible yet, anywhere.
    fn check_nothing_visible(&self) {
        for node in 1..=8 {
            let shown = self
                .bed
                .exec(&format!("n{node}"), &["test", "-e", "/data/m/noise"]);
            assert!(!shown.status.success(), "n{node} shows unfinished content");
        }
    }

    /// Installs again; returns what it said.
    fn finish(&self) -> String {
        for node in 1..=8 {
            self.bed.tool(&["rate", &format!("n{node}"), "unlimited"]);
        }
        let output = self.bundle("install --no-start");
        text(&output);
        for node in 1..=8 {
            let sum = self.bed.read(&format!("n{node}"), &["sha256sum", FILE]);
            assert!(sum.starts_with(&self.sha256), "n{node}: {sum}");
            let left = self.bed.exec(&format!("n{node}"), &["pgrep", "bundle"]);
            assert!(!left.status.success(), "n{node} still runs an agent");
        }
        String::from_utf8(output.stderr).unwrap()
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The megabytes of the first "sending up to N MB to M of 8 nodes".
fn first_sending(remarks: &str) -> (u64, u64) {
    let rest = remarks
        .split("sending up to ")
        .nth(1)
        .unwrap_or_else(|| panic!("{remarks}"));
    let words: Vec<&str> = rest.split_whitespace().collect();
    (words[0].parse().unwrap(), words[3].parse().unwrap())
}

/// The node is named, nothing is visible, and only that node needs much when called again.
fn check_lost(stage: &Stage, output: &Output, lost: &[&str]) {
    assert_eq!(output.status.code(), Some(3), "{}", said(output));
    for node in lost {
        assert!(said(output).contains(node), "{}", said(output));
    }
    stage.check_nothing_visible();
    let (_, nodes) = first_sending(&stage.finish());
    assert!(
        nodes <= lost.len() as u64,
        "{nodes} nodes lacked something after: {}",
        said(output)
    );
}

#[test]
#[ignore = "needs root and the test bed: make test-long"]
fn the_origin_is_killed() {
    let stage = Stage::set("origin");
    let output = stage.install_with(|bed| {
        // The origin shares the processes of this machine.
        let install = format!(
            "install --no-start --hosts {}",
            bed.variable("TESTBED_HOSTS")
        );
        bed.read("origin", &["pkill", "-9", "-f", &install]);
    });
    assert!(!output.status.success());
    stage.check_nothing_visible();
    let (megabytes, _) = first_sending(&stage.finish());
    assert!(megabytes < 160, "{megabytes} MB were sent again");
}

#[test]
#[ignore = "needs root and the test bed: make test-long"]
fn one_agent_is_killed() {
    let stage = Stage::set("agent");
    let output = stage.install_with(|bed| {
        bed.read("n3", &["pkill", "-9", "bundle"]);
    });
    check_lost(&stage, &output, &["10.77.0.13"]);
}

#[test]
#[ignore = "needs root and the test bed: make test-long"]
fn two_neighbours_are_killed() {
    let stage = Stage::set("neighbours");
    let output = stage.install_with(|bed| {
        for node in ["n4", "n5"] {
            bed.read(node, &["pkill", "-9", "bundle"]);
        }
    });
    check_lost(&stage, &output, &["10.77.0.14", "10.77.0.15"]);
}

#[test]
#[ignore = "needs root and the test bed: make test-long"]
fn a_link_drops_silently_for_good() {
    let stage = Stage::set("link");
    let output = stage.install_with(|bed| {
        bed.tool(&["link", "n6", "down"]);
    });
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    assert!(said(&output).contains("10.77.0.16"), "{}", said(&output));
    stage.check_nothing_visible();
    stage.bed.tool(&["link", "n6", "up"]);
    let (_, nodes) = first_sending(&stage.finish());
    assert_eq!(nodes, 1);
}

#[test]
#[ignore = "needs root and the test bed: make test-long"]
fn a_link_drops_silently_for_twenty_seconds() {
    let stage = Stage::set("pause");
    let output = stage.install_with(|bed| {
        bed.tool(&["link", "n2", "down"]);
        thread::sleep(Duration::from_secs(20));
        bed.tool(&["link", "n2", "up"]);
    });
    // Either the node was caught up in a later round, or it is named.
    match output.status.code() {
        Some(0) => {}
        Some(3) => assert!(said(&output).contains("10.77.0.12"), "{}", said(&output)),
        other => panic!("{other:?}: {}", said(&output)),
    }
    stage.finish();
}

#[test]
#[ignore = "needs root and the test bed: make test-long"]
fn a_node_is_far_too_slow() {
    let stage = Stage::set("slow");
    let output = stage.install_with(|bed| {
        bed.tool(&["rate", "n4", "1mbit"]);
    });
    assert!(
        said(&output).contains("10.77.0.14: it held up the others"),
        "{}",
        said(&output)
    );
    check_lost(&stage, &output, &["10.77.0.14: it is too slow"]);
}

#[test]
#[ignore = "needs root and the test bed: make test-long"]
fn a_disk_is_full() {
    let stage = Stage::set("disk");
    stage.bed.tool(&["disk", "n7", "64M"]);
    let output = stage.bundle("install --no-start");
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    assert!(said(&output).contains("10.77.0.17"), "{}", said(&output));
    stage.check_nothing_visible();
    stage.bed.tool(&["disk", "n7", "1G"]);
    stage.finish();
}

#[test]
#[ignore = "needs root and the test bed: make test-long"]
fn a_bit_of_a_volume_flips() {
    let stage = Stage::set("flip");
    let volume = stage.work.path().join("noise.bundle/vol-0001.tar");
    let output = stage.install_with(|_| flip(&volume));
    assert_eq!(output.status.code(), Some(10), "{}", said(&output));
    assert!(
        said(&output).contains("vol-0001.tar is damaged"),
        "{}",
        said(&output)
    );
    stage.check_nothing_visible();
    flip(&volume);
    let (megabytes, nodes) = first_sending(&stage.finish());
    assert!(
        megabytes <= 17 && nodes == 8,
        "{megabytes} MB to {nodes} nodes"
    );
}

/// Changes a bit near the end, which the stream has not reached yet, and nothing else; twice changes
/// it back.
fn flip(volume: &Path) {
    let file = (File::options().read(true).write(true))
        .open(volume)
        .unwrap();
    let at = file.metadata().unwrap().len() - 3_000_000;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

#[test]
#[ignore = "needs root and the test bed: make test-long"]
fn sshd_is_restarted() {
    let stage = Stage::set("sshd");
    let output = stage.install_with(|bed| {
        bed.tool(&["restart-sshd", "n5"]);
    });
    match output.status.code() {
        Some(0) => {}
        Some(3) => assert!(said(&output).contains("10.77.0.15"), "{}", said(&output)),
        other => panic!("{other:?}: {}", said(&output)),
    }
    stage.finish();
}

#[test]
#[ignore = "needs root and the test bed: make test-long"]
fn the_origin_is_one_of_the_nodes() {
    let stage = Stage::set("member");
    let disk = Path::new(stage.bed.variable("TESTBED_DIR")).join("nodes/n3/data");
    text(
        &Command::new("cp")
            .arg("-r")
            .arg(stage.work.path().join("noise.bundle"))
            .arg(disk)
            .output()
            .unwrap(),
    );
    let before = stage.received_by("n3");
    let line = format!(
        "exec {BUNDLE} install --no-start /data/noise.bundle --hosts {} --known-hosts {}",
        stage.bed.variable("TESTBED_HOSTS"),
        stage.bed.variable("TESTBED_KNOWN_HOSTS")
    );
    text(&stage.bed.exec("n3", &["sh", "-c", &line]));
    // Acknowledgements and calls, but nothing of its own share.
    let came = stage.received_by("n3") - before;
    assert!(came < 16_000_000, "{came} bytes came to the origin itself");
    assert!(stage.received() > SIZE as u64);
    assert!(stage.finish().contains("nothing to send"));
}

#[test]
#[ignore = "needs root and the test bed: make test-long"]
fn disks_that_are_too_small_keep_the_old_version() {
    let stage = Stage::set("small");
    for node in 1..=8 {
        stage.bed.tool(&["disk", &format!("n{node}"), "360M"]);
    }
    stage.install_old();
    let output = stage.bundle("install --no-start");
    assert_eq!(output.status.code(), Some(13), "{}", said(&output));
    stage.check_old_everywhere();
}

/// On ext2, where no blocks can be reserved: somebody else takes them while data comes.
#[test]
#[ignore = "needs root and the test bed: make test-long"]
fn a_disk_fills_while_data_comes() {
    let stage = Stage::set("fills");
    stage.bed.tool(&["disk", "n7", "500M", "ext2"]);
    stage.install_old();
    let output = stage.install_with(|bed| {
        let fill = "dd if=/dev/zero of=/data/other bs=1M 2>/dev/null || true";
        bed.read("n7", &["sh", "-c", fill]);
    });
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    assert!(
        said(&output).contains("10.77.0.17: no space left for /data/m/noise"),
        "{}",
        said(&output)
    );
    stage.check_old_everywhere();
    stage.bed.read("n7", &["rm", "/data/other"]);
    let (_, nodes) = first_sending(&stage.finish());
    assert_eq!(nodes, 1);
}

#[test]
#[ignore = "needs root and the test bed: make test-long"]
fn strangers_connect_to_a_data_port() {
    let stage = Stage::set("strangers");
    let output = stage.install_with(|bed| {
        let listening = bed.read("n5", &["ss", "-Htln"]);
        let ports = listening.lines().filter_map(|line| {
            let local = line.split_whitespace().nth(3)?;
            local.rsplit(':').next()
        });
        let port = ports.into_iter().find(|port| *port != "22").unwrap();
        let script = format!(
            "for i in 1 2 3 4 5 6 7 8 9 10; do exec {{fd}}<>/dev/tcp/10.77.0.15/{port}; \
             [ $((i % 2)) = 0 ] || echo nonsense >&$fd; done; sleep 3"
        );
        bed.read("n8", &["bash", "-c", &script]);
    });
    text(&output);
    assert!(stage.finish().contains("nothing to send"));
}
