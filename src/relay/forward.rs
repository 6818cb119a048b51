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

/// A neighbour that needed longer for the last chunk may be replaced within this one,
const DOUBT: Duration = Duration::from_secs(1);

/// so that many of its pieces are kept for another neighbour.
const KEPT: usize = 32;

/// How often a sender that has nothing to do looks for a new neighbour.
const POLL: Duration = Duration::from_millis(100);

/// Passes frames on to a neighbour that can be changed at any time. Frames without a neighbour go
/// nowhere. Another neighbour gets the chunk at hand from its beginning if that is still there,
/// otherwise from the next one on.
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
            hand: Hand::new(None, false),
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

impl Hand {
    fn new(frame: Option<Frame>, keeps: bool) -> Self {
        Self {
            frame,
            began: Instant::now(),
            pieces: Vec::new(),
            is_whole: true,
            keeps,
        }
    }

    /// Whether the neighbour has not shown with this that it takes chunks quickly.
    fn was_long(&self) -> bool {
        self.frame.is_none() || self.began.elapsed() >= DOUBT
    }

    /// Gives the piece back when it is not kept.
    fn keep(&mut self, piece: Buffer) -> Option<Buffer> {
        if self.pieces.len() == KEPT {
            self.keeps = false;
            self.pieces.clear();
        }
        self.is_whole &= self.keeps;
        if !self.keeps {
            return Some(piece);
        }
        self.pieces.push(piece);
        None
    }
}

/// The thread behind a [`Forward`].
struct Sender {
    identity: Arc<Identity>,
    listener: Listener,
    link: Arc<Link>,
    generation: u64,
    stream: Option<(SocketAddr, Sending)>,
    hand: Hand,
}

/// What was sent since the last header, for a neighbour that is set meanwhile.
struct Hand {
    /// None when its rest will not come.
    frame: Option<Frame>,
    began: Instant,
    pieces: Vec<Buffer>,
    /// Nothing of it was dropped.
    is_whole: bool,
    /// Pieces are kept.
    keeps: bool,
}

impl Sender {
    fn run(mut self, items: &Receiver<Item>) {
        loop {
            match items.recv_timeout(POLL) {
                Ok(item) => self.take(item),
                Err(RecvTimeoutError::Timeout) if self.is_behind() => self.begin_again(),
                Err(RecvTimeoutError::Timeout) => {}
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
                let in_doubt = self.is_behind() || self.hand.was_long();
                self.hand = Hand::new(Some(frame), in_doubt);
                self.begin_again();
            }
            Item::Piece(bytes) => match self.hand.keep(bytes) {
                _ if self.hand.is_whole && self.is_behind() => self.begin_again(),
                Some(bytes) => self.send(&bytes),
                None => self.send_kept(self.hand.pieces.len() - 1),
            },
            Item::Abort => {
                self.hand = Hand::new(None, false);
                if self.stream.is_some() {
                    self.close();
                    // Older than any wish: the next frame connects anew.
                    self.generation = 0;
                }
            }
        }
    }

    /// Another neighbour is wished for.
    fn is_behind(&self) -> bool {
        self.link.lock().generation != self.generation
    }

    /// Sends what is at hand, if all of it still is, to the neighbour that is wished for. One that
    /// is set after the end of the round must hear of that end: no further frame would come, and
    /// it would wait for a feeder for ever.
    fn begin_again(&mut self) {
        let Some(frame) = self.hand.frame.filter(|_| self.hand.is_whole) else {
            return;
        };
        self.follow_wish();
        self.send(&frame.to_bytes());
        self.send_kept(0);
        if frame == Frame::End {
            self.flush();
        }
    }

    /// Sends the pieces at hand from this one on.
    fn send_kept(&mut self, from: usize) {
        let pieces = std::mem::take(&mut self.hand.pieces);
        for piece in &pieces[from..] {
            self.send(piece);
        }
        self.hand.pieces = pieces;
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
