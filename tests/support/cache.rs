//! A caching proxy in front of a registry, of the kind that knows no ranges: it answers every GET with
//! the whole blob.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// The proxy; its threads end with the test.
pub struct Cache {
    port: u16,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// Path and `Range` of each request.
    asked: Mutex<Vec<(String, Option<String>)>>,
    /// A blob, how many whole answers for it still break off, and after how many bytes.
    breaks: Mutex<(String, usize, u64)>,
}

impl Cache {
    /// Starts one in front of `registry`, a `HOST:PORT`.
    pub fn start(registry: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared::default());
        let (registry, inner) = (registry.to_owned(), Arc::clone(&shared));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (registry, shared) = (registry.clone(), Arc::clone(&inner));
                // A client that hangs up is no matter.
                thread::spawn(move || shared.serve(&stream.unwrap(), &registry));
            }
        });
        Self { port, shared }
    }

    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The next `times` whole answers for a blob break off after so many bytes.
    pub fn break_off(&self, blob: &str, times: usize, after: u64) {
        *self.shared.breaks.lock().unwrap() = (blob.to_owned(), times, after);
    }

    /// How often a blob was asked for since the last call: by a range, and as a whole.
    pub fn requests(&self, blob: &str) -> (usize, usize) {
        let mut asked = self.shared.asked.lock().unwrap();
        let of_blob = asked.extract_if(.., |(path, _)| path.ends_with(blob));
        let (ranged, whole): (Vec<_>, Vec<_>) = of_blob.partition(|(_, range)| range.is_some());
        (ranged.len(), whole.len())
    }
}

impl Shared {
    /// Passes one request on without its range.
    fn serve(&self, client: &TcpStream, registry: &str) -> Option<()> {
        let mut head = vec!["Connection: close".to_owned()];
        let mut range = None;
        for line in BufReader::new(client).lines() {
            let line = line.ok()?;
            match line.to_lowercase().split(": ").next()? {
                "" => break,
                "range" => range = Some(line),
                "host" => head.push(format!("Host: {registry}")),
                _ => head.push(line),
            }
        }
        // The request line comes first.
        head.get(1)?;
        head.swap(0, 1);
        let path = head[0].split(' ').nth(1)?.to_owned();
        let limit = self.limit(&path, range.is_none());
        self.asked.lock().unwrap().push((path, range));
        let mut upstream = TcpStream::connect(registry).ok()?;
        let head = head.join("\r\n") + "\r\n\r\n";
        upstream.write_all(head.as_bytes()).ok()?;
        std::io::copy(&mut upstream.take(limit), &mut &*client).ok()?;
        Some(())
    }

    /// After how many bytes an answer breaks off.
    fn limit(&self, path: &str, is_whole: bool) -> u64 {
        let mut breaks = self.breaks.lock().unwrap();
        if breaks.1 == 0 || !is_whole || !path.ends_with(&breaks.0) {
            return u64::MAX;
        }
        breaks.1 -= 1;
        breaks.2
    }
}
