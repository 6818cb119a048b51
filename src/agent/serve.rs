//! The agent's loop: calls come in as lines, answers and events go out as lines, until the
//! control channel ends. Then everything that the agent started ends too.

use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use super::child::{Children, lock};
use super::outbox::Outbox;
use super::protocol::{Answer, Call, Request};
use super::store::{self, Store};
use super::{collect, exec, http};
use crate::error::{Error, Result};

/// Serves until `input` ends. The node's `/` is `root`: `/` itself, except where several nodes
/// share a machine.
pub fn serve(input: impl BufRead, output: impl Write + Send + 'static, root: &Path) -> Result<()> {
    let session = Arc::new(Session {
        root: root.to_owned(),
        outbox: Outbox::new(output)?,
        children: Children::default(),
        store: Mutex::default(),
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
    store: Mutex<Option<Arc<Store>>>,
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
            request => self.perform_on_store(request)?,
        })
    }

    /// Requests about a bundle's content.
    fn perform_on_store(&self, request: Request) -> Result<Answer> {
        Ok(match request {
            Request::Open { manifest } => self.open(manifest)?,
            Request::Inventory => Answer::Missing {
                chunks: self.store()?.inventory()?,
            },
            Request::Seal => done(self.store()?.seal())?,
            Request::Publish => done(self.store()?.publish())?,
            Request::Bundles => Answer::Bundles {
                names: store::names(&self.root)?,
            },
            Request::Installed { name } => Answer::Installed {
                manifest: store::installed(&self.root, &name)?,
            },
            Request::Verify { name } => {
                self.close_store();
                Answer::Verified {
                    damaged: store::verify(&self.root, &name)?,
                }
            }
            Request::Rollback { name } => {
                self.close_store();
                done(store::rollback(&self.root, &name))?
            }
            Request::Prune { name } => {
                self.close_store();
                done(store::prune(&self.root, &name))?
            }
            other => {
                return Err(Error::Failed(format!("cannot do {other:?} yet")));
            }
        })
    }

    fn open(&self, manifest: String) -> Result<Answer> {
        self.close_store();
        let opened = Store::open(&self.root, manifest)?;
        let in_place = opened.in_place();
        *lock(&self.store) = Some(Arc::new(opened));
        Ok(Answer::Opened { in_place })
    }

    fn store(&self) -> Result<Arc<Store>> {
        lock(&self.store)
            .clone()
            .ok_or_else(|| Error::Failed("no bundle was opened on this node".into()))
    }

    /// Gives up the opened bundle and its lock.
    fn close_store(&self) {
        *lock(&self.store) = None;
    }
}

fn done(result: Result<()>) -> Result<Answer> {
    result.map(|()| Answer::Done)
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}
