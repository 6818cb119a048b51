//! The sending side of a hop: passes bytes on to the next node while they arrive, and never lets
//! a dead neighbour hold up the rest for long.

use std::io::Write as _;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::frame::Frame;
use super::tls::{Identity, Sending};
use super::{Listener, Neighbour, RelayEvent};
use crate::error::{Error, Result};
use crate::parallel::{Buffer, Buffers};

/// Pieces that may wait for the network: 64 of 256 KiB are one chunk.
const QUEUE: usize = 64;

/// A neighbour that takes nothing for so long is given up.
pub const STALL: Duration = Duration::from_secs(10);

/// A handshake that fails sooner may have had to make room for a stranger's; it is tried again.
const SOON: Duration = Duration::from_secs(1);

/// How often a handshake is tried.
const ATTEMPTS: u32 = 3;

/// How often a sender whose round is over looks for a new neighbour.
const POLL: Duration = Duration::from_millis(100);

/// Passes frames on to a neighbour that can be changed at any time. Frames without a neighbour,
/// and the rest of a chunk whose neighbour failed, go nowhere.
pub struct Forward {
    queue: SyncSender<Item>,
    buffers: Buffers,
    link: Arc<Link>,
    /// Microseconds for which the queue was full.
    held: AtomicU64,
    thread: Option<JoinHandle<()>>,
}

enum Item {
    Frame(Frame),
    Piece(Buffer),
    Abort,
}

/// Who is next; shared with whoever changes it.
#[derive(Default)]
struct Link {
    wish: Mutex<Wish>,
}

#[derive(Default)]
struct Wish {
    next: Option<Neighbour>,
    /// Counts changes from 1, so that the sender notices them at the next frame.
    generation: u64,
    /// The connection in use: shut down to wake a sender that is stuck in it.
    open: Option<TcpStream>,
}

/// Changes the neighbour of a [`Forward`] from any thread.
#[derive(Clone)]
pub struct Switch(Arc<Link>);

impl Forward {
    /// Starts the sender, with nobody next.
    pub fn start(identity: Arc<Identity>, listener: Listener) -> Result<Self> {
        let (queue, items) = mpsc::sync_channel(QUEUE);
        let link = Arc::new(Link::default());
        let sender = Sender {
            identity,
            listener,
            link: Arc::clone(&link),
            generation: 0,
            stream: None,
            ended: false,
        };
        let thread = thread::Builder::new()
            .name("forward".into())
            .spawn(move || sender.run(&items))
            .map_err(|error| Error::Failed(format!("cannot start a thread: {error}")))?;
        Ok(Self {
            queue,
            buffers: Buffers::default(),
            link,
            held: AtomicU64::new(0),
            thread: Some(thread),
        })
    }

    /// Queues a header; blocks while the queue is full.
    pub fn frame(&self, frame: Frame) {
        // The sender ends only when this value is dropped.
        let _ = self.queue.send(Item::Frame(frame));
    }

    /// Queues bytes of the chunk whose header was queued last.
    pub fn piece(&self, bytes: &[u8]) {
        let mut piece = self.buffers.take(bytes.len());
        piece.copy_from_slice(bytes);
        let began = Instant::now();
        let _ = self.queue.send(Item::Piece(piece));
        let waited = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.held.fetch_add(waited, Ordering::Relaxed);
    }

    /// For how long the neighbour made others wait so far.
    #[must_use]
    pub fn held(&self) -> Duration {
        Duration::from_micros(self.held.load(Ordering::Relaxed))
    }

    /// The rest of the chunk whose header was queued last will not come. The neighbour learns it
    /// by a new connection.
    pub fn abort(&self) {
        let _ = self.queue.send(Item::Abort);
    }

    /// The handle that changes the neighbour.
    #[must_use]
    pub fn switch(&self) -> Switch {
        Switch(Arc::clone(&self.link))
    }
}

impl Drop for Forward {
    /// Sends what is queued, then closes the connection.
    fn drop(&mut self) {
        let (closed, _) = mpsc::sync_channel(0);
        self.queue = closed;
        if let Some(thread) = self.thread.take() {
            // A panic there was reported by the panic hook already.
            let _ = thread.join();
        }
    }
}

impl Switch {
    /// From the next chunk on everything goes to `next`.
    pub fn set(&self, next: Option<Neighbour>) {
        let mut wish = self.0.lock();
        wish.next = next;
        wish.generation += 1;
        if let Some(open) = wish.open.take() {
            // It may be closed already; all that counts is that nobody stays blocked in it.
            let _ = open.shutdown(Shutdown::Both);
        }
    }
}

