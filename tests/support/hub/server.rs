//! The two listeners, a thread for each connection, and the log of requests.

use std::collections::BTreeMap;
use std::io::{self, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::content::Content;
use super::deliver::{After, deliver, spoil_answer, spoil_request};
use super::fault::{At, Fault, Script};
use super::http::{Answer, Request};
use super::modelscope;
use super::origin::{self, Ask};
use super::pace::{Pace, Paced};
use super::repos::{Access, Repo};
use super::storage;

/// How a hub behaves.
#[derive(Clone)]
pub struct Options {
    /// Where the hub listens.
    pub listen: SocketAddr,
    /// Where its storage host listens.
    pub storage_listen: SocketAddr,
    /// The token that may see everything.
    pub token: Option<String>,
    /// A valid token of somebody who may see only what is public.
    pub other_token: Option<String>,
    /// How long each answer is held back.
    pub latency: Duration,
    /// The most bytes that it sends in a second, over all connections together.
    pub rate: Option<u64>,
    /// How long signed URLs live.
    pub signed_life: Duration,
    /// Entries on one page of a tree.
    pub page_size: usize,
    /// `Link` headers name the real hub, as they do behind a mirror.
    pub foreign_links: bool,
    /// Speak TLS on both origins.
    pub tls: Option<Arc<rustls::ServerConfig>>,
}

impl Default for Options {
    fn default() -> Self {
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        Self {
            listen: any_port,
            storage_listen: any_port,
            token: None,
            other_token: None,
            latency: Duration::ZERO,
            rate: None,
            signed_life: Duration::from_hours(1),
            page_size: 1000,
            foreign_links: false,
            tls: None,
        }
    }
}

/// A request that was served.
#[derive(Debug, Clone)]
pub struct Logged {
    /// Where.
    pub at: At,
    /// The file, or the repository for the API.
    pub path: String,
    /// As sent.
    pub target: String,
    /// The `Range` header.
    pub range: Option<String>,
    /// Whether there was an `Authorization` header.
    pub authorized: bool,
    /// The status of the answer.
    pub status: u16,
    /// Bytes of the answer's body.
    pub bytes: u64,
}

/// A running hub; it ends when dropped.
pub struct Hub {
    state: Arc<State>,
    address: SocketAddr,
    storage_address: SocketAddr,
}

struct State {
    options: Options,
    storage_port: u16,
    repos: Mutex<BTreeMap<String, Repo>>,
    script: Mutex<Script>,
    log: Mutex<Vec<Logged>>,
    pace: Option<Pace>,
    ended: AtomicBool,
}

/// Which of the two hosts a connection came to.
#[derive(Clone, Copy)]
enum Host {
    Origin,
    Storage,
}

impl Hub {
    /// Starts an empty hub.
    pub fn start(options: Options) -> io::Result<Self> {
        let origin = TcpListener::bind(options.listen)?;
        let storage = TcpListener::bind(options.storage_listen)?;
        let (address, storage_address) = (origin.local_addr()?, storage.local_addr()?);
        let state = Arc::new(State {
            pace: options.rate.map(Pace::new),
            options,
            storage_port: storage_address.port(),
            repos: Mutex::default(),
            script: Mutex::default(),
            log: Mutex::default(),
            ended: AtomicBool::new(false),
        });
        for (listener, host) in [(origin, Host::Origin), (storage, Host::Storage)] {
            let state = Arc::clone(&state);
            thread::spawn(move || accept(&listener, &state, host));
        }
        Ok(Self {
            state,
            address,
            storage_address,
        })
    }

    /// The endpoint for clients.
    pub fn url(&self) -> String {
        format!("{}://{}", self.state.scheme(), self.address)
    }

    /// Makes a commit of these files and moves a branch of a model to it; returns its id.
    pub fn commit<P: Into<String>>(
        &self,
        repo: &str,
        branch: &str,
        files: impl IntoIterator<Item = (P, Content)>,
    ) -> String {
        let files = files
            .into_iter()
            .map(|(path, content)| (path.into(), content))
            .collect();
        lock(&self.state.repos)
            .entry(repo.to_owned())
            .or_default()
            .commit(branch, files)
    }

    /// Says who may see a model.
    pub fn protect(&self, repo: &str, access: Access) {
        lock(&self.state.repos)
            .entry(repo.to_owned())
            .or_default()
            .access = access;
    }

    /// Scripts a fault for some of the requests at a place, counted from 0.
    pub fn fault(&self, at: At, path: &str, requests: Range<usize>, fault: Fault) {
        lock(&self.state.script).add(at, path, requests, fault);
    }

    /// All requests so far, in the order of their answers.
    pub fn log(&self) -> Vec<Logged> {
        lock(&self.state.log).clone()
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.state.ended.store(true, Ordering::Relaxed);
        // A connection lets each listener notice.
        for address in [self.address, self.storage_address] {
            let _ = TcpStream::connect(address);
        }
    }
}

impl State {
    fn scheme(&self) -> &'static str {
        if self.options.tls.is_some() {
            "https"
        } else {
            "http"
        }
    }

    fn ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// Decides on an answer and the fault in its delivery.
    fn answer(&self, host: Host, request: &mut Request) -> (At, String, Answer, Option<Fault>) {
        match host {
            Host::Storage => {
                let (repo, commit, path) = storage::parts(request).unwrap_or_default();
                let fault = lock(&self.script).next(At::Storage, &path);
                spoil_request(request, fault.as_ref());
                let repos = lock(&self.repos);
                let answer = storage::answer(request, repos.get(&repo), &commit, &path);
                (At::Storage, path, answer, fault)
            }
            Host::Origin => {
                if let Some((name, ask)) = modelscope::Ask::parse(request) {
                    let (at, path) = ask.place(&name);
                    return self.origin_answer(request, at, path, &name, |request, repo| {
                        let (_, storage) = self.origins(request);
                        modelscope::answer(&self.options, request, repo, &ask, &storage)
                    });
                }
                let Some((name, ask)) = Ask::parse(request) else {
                    return (At::Api, String::new(), Answer::text(404, "no page"), None);
                };
                let (at, path) = ask.place(&name);
                self.origin_answer(request, at, path, &name, |request, repo| {
                    let (base, storage) = self.origins(request);
                    origin::answer(&self.options, request, repo, &ask, (&base, &storage))
                })
            }
        }
    }

    /// An answer of the hub itself, with the fault that is due.
    fn origin_answer(
        &self,
        request: &mut Request,
        at: At,
        path: &str,
        name: &str,
        answer: impl Fn(&Request, (&str, Option<&Repo>)) -> Answer,
    ) -> (At, String, Answer, Option<Fault>) {
        let fault = lock(&self.script).next(at, path);
        spoil_request(request, fault.as_ref());
        let repos = lock(&self.repos);
        let answer = answer(request, (name, repos.get(name)));
        (at, path.to_owned(), answer, fault)
    }

    /// The hub's and its storage's base URL, by the name that the client uses for the hub.
    fn origins(&self, request: &Request) -> (String, String) {
        let host = request.header("host").unwrap_or("localhost");
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        let scheme = self.scheme();
        (
            format!("{scheme}://{host}"),
            format!("{scheme}://{name}:{}", self.storage_port),
        )
    }
}

