//! The thread that drives a session: moves bytes between its SSH channels and local sockets,
//! keeps the connection alive, and notices when it is dead.
//!
//! libssh2 is not blocking here. Its one rule: a packet that was sent in part must be finished by
//! the same call before any other packet is sent; [`Line::complete`] sees to that. It cannot
//! deadlock, because sshd reads packets however much output of its own waits.

use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::conduit::Conduit;
use super::session::{Ended, Lost};

/// How often the far side is asked for a sign of life.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// The connection is dead when nothing was heard, or nothing could be sent, for so long.
const DEAD: Duration = Duration::from_secs(30);

/// When to look again for what no socket announces.
const SOON: Duration = Duration::from_millis(20);

/// A command to run.
pub(super) struct Order {
    pub command: String,
    /// Not blocking; carries its standard input and output.
    pub local: UnixStream,
    pub ended: SyncSender<Result<Ended, Lost>>,
}

/// A session and the handle to wait for its socket.
pub(super) struct Line {
    pub session: ssh2::Session,
    socket: OwnedFd,
}

/// Everything that the thread owns.
pub(super) struct Pump {
    line: Line,
    orders: Receiver<Order>,
    bell: UnixStream,
    conduits: Vec<Conduit>,
    heard: Instant,
    asked: Instant,
    /// No more orders can come.
    closed: bool,
}

impl Line {
    /// Calls a libssh2 operation; one that left a packet half sent is repeated until that is
    /// out. `Ok(None)` means that it waits for the far side. The error is that of a lost
    /// connection.
    pub fn complete<T>(
        &self,
        mut operation: impl FnMut() -> io::Result<T>,
    ) -> Result<Option<io::Result<T>>, Lost> {
        loop {
            let result = operation();
            let waits = matches!(&result, Err(cause) if cause.kind() == io::ErrorKind::WouldBlock);
            if !waits {
                return Ok(Some(result));
            }
            match self.session.block_directions() {
                ssh2::BlockDirections::Outbound | ssh2::BlockDirections::Both => {
                    if !self.wait(PollFlags::OUT, DEAD)? {
                        return Err(format!(
                            "the connection is dead: nothing could be sent for {} s",
                            DEAD.as_secs()
                        ));
                    }
                }
                ssh2::BlockDirections::None | ssh2::BlockDirections::Inbound => return Ok(None),
            }
        }
    }

    /// Whether the socket became ready in time.
    fn wait(&self, flags: PollFlags, timeout: Duration) -> Result<bool, Lost> {
        let mut fds = [PollFd::new(&self.socket, flags)];
        match poll(&mut fds, Some(&timespec(timeout))) {
            Ok(ready) => Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => Ok(true),
            Err(errno) => Err(format!("the connection cannot be watched: {errno}")),
        }
    }
}

impl Pump {
    /// `bell` becomes readable when an order was sent, and ends with the session's handle.
    pub fn new(
        session: ssh2::Session,
        socket: OwnedFd,
        orders: Receiver<Order>,
        bell: UnixStream,
    ) -> io::Result<Self> {
        bell.set_nonblocking(true)?;
        session.set_blocking(false);
        session.set_keepalive(true, u32::try_from(KEEPALIVE.as_secs()).unwrap_or(1));
        Ok(Self {
            line: Line { session, socket },
            orders,
            bell,
            conduits: Vec::new(),
            heard: Instant::now(),
            asked: Instant::now(),
            closed: false,
        })
    }

    /// Works until nobody can give orders and all commands have ended, or the connection is lost.
    pub fn run(mut self) {
        if let Err(lost) = self.work() {
            for conduit in self.conduits.drain(..) {
                conduit.end(Err(lost.clone()));
            }
            drop(self.line);
            // Those that were sent meanwhile, and all that come.
            for order in self.orders {
                let _ = order.ended.send(Err(lost.clone()));
            }
        }
    }

    fn work(&mut self) -> Result<(), Lost> {
        loop {
            self.take_orders();
            if self.closed && self.conduits.is_empty() {
                let _ = self.line.session.disconnect(None, "", None);
                return Ok(());
            }
            self.move_bytes()?;
            self.wait()?;
            self.stay_alive()?;
        }
    }

    fn take_orders(&mut self) {
        // One read may take several rings: all orders before them are there already.
        let mut rings = [0; 64];
        while matches!((&self.bell).read(&mut rings), Ok(1..)) {}
        loop {
            match self.orders.try_recv() {
                Ok(order) => {
                    if self.conduits.is_empty() {
                        // Nobody listened before.
                        self.heard = Instant::now();
                    }
                    self.conduits.push(Conduit::new(order));
                }
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Disconnected) => {
                    self.closed = true;
                    return;
                }
            }
        }
    }

    /// Until no conduit can go on. One that starts comes last, and only one at a time: any other
    /// call could take in the packet that it waits for.
    fn move_bytes(&mut self) -> Result<(), Lost> {
        loop {
            let mut moved = false;
            let running = |conduit: &&mut Conduit| !conduit.is_starting();
            for conduit in self.conduits.iter_mut().filter(running) {
                moved |= conduit.step(&self.line)?;
            }
            if let Some(conduit) = self
                .conduits
                .iter_mut()
                .find(|conduit| conduit.is_starting())
            {
                moved |= conduit.step(&self.line)?;
            }
            self.conduits.retain(|conduit| !conduit.is_done());
            if !moved && !self.conduits.iter().any(Conduit::has_news) {
                return Ok(());
            }
        }
    }

    /// Waits for the socket, the bell or a local socket.
    fn wait(&mut self) -> Result<(), Lost> {
        let mut fds = Vec::with_capacity(2 + self.conduits.len());
        if !self.conduits.is_empty() {
            fds.push(PollFd::new(&self.line.socket, PollFlags::IN));
        }
        if !self.closed {
            fds.push(PollFd::new(&self.bell, PollFlags::IN));
        }
        fds.extend(self.conduits.iter().filter_map(Conduit::interest));
        // Of several that close, one may have taken in the last packet of another.
        let closing = self.conduits.iter().filter(|conduit| conduit.is_closing());
        let timeout = if closing.count() > 1 { SOON } else { KEEPALIVE };
        match poll(&mut fds, Some(&timespec(timeout))) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(format!("the connection cannot be watched: {errno}")),
        }
        if !self.conduits.is_empty() && !fds[0].revents().is_empty() {
            self.heard = Instant::now();
        }
        Ok(())
    }

    /// Asks for a sign of life when it is time, and gives up when none came.
    fn stay_alive(&mut self) -> Result<(), Lost> {
        if self.conduits.is_empty() {
            return Ok(());
        }
        if self.heard.elapsed() > DEAD {
            return Err(format!(
                "the connection is dead: no sign of life for {} s",
                DEAD.as_secs()
            ));
        }
        // A full socket shows by itself; and this call would not finish a packet sent in part.
        if self.asked.elapsed() >= KEEPALIVE && self.line.wait(PollFlags::OUT, Duration::ZERO)? {
            self.asked = Instant::now();
            self.line
                .session
                .keepalive_send()
                .map_err(|cause| lost(&cause))?;
        }
        Ok(())
    }
}

/// The sentence for a connection that libssh2 gave up.
pub(super) fn lost(cause: impl std::fmt::Display) -> Lost {
    format!("the ssh connection is lost ({cause})")
}

fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: duration.subsec_nanos().into(),
    }
}
