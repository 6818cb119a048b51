//! TCP connections through a stream of bytes: for ports that cannot be reached, where ssh can. One
//! end takes connections on a loopback port, the other opens each of them again at its side; in
//! between are the standard input and output of two commands, joined by the origin.
//!
//! Nothing is trusted on the way: what is carried is the nodes' own TLS. Both ends give signs of
//! life to each other, through all that is between them.

use std::collections::HashMap;
use std::io::{self, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use super::child::lock;
use super::pulse::{Heard, every_interval};
use crate::error::{Error, Result};
use frame::{Frame, MAX};

mod frame;

/// What an end says when it is ready, before the number of the port that it has opened, or 0.
pub const GREETING: &str = "bundle tunnel ";

/// How long the far port may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(5);

/// A connection whose program takes nothing for so long is closed: it would hold up the others.
const STALL: Duration = Duration::from_secs(10);

/// What both ends have.
struct End {
    output: Mutex<Box<dyn Write + Send>>,
    connections: Mutex<HashMap<u32, Arc<TcpStream>>>,
    heard: Heard,
    /// What the end of a connection at the other side means for the one at this side.
    ending: Shutdown,
}

/// A free port of the loopback interface.
pub fn loopback() -> Result<(TcpListener, SocketAddr)> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| {
            let address = listener.local_addr()?;
            Ok((listener, address))
        })
        .map_err(|cause| Error::Failed(format!("cannot open a loopback port: {cause}")))
}

/// Takes connections and carries them over `input` and `output` until `input` ends. `on_silence`
/// is called when the other end gives no sign of life.
pub fn enter(
    listener: TcpListener,
    input: impl Read,
    output: impl Write + Send + 'static,
    on_silence: fn(),
) -> Result<()> {
    let address = listener.local_addr();
    // Whoever sends into it must learn at once that nobody takes it any more.
    let end = End::start(output, Shutdown::Both, on_silence)?;
    let of_listener = Arc::clone(&end);
    thread::Builder::new()
        .name("enter".into())
        .spawn(move || {
            for (number, stream) in (0..).zip(listener.incoming().map_while(io::Result::ok)) {
                // Known before the other end is told of it, which may close it at once.
                let stream = of_listener.keep(number, stream);
                if of_listener.send(&Frame::Open(number)).is_err() {
                    return;
                }
                of_listener.carry(number, stream);
            }
        })
        .map_err(|cause| Error::Failed(format!("cannot start a thread: {cause}")))?;
    let result = end.take_all(input, |_| None);
    // Wakes the listener, which finds nobody to send to.
    let _ = address.and_then(TcpStream::connect);
    result
}

/// Opens the connections of the other end again, to `address`, until `input` ends. `on_silence`
/// as for [`enter`].
pub fn leave(
    address: SocketAddr,
    input: impl Read,
    output: impl Write + Send + 'static,
    on_silence: fn(),
) -> Result<()> {
    // What was written before the end must arrive.
    let end = End::start(output, Shutdown::Write, on_silence)?;
    end.take_all(input, |number| {
        let stream = TcpStream::connect_timeout(&address, CONNECT);
        if stream.is_err() {
            // An output that is gone shows as the end of the input.
            let _ = end.send(&Frame::Close(number));
        }
        stream.ok()
    })
}

impl End {
    fn start(
        output: impl Write + Send + 'static,
        ending: Shutdown,
        on_silence: fn(),
    ) -> Result<Arc<Self>> {
        let end = Arc::new(Self {
            output: Mutex::new(Box::new(output)),
            connections: Mutex::default(),
            heard: Heard::default(),
            ending,
        });
        let pulse = Arc::downgrade(&end);
        every_interval(move || {
            let Some(end) = pulse.upgrade() else {
                return false;
            };
            if end.heard.is_silent() {
                on_silence();
            }
            end.send(&Frame::Alive).is_ok()
        })?;
        Ok(end)
    }

    fn send(&self, frame: &Frame) -> io::Result<()> {
        let bytes = frame.to_bytes();
        let mut output = lock(&self.output);
        output.write_all(&bytes)?;
        output.flush()
    }

    fn keep(&self, number: u32, stream: TcpStream) -> Arc<TcpStream> {
        // Without a timeout a program that takes nothing would hold up the others, no more.
        let _ = stream.set_write_timeout(Some(STALL));
        let stream = Arc::new(stream);
        lock(&self.connections).insert(number, Arc::clone(&stream));
        stream
    }

