//! Finds out the node's facts. A fact that cannot be had is absent; nothing here fails.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::child::Children;
use super::exec;
use super::facts::{Facts, Question, Space};
use super::protocol::Exited;
use crate::error::Result;
use crate::fs::{device, free_space};
use crate::path::AbsPath;

mod gpu;
pub mod interface;
mod listeners;
mod runtime;

pub use runtime::find as find_runtime;

/// Longest patience with a tool: a broken GPU driver lets `nvidia-smi` hang.
const PATIENCE: Duration = Duration::from_secs(20);

/// Facts about this node, with its `/` at `root`.
pub fn collect(tools: &Tools, root: &Path, question: &Question) -> Facts {
    let ((gpus, driver), (found, runtime_complaint)) = if question.containers {
        thread::scope(|scope| {
            let gpus = scope.spawn(|| gpu::find(tools));
            let found = runtime::find(tools);
            (gpus.join().unwrap_or_default(), found)
        })
    } else {
        Default::default()
    };
    let (runtime, own) = found
        .map(|found| (found.runtime, found.directories))
        .unzip();
    let mut space: Vec<Space> = (question.paths)
        .iter()
        .filter_map(|path| space_of(path, &path.below(root)))
        .collect();
    space.extend(
        own.into_iter()
            .flatten()
            .filter_map(|path| space_of(&path, Path::new(path.as_str()))),
    );
    Facts {
        hostname: rustix::system::uname().nodename().to_string_lossy().into(),
        interface: interface::owner_of(question.address).unwrap_or_default(),
        gpus,
        driver,
        toolkit: ["nvidia-container-runtime-hook", "nvidia-ctk"]
            .iter()
            .any(|name| on_path(name)),
        listeners: listeners::find(tools, runtime.as_ref(), &question.ports),
        runtime,
        runtime_complaint,
        space,
        clock_ms: now_ms(), // the last: the caller compares it with its own at once
    }
}

/// Runs the node's tools for their output.
pub struct Tools<'a>(pub &'a Children);

impl Tools<'_> {
    /// Standard output of a command that succeeds; `None` when it is not there or fails.
    pub fn output(&self, argv: &[&str]) -> Option<String> {
        let exited = self.run(argv).ok()?;
        (exited.status == 0).then_some(exited.stdout)
    }

    /// Runs a command to its end, within [`PATIENCE`].
    pub fn run(&self, argv: &[&str]) -> Result<Exited> {
        let argv: Vec<String> = argv.iter().map(|&part| part.to_owned()).collect();
        exec::run(self.0, &argv, "", PATIENCE)
    }
}

fn space_of(path: &AbsPath, place: &Path) -> Option<Space> {
    Some(Space {
        path: path.clone(),
        device: device(place).ok()?,
        free: free_space(place).ok()?,
    })
}

fn on_path(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| fs::metadata(dir.join(name)).is_ok_and(|m| m.is_file()))
}

fn now_ms() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_facts() {
        let paths = ["/tmp/not-there-yet/x".parse().unwrap()];
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let children = Children::default();
        let question = Question {
            address: "127.0.0.1".parse().unwrap(),
            paths: paths.to_vec(),
            ports: vec![port, 1],
            containers: false,
        };
        let facts = collect(&Tools(&children), Path::new("/"), &question);
        assert_eq!(facts.interface.as_deref(), Some("lo"));
        assert!(!facts.hostname.is_empty());
        assert_eq!(facts.space[0].path, paths[0]);
        assert!(facts.space[0].free > 0 && facts.space[0].device > 0);
        assert!(facts.clock_ms > 1_700_000_000_000);
        let [taken] = &facts.listeners[..] else {
            panic!("{:?}", facts.listeners);
        };
        assert_eq!((taken.port, taken.container.as_deref()), (port, None));
        assert!(taken.program.as_ref().is_some_and(|name| !name.is_empty()));
    }
}
