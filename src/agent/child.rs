//! Commands that the agent runs: each in a process group of its own, so that it can be ended
//! with all that it started when its time or the control channel is over.

use std::collections::HashMap;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::error::{Error, Result};

/// How often an ending command is looked for, at most.
const POLL: Duration = Duration::from_millis(20);

/// All commands that run now.
#[derive(Clone, Default)]
pub struct Children(Arc<Mutex<Registry>>);

#[derive(Default)]
struct Registry {
    closed: bool,
    next: u64,
    running: HashMap<u64, Arc<Mutex<Child>>>,
}

/// A started command; it is killed when this is dropped before its end.
pub struct Running {
    children: Children,
    key: u64,
    child: Arc<Mutex<Child>>,
    program: String,
}

impl Children {
    /// Starts a command with all three streams piped.
    pub fn spawn(&self, argv: &[String]) -> Result<Running> {
        let (program, rest) = argv
            .split_first()
            .ok_or_else(|| Error::Failed("asked to run an empty command".into()))?;
        let mut registry = lock(&self.0);
        if registry.closed {
            return Err(Error::Interrupted("the agent is ending".into()));
        }
        let child = Command::new(program)
            .args(rest)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(|cause| cannot_run(program, &cause))?;
        let child = Arc::new(Mutex::new(child));
        let key = registry.next;
        registry.next += 1;
        registry.running.insert(key, Arc::clone(&child));
        Ok(Running {
            children: self.clone(),
            key,
            child,
            program: program.clone(),
        })
    }

    /// Kills all commands and lets no more start.
    pub fn close(&self) {
        let mut registry = lock(&self.0);
        registry.closed = true;
        for child in registry.running.values() {
            kill(&mut lock(child));
        }
    }
}

impl Running {
    /// The process, to take its streams.
    pub fn child(&self) -> MutexGuard<'_, Child> {
        lock(&self.child)
    }

    /// Waits for the end, at most until `deadline`: `None` when it is still running then.
    pub fn wait(&self, deadline: Option<Instant>) -> Result<Option<ExitStatus>> {
        let mut pause = Duration::from_millis(1);
        loop {
            let status = self.child().try_wait();
            if let Some(status) = status.map_err(|cause| cannot_run(&self.program, &cause))? {
                return Ok(Some(status));
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Ok(None);
            }
            thread::sleep(pause);
            pause = (pause * 2).min(POLL);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        lock(&self.children.0).running.remove(&self.key);
        kill(&mut self.child());
    }
}

/// Ends a command and what it started, unless it was waited for already: only then may its
/// process number belong to another.
fn kill(child: &mut Child) {
    if !matches!(child.try_wait(), Ok(None)) {
        return;
    }
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        let _ = kill_process_group(pid, Signal::KILL);
    }
    let _ = child.wait();
}

fn cannot_run(program: &str, cause: &io::Error) -> Error {
    if cause.kind() == io::ErrorKind::NotFound {
        return Error::Failed(format!("cannot run {program}: it is not installed here"));
    }
    Error::Failed(format!("cannot run {program}: {cause}"))
}

/// The guard, even when a thread panicked while holding it: the data is whole between calls.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
