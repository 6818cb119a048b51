//! `bundle agent` as a real child process, driven over its pipes by the origin's own end.

use std::net::IpAddr;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use bundle::agent::facts::Question;
use bundle::agent::link::Link;
use bundle::agent::protocol::{Answer, Request};

/// A running agent.
struct Agent {
    child: Child,
    link: Link,
    input: Arc<Mutex<Option<ChildStdin>>>,
}

/// The agent's input, which a test can close.
struct Closable(Arc<Mutex<Option<ChildStdin>>>);

impl std::io::Write for Closable {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match &mut *self.0.lock().unwrap() {
            Some(input) => input.write(bytes),
            None => Err(std::io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Agent {
    fn start(root: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_bundle"))
            .args(["agent", "--root"])
            .arg(root)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = Arc::new(Mutex::new(child.stdin.take()));
        let output = child.stdout.take().unwrap();
        let link = Link::new("node", output, Closable(Arc::clone(&input))).unwrap();
        Self { child, link, input }
    }

    fn exec(&self, script: &str) -> Answer {
        let argv = ["sh", "-c", script].map(str::to_owned).to_vec();
        let request = Request::Exec {
            argv,
            stdin: String::new(),
            timeout: 600,
        };
        self.link.call(request).unwrap()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn calls_are_answered_in_any_order() {
    let dir = tempfile::tempdir().unwrap();
    let agent = Agent::start(dir.path());
    let gate = dir.path().join("gate");
    let waiting = format!(
        "until [ -e {} ]; do sleep 0.01; done; echo late",
        gate.display()
    );
    thread::scope(|scope| {
        let slow = scope.spawn(|| agent.exec(&waiting));
        let facts = agent.link.call(Request::Facts(Question {
            address: IpAddr::from([127, 0, 0, 1]),
            paths: vec!["/data".parse().unwrap()],
            ports: Vec::new(),
            containers: true,
        }));
        let Ok(Answer::Facts(facts)) = facts else {
            panic!("{facts:?}");
        };
        assert_eq!(facts.interface.as_deref(), Some("lo"));
        assert_eq!(facts.space[0].path.as_str(), "/data");
        std::fs::write(&gate, "").unwrap();
        let Answer::Exited(exited) = slow.join().unwrap() else {
            panic!();
        };
        assert_eq!(exited.stdout, "late\n");
    });
}

#[test]
fn failures_keep_their_exit_code_and_the_agent_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let agent = Agent::start(dir.path());
    let open = Request::Open {
        manifest: "{}".to_owned(),
        allow_older: false,
    };
    let error = agent.link.call(open).unwrap_err();
    assert_eq!(error.exit_code(), 10);
    let error = agent.link.call(Request::Inventory).unwrap_err().to_string();
    assert!(error.contains("no bundle was opened"), "{error}");
    let Ok(Answer::Bundles { names }) = agent.link.call(Request::Bundles) else {
        panic!();
    };
    assert!(names.is_empty());
}

#[test]
fn followed_lines_come_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let agent = Agent::start(dir.path());
    let argv = ["sh", "-c", "echo one; echo two >&2; exit 4"].map(str::to_owned);
    let mut lines = Vec::new();
    let exited = agent.link.follow(argv.to_vec(), |line| lines.push(line));
    assert_eq!(exited.unwrap().status, 4);
    lines.sort();
    assert_eq!(lines, ["one", "two"]);
}

#[test]
fn the_end_of_the_channel_ends_the_agent_and_all_that_it_started() {
    let dir = tempfile::tempdir().unwrap();
    let mut agent = Agent::start(dir.path());
    let (sender, pids) = std::sync::mpsc::channel();
    thread::scope(|scope| {
        let link = &agent.link;
        scope.spawn(move || {
            let argv = ["sh", "-c", "sleep 1000 & echo $!; wait"].map(str::to_owned);
            let followed = link.follow(argv.to_vec(), |line| sender.send(line).unwrap());
            // The end of the command may be told before the channel is gone.
            assert!(followed.is_err() || followed.is_ok_and(|exited| exited.status != 0));
        });
        let pid = pids.recv().unwrap();
        drop(agent.input.lock().unwrap().take());
        let stat = format!("/proc/{pid}/stat");
        while std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z")) {
            thread::sleep(Duration::from_millis(10));
        }
    });
    assert!(agent.child.wait().unwrap().success());
}