fn accept(listener: &TcpListener, state: &Arc<State>, host: Host) {
    for stream in listener.incoming() {
        if state.ended() {
            return;
        }
        let Ok(stream) = stream else { continue };
        let state = Arc::clone(state);
        // A client that goes away is no concern of the hub's.
        thread::spawn(move || serve(stream, &state, host).ok());
    }
}

/// A connection, plain or TLS.
trait Connection: Read + Write + Send {}
impl<T: Read + Write + Send> Connection for T {}

fn serve(stream: TcpStream, state: &State, host: Host) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = stream.try_clone()?;
    let connection: Box<dyn Connection> = match &state.options.tls {
        None => Box::new(stream),
        Some(config) => {
            let session =
                rustls::ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?;
            Box::new(rustls::StreamOwned::new(session, stream))
        }
    };
    let mut reader = BufReader::new(connection);
    while let Some(mut request) = Request::read(&mut reader)? {
        if state.ended() {
            break;
        }
        let (at, path, answer, fault) = state.answer(host, &mut request);
        thread::sleep(state.options.latency);
        let answer = spoil_answer(answer, fault.as_ref());
        let head_only = request.method == "HEAD";
        let mut out = Paced {
            out: reader.get_mut(),
            pace: state.pace.as_ref(),
        };
        // Before the answer: whoever has its bytes may look here at once.
        let number = {
            let mut log = lock(&state.log);
            log.push(Logged {
                at,
                path,
                range: request.header("range").map(str::to_owned),
                authorized: request.header("authorization").is_some(),
                target: request.target,
                status: answer.status,
                bytes: 0,
            });
            log.len() - 1
        };
        let delivered = deliver(&mut out, &answer, head_only, fault.as_ref());
        lock(&state.log)[number].bytes = delivered.as_ref().map_or(0, |(sent, _)| *sent);
        match delivered?.1 {
            After::Keep => {}
            After::Close => break,
            After::Reset => {
                rustix::net::sockopt::set_socket_linger(&socket, Some(Duration::ZERO))?;
                break;
            }
            After::Hang => {
                while !state.ended() {
                    thread::sleep(Duration::from_millis(20));
                }
            }
        }
    }
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
