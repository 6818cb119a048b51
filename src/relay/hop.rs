//! A node's place in the chain for one round: takes the stream from its feeder, passes it on, and
//! keeps what it can check.

use std::collections::HashMap;
use std::io::{self, Read as _};
use std::net::{IpAddr, Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::forward::{Forward, Switch};
use super::frame::{Frame, broken};
use super::keeper::Keeper;
use super::tls::{Identity, Receiving};
use super::{Listener, PIECE, RelayEvent, Store};
use crate::bundle::manifest::Chunk;
use crate::digest::Sha256;
use crate::error::{Error, Result};
use crate::parallel::Buffers;

/// How often progress is reported,
const REPORT: Duration = Duration::from_millis(250);

/// and more often while only a trickle comes: whoever holds up the others is found by it.
const REPORT_TRICKLE: Duration = Duration::from_millis(100);

/// Bytes that are looked at for that, and how long they take to come in a trickle.
const PART: usize = 64 << 10;
const TRICKLE: Duration = Duration::from_millis(30);

/// How often waiting threads look whether they should end.
const POLL: Duration = Duration::from_millis(10);

/// Connections that may be in a handshake at once; see [`victim`].
const MAX_HANDSHAKES: usize = 16;

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// What a hop needs to know.
pub struct Setup {
    /// This node's certificate.
    pub identity: Arc<Identity>,
    /// Its open data port.
    pub port: TcpListener,
    /// Certificates that may feed it.
    pub feeders: Vec<Sha256>,
    /// The chunks of the manifest.
    pub chunks: Arc<[Chunk]>,
    /// Where chunks go.
    pub store: Arc<dyn Store>,
    /// Who hears what happens.
    pub listener: Listener,
}

/// A running hop; dropping it closes its connections and ends its threads.
pub struct Hop {
    switch: Switch,
    current: Arc<Current>,
    threads: Vec<JoinHandle<()>>,
}

/// The connection that data is taken from. A new feeder replaces the old one, even if that one is
/// silent without being closed.
#[derive(Default)]
struct Current(Mutex<Connection>);

#[derive(Default)]
struct Connection {
    stream: Option<TcpStream>,
    /// The hop ends: no more connections.
    closed: bool,
}

impl Hop {
    /// Begins a round, with nobody next yet.
    pub fn start(setup: Setup) -> Result<Self> {
        let Setup {
            identity,
            port,
            feeders,
            chunks,
            store,
            listener,
        } = setup;
        let forward = Forward::start(Arc::clone(&identity), Arc::clone(&listener))?;
        let keeper = Keeper::start(store, Arc::clone(&listener))?;
        let switch = forward.switch();
        let current = Arc::new(Current::default());
        port.set_nonblocking(true)
            .map_err(|error| Error::Failed(format!("cannot use the data port: {error}")))?;
        let (sender, streams) = mpsc::channel();
        let acceptor = Acceptor {
            identity,
            feeders,
            current: Arc::clone(&current),
            streams: sender,
            greeted: Mutex::default(),
        };
        let acceptor = Arc::new(acceptor);
        let of_receiver = Arc::clone(&current);
        let mut intake = Intake {
            chunks,
            forward,
            keeper,
            listener,
            buffers: Buffers::default(),
            received: 0,
            reported: Instant::now(),
            ended: false,
        };
        let threads = vec![
            spawn("accept", move || accept_all(&acceptor, &port))?,
            spawn("receive", move || intake.run(&streams, &of_receiver))?,
        ];
        Ok(Self {
            switch,
            current,
            threads,
        })
    }

    /// Changes who is next.
    #[must_use]
    pub fn switch(&self) -> &Switch {
        &self.switch
    }
}

impl Drop for Hop {
    fn drop(&mut self) {
        self.current.close();
        self.switch.set(None);
        for thread in self.threads.drain(..) {
            // A panic there was reported by the panic hook already.
            let _ = thread.join();
        }
    }
}

impl Current {
    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes `stream` the current one; returns whether the hop still takes any.
    fn replace(&self, stream: TcpStream) -> bool {
        let mut connection = self.lock();
        if connection.closed {
            return false;
        }
        shut_down(connection.stream.replace(stream));
        true
    }

    fn close(&self) {
        let mut connection = self.lock();
        connection.closed = true;
        shut_down(connection.stream.take());
    }

    fn is_closed(&self) -> bool {
        self.lock().closed
    }
}

/// Wakes whoever is blocked in a connection. It may be closed already, which is as good.
fn shut_down(stream: Option<TcpStream>) {
    if let Some(stream) = stream {
        let _ = stream.shutdown(Shutdown::Both);
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    thread::Builder::new()
        .name(name.into())
        .spawn(work)
        .map_err(|error| Error::Failed(format!("cannot start a thread: {error}")))
}

/// Lets feeders in.
struct Acceptor {
    identity: Arc<Identity>,
    feeders: Vec<Sha256>,
    current: Arc<Current>,
    streams: Sender<Receiving>,
    /// Connections in a handshake, oldest first, by a number of their own.
    greeted: Mutex<Vec<Greeted>>,
}

struct Greeted {
    number: u64,
    address: IpAddr,
    stream: TcpStream,
}

/// Who has to go when too many connections are in a handshake: the oldest of the address that has
/// the most. So silent strangers crowd out each other, and never a feeder of another address.
fn victim(addresses: &[IpAddr]) -> Option<usize> {
    if addresses.len() <= MAX_HANDSHAKES {
        return None;
    }
    let mut counts: HashMap<IpAddr, usize> = HashMap::new();
    for &address in addresses {
        *counts.entry(address).or_default() += 1;
    }
    let most = counts.values().copied().max()?;
    addresses.iter().position(|address| counts[address] == most)
}

/// Each handshake has its own thread, so that strangers who say nothing block nobody.
fn accept_all(acceptor: &Arc<Acceptor>, port: &TcpListener) {
    let mut number = 0;
    while !acceptor.current.is_closed() {
        let Ok((tcp, from)) = port.accept() else {
            thread::sleep(POLL);
            continue;
        };
        let Ok(stream) = tcp.try_clone() else {
            continue;
        };
        number += 1;
        acceptor.admit(Greeted {
            number,
            address: from.ip(),
            stream,
        });
        let greeter = Arc::clone(acceptor);
        // Without a thread the connection is closed, and a true feeder reports it.
        let _ = spawn("greet", move || {
            greeter.greet(tcp);
            greeter.lock().retain(|greeted| greeted.number != number);
        });
    }
}

impl Acceptor {
    fn lock(&self) -> MutexGuard<'_, Vec<Greeted>> {
        self.greeted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn admit(&self, newcomer: Greeted) {
        let mut greeted = self.lock();
        greeted.push(newcomer);
        let addresses: Vec<IpAddr> = greeted.iter().map(|greeted| greeted.address).collect();
        if let Some(oldest) = victim(&addresses) {
            shut_down(Some(greeted.remove(oldest).stream));
        }
    }

    /// A stranger has no effect: whatever goes wrong here is not reported.
    fn greet(&self, tcp: TcpStream) {
        let prepared = tcp
            .set_nonblocking(false)
            .and_then(|()| tcp.set_read_timeout(Some(HANDSHAKE)))
            .and_then(|()| tcp.set_write_timeout(Some(HANDSHAKE)))
            .and_then(|()| tcp.try_clone());
        let Ok(handle) = prepared else { return };
        let Ok(stream) = self.identity.accept(tcp, &self.feeders) else {
            return;
        };
        if handle.set_read_timeout(None).is_err() {
            return;
        }
        if self.current.replace(handle) {
            // The receiver ends only together with the hop.
            let _ = self.streams.send(stream);
        }
    }
}

/// The receiving thread's state.
struct Intake {
    chunks: Arc<[Chunk]>,
    forward: Forward,
    keeper: Keeper,
    listener: Listener,
    buffers: Buffers,
    received: u64,
    reported: Instant,
    /// The end of the round has come.
    ended: bool,
}

impl Intake {
    fn run(&mut self, streams: &Receiver<Receiving>, current: &Current) {
        while !current.is_closed() {
            let Ok(mut stream) = streams.recv_timeout(POLL) else {
                continue;
            };
            let message = match self.take_all(&mut stream) {
                Ok(()) => "the feeder closed the connection".to_owned(),
                Err(error) => error.to_string(),
            };
            if !self.ended && !current.is_closed() {
                (self.listener)(RelayEvent::FeederLost { message });
            }
        }
    }

    /// Takes frames until the stream ends.
    fn take_all(&mut self, stream: &mut Receiving) -> Result<()> {
        while let Some(frame) = Frame::read(stream, &self.chunks)? {
            match frame {
                Frame::Chunk { index, length } => self.take_chunk(stream, index, length)?,
                Frame::End => {
                    self.forward.frame(Frame::End);
                    self.ended = true;
                    let complete = self.keeper.finish();
                    self.report();
                    if complete {
                        (self.listener)(RelayEvent::RoundDone);
                    }
                }
            }
        }
        Ok(())
    }

    /// Passes the bytes on while they arrive: a chain that waited for whole chunks would be late
    /// by one chunk per node.
    fn take_chunk(&mut self, stream: &mut Receiving, index: u32, length: u32) -> Result<()> {
        self.forward.frame(Frame::Chunk { index, length });
        let mut stored = self.buffers.aligned(length as usize);
        for piece in stored.chunks_mut(PIECE) {
            if let Err(cause) = self.read_piece(stream, piece) {
                self.forward.abort();
                return Err(broken(&cause));
            }
            self.forward.piece(piece);
        }
        self.keeper.keep(index, stored);
        Ok(())
    }

    fn read_piece(&mut self, stream: &mut Receiving, piece: &mut [u8]) -> io::Result<()> {
        for part in piece.chunks_mut(PART) {
            let began = Instant::now();
            stream.read_exact(part)?;
            self.received += part.len() as u64;
            let due = if began.elapsed() >= TRICKLE {
                REPORT_TRICKLE
            } else {
                REPORT
            };
            if self.reported.elapsed() >= due {
                self.report();
            }
        }
        Ok(())
    }

    fn report(&mut self) {
        self.reported = Instant::now();
        let stored_chunks = self.keeper.stored();
        (self.listener)(RelayEvent::Progress {
            stored_chunks,
            received: self.received,
            held: self.forward.held(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_crowd_out_each_other() {
        let address = |last: u8| IpAddr::from([10, 0, 0, last]);
        let mut waiting = vec![address(1)];
        waiting.extend([address(66); MAX_HANDSHAKES - 1]);
        assert_eq!(victim(&waiting), None);
        waiting.push(address(67));
        assert_eq!(victim(&waiting), Some(1));
        assert_eq!(victim(&[address(1); MAX_HANDSHAKES + 1]), Some(0));
    }
}