    /// Carries what comes in at a connection until it ends.
    fn carry(self: &Arc<Self>, number: u32, stream: Arc<TcpStream>) {
        let end = Arc::clone(self);
        let work = move || {
            let mut buffer = vec![0; MAX];
            while let Ok(length @ 1..) = (&*stream).read(&mut buffer) {
                let bytes = buffer[..length].to_vec();
                if end.send(&Frame::Data(number, bytes)).is_err() {
                    break;
                }
            }
            let _ = end.send(&Frame::Close(number));
            end.close(number, Shutdown::Both);
        };
        if thread::Builder::new().spawn(work).is_err() {
            let _ = self.send(&Frame::Close(number));
            self.close(number, Shutdown::Both);
        }
    }

    fn close(&self, number: u32, how: Shutdown) {
        if let Some(stream) = lock(&self.connections).remove(&number) {
            // It may be closed already.
            let _ = stream.shutdown(how);
        }
    }

    /// Until the input ends; then all connections end. `open` makes one that the other end has got.
    fn take_all(
        self: &Arc<Self>,
        input: impl Read,
        open: impl Fn(u32) -> Option<TcpStream>,
    ) -> Result<()> {
        let mut input = BufReader::with_capacity(2 * MAX, input);
        let result = loop {
            match Frame::read(&mut input) {
                Ok(Some(frame)) => self.take(frame, &open),
                Ok(None) => break Ok(()),
                Err(cause) => {
                    break Err(Error::Failed(format!("the way through ssh broke: {cause}")));
                }
            }
        };
        for (_, stream) in lock(&self.connections).drain() {
            let _ = stream.shutdown(Shutdown::Both);
        }
        result
    }

    fn take(self: &Arc<Self>, frame: Frame, open: &impl Fn(u32) -> Option<TcpStream>) {
        self.heard.now();
        match frame {
            Frame::Alive => {}
            Frame::Open(number) => {
                if let Some(stream) = open(number) {
                    let stream = self.keep(number, stream);
                    self.carry(number, stream);
                }
            }
            Frame::Data(number, bytes) => {
                // The other end may not know yet that this connection is over.
                let stream = lock(&self.connections).get(&number).cloned();
                if stream.is_some_and(|stream| (&*stream).write_all(&bytes).is_err()) {
                    self.close(number, Shutdown::Both);
                }
            }
            Frame::Close(number) => self.close(number, self.ending),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    /// A tunnel to `address`; its entry, and a stream whose shutdown ends it.
    fn tunnel(address: SocketAddr) -> (SocketAddr, UnixStream) {
        let (near, far) = UnixStream::pair().unwrap();
        let (listener, entry) = loopback().unwrap();
        let (near_out, far_out, handle) = (
            near.try_clone().unwrap(),
            far.try_clone().unwrap(),
            near.try_clone().unwrap(),
        );
        thread::spawn(move || enter(listener, near, near_out, || ()));
        thread::spawn(move || leave(address, far, far_out, || ()));
        (entry, handle)
    }

    /// All that comes over the next connection.
    fn take_one(listener: &TcpListener) -> Vec<u8> {
        let (mut stream, _) = listener.accept().unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn connections_go_through_one_after_another_and_whole() {
        let (port, address) = loopback().unwrap();
        let (entry, _handle) = tunnel(address);
        for fill in [1, 2, 3] {
            let sent = vec![fill; 3_000_000];
            let mut stream = TcpStream::connect(entry).unwrap();
            let received = thread::scope(|scope| {
                let received = scope.spawn(|| take_one(&port));
                stream.write_all(&sent).unwrap();
                stream.shutdown(Shutdown::Both).unwrap();
                received.join().unwrap()
            });
            assert!(received == sent);
        }
    }

    #[test]
    fn a_connection_that_ends_at_one_side_ends_at_the_other() {
        let (port, address) = loopback().unwrap();
        let (entry, _handle) = tunnel(address);
        let mut stream = TcpStream::connect(entry).unwrap();
        let (mut far, _) = port.accept().unwrap();
        far.write_all(b"hello").unwrap();
        drop(far);
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
        drop(port);
        // Nobody listens any more.
        let mut refused = TcpStream::connect(entry).unwrap();
        assert!(!matches!(refused.read(&mut [0; 1]), Ok(1..)));
    }

    #[test]
    fn with_the_way_everything_ends() {
        let (port, address) = loopback().unwrap();
        let (entry, handle) = tunnel(address);
        let mut stream = TcpStream::connect(entry).unwrap();
        let (mut far, _) = port.accept().unwrap();
        handle.shutdown(Shutdown::Both).unwrap();
        assert!(!matches!(stream.read(&mut [0; 1]), Ok(1..)));
        assert!(!matches!(far.read(&mut [0; 1]), Ok(1..)));
        while TcpStream::connect(entry).is_ok() {
            thread::yield_now();
        }
    }
}
