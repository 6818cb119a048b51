//! A small forward proxy: `CONNECT` for https, whole URLs for http. It remembers where it was sent.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// A running proxy; it ends with the process.
pub struct Proxy {
    address: SocketAddr,
    log: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    /// Starts a proxy on a free port.
    pub fn start() -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let log = Arc::new(Mutex::default());
        let shared = Arc::clone(&log);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let log = Arc::clone(&shared);
                // A connection that breaks is the business of its two ends.
                thread::spawn(move || serve(client, &log).ok());
            }
        });
        Ok(Self { address, log })
    }

    /// For clients.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// `METHOD HOST:PORT` of each connection so far.
    pub fn log(&self) -> Vec<String> {
        self.log
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// Joins a client with the server that its first request names. A client of this test suite keeps
/// one connection for each server, as reqwest does.
fn serve(client: TcpStream, log: &Mutex<Vec<String>>) -> io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let mut words = first.split(' ');
    let method = words.next().unwrap_or_default();
    let target = words.next().unwrap_or_default();
    let authority = target
        .trim_start_matches("http://")
        .split('/')
        .next()
        .unwrap_or_default();
    log.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(format!("{method} {authority}"));
    let mut server = TcpStream::connect(authority)?;
    if method == "CONNECT" {
        let mut line = String::from("x");
        while !line.trim_end().is_empty() {
            line.clear();
            reader.read_line(&mut line)?;
        }
        (&client).write_all(b"HTTP/1.1 200 Connected\r\n\r\n")?;
    } else {
        server.write_all(first.as_bytes())?;
    }
    let (mut back, mut to_client) = (server.try_clone()?, client);
    thread::spawn(move || {
        let _ = io::copy(&mut back, &mut to_client);
        let _ = to_client.shutdown(Shutdown::Both);
    });
    io::copy(&mut reader, &mut server)?;
    server.shutdown(Shutdown::Both)
}
