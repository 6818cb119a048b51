//! The agent's loop: calls come in as lines, answers and events go out as lines, until the
//! control channel ends. Then everything that the agent started ends too.

use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::child::Children;
use super::outbox::Outbox;
use super::protocol::{Answer, Call, Request};
use super::{collect, exec, http};
use crate::error::{Error, Result};

/// Serves until `input` ends. The node's `/` is `root`: `/` itself, except where several nodes
/// share a machine.
pub fn serve(input: impl BufRead, output: impl Write + Send + 'static, root: &Path) -> Result<()> {
    let session = Arc::new(Session {
        root: root.to_owned(),
        outbox: Outbox::new(output)?,
        children: Children::default(),
    });
    let result = answer_all(input, &session);
    session.children.close();
    result
}

/// What the calls of one origin share.
struct Session {
    root: PathBuf,
    outbox: Outbox,
    children: Children,
}

fn answer_all(input: impl BufRead, session: &Arc<Session>) -> Result<()> {
    for line in input.lines() {
        let line =
            line.map_err(|error| Error::Failed(format!("the control channel broke: {error}")))?;
        let Call { id, request } = serde_json::from_str(&line).map_err(|error| {
            Error::Failed(format!("the control channel carries no call: {error}"))
        })?;
        let session = Arc::clone(session);
        let work = move || session.answer(id, request);
        thread::Builder::new()
            .spawn(work)
            .map_err(|error| Error::Failed(format!("cannot start a thread: {error}")))?;
    }
    Ok(())
}

impl Session {
    fn answer(&self, id: u64, request: Request) {
        let answer = self
            .perform(id, request)
            .unwrap_or_else(|error| Answer::Failed {
                code: error.exit_code(),
                message: error.to_string(),
            });
        self.outbox.answer(id, answer);
    }

    fn perform(&self, id: u64, request: Request) -> Result<Answer> {
        Ok(match request {
            Request::Facts { address, paths } => Answer::Facts(collect::collect(
                &self.children,
                &self.root,
                address,
                &paths,
            )),
            Request::Exec {
                argv,
                stdin,
                timeout,
            } => Answer::Exited(exec::run(&self.children, &argv, &stdin, seconds(timeout))?),
            Request::Follow { argv } => {
                Answer::Exited(exec::follow(&self.children, &argv, id, &self.outbox)?)
            }
            Request::Http { url, body, timeout } => http::request(&url, body, seconds(timeout))?,
            other => {
                return Err(Error::Failed(format!("cannot do {other:?} yet")));
            }
        })
    }
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}