impl Link {
    fn lock(&self) -> MutexGuard<'_, Wish> {
        self.wish.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread behind a [`Forward`].
struct Sender {
    identity: Arc<Identity>,
    listener: Listener,
    link: Arc<Link>,
    generation: u64,
    stream: Option<(SocketAddr, Sending)>,
    /// The last frame was the end of the round.
    ended: bool,
}

impl Sender {
    fn run(mut self, items: &Receiver<Item>) {
        loop {
            match items.recv_timeout(POLL) {
                Ok(item) => self.take(item),
                Err(RecvTimeoutError::Timeout) => self.end_for_new_neighbour(),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        if let Some((_, stream)) = &mut self.stream {
            stream.conn.send_close_notify();
            // The round is over for us; a neighbour that is gone by now heard its end or will be
            // missed by the origin.
            let _ = stream.flush();
        }
        self.close();
    }

    fn take(&mut self, item: Item) {
        match item {
            Item::Frame(frame) => {
                self.follow_wish();
                self.send(&frame.to_bytes());
                self.ended = frame == Frame::End;
                if self.ended {
                    self.flush();
                }
            }
            Item::Piece(bytes) => self.send(&bytes),
            Item::Abort if self.stream.is_some() => {
                self.close();
                // Older than any wish: the next frame connects anew.
                self.generation = 0;
            }
            Item::Abort => {}
        }
    }

    /// A neighbour that is set after the end of the round must hear of that end: no further frame
    /// would come, and it would wait for a feeder for ever.
    fn end_for_new_neighbour(&mut self) {
        if self.ended && self.link.lock().generation != self.generation {
            self.take(Item::Frame(Frame::End));
        }
    }

    /// Between frames: changes to the neighbour that is wished for, if it is another one.
    fn follow_wish(&mut self) {
        let (next, generation) = {
            let wish = self.link.lock();
            if wish.generation == self.generation {
                return;
            }
            (wish.next, wish.generation)
        };
        self.generation = generation;
        self.close();
        let Some(next) = next else { return };
        let mut attempts = 1;
        let opened = loop {
            let began = Instant::now();
            match self.open(next) {
                Err(_) if attempts < ATTEMPTS && began.elapsed() < SOON => attempts += 1,
                opened => break opened,
            }
        };
        match opened {
            Ok(stream) => self.stream = Some((next.address, stream)),
            Err(error) => self.fail(next.address, &error.to_string()),
        }
    }

    fn open(&mut self, next: Neighbour) -> Result<Sending> {
        let failed = |cause| Error::Failed(format!("cannot connect to {}: {cause}", next.address));
        let tcp = TcpStream::connect_timeout(&next.address, STALL).map_err(failed)?;
        tcp.set_nodelay(true).map_err(failed)?;
        tcp.set_write_timeout(Some(STALL)).map_err(failed)?;
        tcp.set_read_timeout(Some(STALL)).map_err(failed)?;
        {
            let mut wish = self.link.lock();
            if wish.generation == self.generation {
                wish.open = Some(tcp.try_clone().map_err(failed)?);
            }
        }
        self.identity.connect(tcp, next.fingerprint)
    }

    fn send(&mut self, bytes: &[u8]) {
        if let Some((address, stream)) = &mut self.stream
            && let Err(error) = stream.write_all(bytes)
        {
            let address = *address;
            self.fail(address, &error.to_string());
        }
    }

    fn flush(&mut self) {
        if let Some((address, stream)) = &mut self.stream
            && let Err(error) = stream.flush()
        {
            let address = *address;
            self.fail(address, &error.to_string());
        }
    }

    /// Closes the connection now: the handle in [`Wish`] would keep it open.
    fn close(&mut self) {
        if let Some((_, stream)) = self.stream.take() {
            // It may be closed already.
            let _ = stream.sock.shutdown(Shutdown::Both);
        }
    }

    /// Gives the neighbour up; says so unless somebody changed it meanwhile.
    fn fail(&mut self, next: SocketAddr, cause: &str) {
        self.close();
        let wished = self.link.lock().generation == self.generation;
        if wished {
            let message = format!("{next} takes no more data: {cause}");
            (self.listener)(RelayEvent::NextFailed { next, message });
        }
    }
}
