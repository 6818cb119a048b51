//! The agent's loop: calls come in as lines, answers and events go out as lines, until the
//! control channel ends. Then everything that the agent started ends too.

use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::child::{Children, lock};
use super::data::DataPort;
use super::dial::dial;
use super::outbox::Outbox;
use super::protocol::{Answer, Call, Request};
use super::pulse::{Heard, INTERVAL, LIMIT, every_interval};
use super::store::{self, Store};
use super::{collect, exec, http, images};
use crate::bundle::manifest::Manifest;
use crate::error::{Error, Result};

/// Serves until `input` ends. The node's `/` is `root`: `/` itself, except where several nodes
/// share a machine.
pub fn serve(input: impl BufRead, output: impl Write + Send + 'static, root: &Path) -> Result<()> {
    let session = Arc::new(Session {
        root: root.to_owned(),
        outbox: Outbox::new(output)?,
        children: Children::default(),
        store: Mutex::default(),
        prepared: Mutex::default(),
        data: Mutex::default(),
        heard: Heard::default(),
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
    prepared: Mutex<Option<store::Prepared>>,
    data: Mutex<Option<DataPort>>,
    /// When the origin was last heard.
    heard: Heard,
}

fn answer_all(input: impl BufRead, session: &Arc<Session>) -> Result<()> {
    let mut watched = false;
    for line in input.lines() {
        let line =
            line.map_err(|error| Error::Failed(format!("the control channel broke: {error}")))?;
        let Call { id, request } = serde_json::from_str(&line).map_err(|error| {
            Error::Failed(format!("the control channel carries no call: {error}"))
        })?;
        session.heard.now();
        if matches!(request, Request::Ping) && !std::mem::replace(&mut watched, true) {
            watch(session)?;
        }
        let session = Arc::clone(session);
        let work = move || session.answer(id, request);
        thread::Builder::new()
            .spawn(work)
            .map_err(|error| Error::Failed(format!("cannot start a thread: {error}")))?;
    }
    Ok(())
}

/// Ends the process when the origin is silent for too long: the thread that reads would wait for as
/// long as the connection seems to stand, and keep the bundle locked.
fn watch(session: &Arc<Session>) -> Result<()> {
    let session = Arc::clone(session);
    every_interval(move || {
        if session.heard.is_silent() {
            session.children.close();
            process::exit(1);
        }
        true
    })
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
            Request::Facts(question) => {
                let tools = collect::Tools(&self.children);
                let facts = collect::collect(&tools, &self.root, &question);
                Answer::Facts(Box::new(facts))
            }
            Request::Exec {
                argv,
                stdin,
                timeout,
            } => Answer::Exited(exec::run(&self.children, &argv, &stdin, seconds(timeout))?),
            Request::Follow { argv } => {
                Answer::Exited(exec::follow(&self.children, &argv, id, &self.outbox)?)
            }
            Request::Ping => Answer::Done,
            Request::Dial { addresses } => Answer::Dialed {
                failures: dial(&addresses),
            },
            Request::Http { url, body, timeout } => http::request(&url, body, seconds(timeout))?,
            request => self.perform_on_store(request)?,
        })
    }

    /// Requests about a bundle's content.
    fn perform_on_store(&self, request: Request) -> Result<Answer> {
        Ok(match request {
            Request::Look {
                manifest,
                allow_older,
            } => {
                let look = store::look(&self.root, &manifest, allow_older)?;
                Answer::Looked {
                    in_place: look.in_place,
                    lacking: look.lacking,
                }
            }
            Request::Open {
                manifest,
                allow_older,
            } => self.open(&manifest, allow_older)?,
            Request::Inventory => Answer::Missing {
                chunks: self.store()?.inventory()?,
            },
            Request::Seal => done(self.store()?.seal())?,
            Request::LoadImages { name, manifest } => Answer::Loaded {
                loaded: self.load_images(&store::manifest(&self.root, &name, manifest)?)?,
            },
            Request::HasImages { ids } => Answer::HasImages {
                has: images::has(&self.children, &ids),
            },
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
            Request::Versions { name } => Answer::Versions(store::versions(&self.root, &name)?),
            Request::Prepare { name, version } => {
                self.close_store();
                let prepared = store::Prepared::new(&self.root, &name, version)?;
                *lock(&self.prepared) = Some(prepared);
                Answer::Done
            }
            Request::Sync => {
                rustix::fs::sync();
                Answer::Done
            }
            Request::Activate => done(self.activate())?,
            Request::Prune { name } => {
                self.close_store();
                done(store::prune(&self.root, &name))?
            }
            request => self.perform_in_chain(request)?,
        })
    }

    /// Requests about the node's place in the relay chain.
    fn perform_in_chain(&self, request: Request) -> Result<Answer> {
        if let Request::Feed { chunks } = request {
            return self.feed(&chunks);
        }
        let mut data = lock(&self.data);
        if let Request::Listen { port } = request {
            *data = None;
            return data.insert(DataPort::open(port)?).describe();
        }
        let data = data.as_mut().ok_or_else(closed)?;
        done(match request {
            Request::Join { feeders, next } => {
                data.join(self.store()?, feeders, next.as_ref(), &self.outbox)
            }
            Request::Lead => data.lead(&self.outbox),
            Request::Relink { next } => data.relink(next.as_ref()),
            _ => {
                data.leave();
                Ok(())
            }
        })
    }

    fn load_images(&self, manifest: &Manifest) -> Result<u32> {
        images::load(&self.children, &manifest.images, |digest| {
            store::blob(&self.root, &manifest.name, digest)
        })
    }

    fn open(&self, manifest: &str, allow_older: bool) -> Result<Answer> {
        self.close_store();
        let opened = self.open_unlocked(manifest)?;
        if !allow_older {
            opened.refuse_older()?;
        }
        let in_place = opened.in_place();
        *lock(&self.store) = Some(Arc::new(opened));
        Ok(Answer::Opened { in_place })
    }

    /// Waits for the lock as long as an agent whose origin is gone may still hold it.
    fn open_unlocked(&self, manifest: &str) -> Result<Store> {
        let deadline = Instant::now() + LIMIT + 2 * INTERVAL;
        loop {
            match Store::open(&self.root, manifest.to_owned()) {
                Err(Error::Locked(_)) if Instant::now() < deadline => thread::sleep(INTERVAL),
                result => return result,
            }
        }
    }

    fn store(&self) -> Result<Arc<Store>> {
        lock(&self.store)
            .clone()
            .ok_or_else(|| Error::Failed("no bundle was opened on this node".into()))
    }

    /// Not under the lock of the data port: orders must reach it meanwhile.
    fn feed(&self, chunks: &[(u32, u32)]) -> Result<Answer> {
        let store = self.store()?;
        let feeder = lock(&self.data).as_ref().ok_or_else(closed)?.feeder()?;
        let left_out = feeder.feed(&store, chunks)?;
        let told = |(index, error): (u32, Error)| (index, error.exit_code(), error.to_string());
        Ok(Answer::Fed {
            left_out: left_out.into_iter().map(told).collect(),
        })
    }

    fn activate(&self) -> Result<()> {
        let prepared = lock(&self.prepared).take();
        let unprepared = || Error::Failed("no version was prepared on this node".into());
        prepared.ok_or_else(unprepared)?.activate()
    }

    /// Gives up the opened bundle and its lock.
    fn close_store(&self) {
        *lock(&self.store) = None;
        *lock(&self.prepared) = None;
    }
}

fn closed() -> Error {
    Error::Failed("the node's data port is not open".into())
}

fn done(result: Result<()>) -> Result<Answer> {
    result.map(|()| Answer::Done)
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}
