//! A registry that wants tokens, in front of a real one that does not: it gives them out, takes
//! each for some requests, and sends those who have one on to another origin, which counts the
//! tokens that it sees and sends all on to the real one.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

/// The gate; its threads end with the test.
pub struct Gate {
    port: u16,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// `METHOD AUTHORIZATION QUERY-OR-BODY` of each request for a token.
    asked: Mutex<Vec<String>>,
    /// Tokens given out, and requests that the last is still good for.
    tokens: Mutex<(usize, usize)>,
    leaks: AtomicUsize,
}

struct Request {
    method: String,
    target: String,
    authorization: Option<String>,
    body: String,
}

impl Gate {
    /// Starts a gate in front of a registry; each token is good for `uses` requests.
    pub fn start(registry: &str, uses: usize) -> Self {
        let shared = Arc::new(Shared::default());
        let (registry, storage) = (registry.to_owned(), Arc::clone(&shared));
        let behind = serve(move |request| {
            storage.leaks.fetch_add(
                usize::from(request.authorization.is_some()),
                Ordering::SeqCst,
            );
            redirect(&format!("http://{registry}{}", request.target))
        });
        let front = Arc::clone(&shared);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        serve_on(listener, move |request| {
            front.answer(request, port, behind, uses)
        });
        Self { port, shared }
    }

    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Requests for tokens since the last call.
    pub fn token_requests(&self) -> Vec<String> {
        std::mem::take(&mut self.shared.asked.lock().unwrap())
    }

    /// Tokens that were shown to another origin.
    pub fn leaks(&self) -> usize {
        self.shared.leaks.load(Ordering::SeqCst)
    }
}

impl Shared {
    fn answer(&self, request: &Request, own: u16, behind: u16, uses: usize) -> String {
        let mut tokens = self.tokens.lock().unwrap();
        if request.target.starts_with("/token") {
            let who = request.authorization.as_deref().unwrap_or("-");
            let asked = format!(
                "{} {who} {}{}",
                request.method, request.target, request.body
            );
            self.asked.lock().unwrap().push(asked);
            *tokens = (tokens.0 + 1, uses);
            let body = format!(r#"{{"token":"t{}"}}"#, tokens.0);
            return format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
        }
        let good = format!("Bearer t{}", tokens.0);
        if request.authorization.as_ref() == Some(&good) && tokens.1 > 0 {
            tokens.1 -= 1;
            return redirect(&format!("http://127.0.0.1:{behind}{}", request.target));
        }
        format!(
            "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nWWW-Authenticate: Bearer \
             realm=\"http://127.0.0.1:{own}/token\",service=\"gate\"\r\n\r\n"
        )
    }
}

fn redirect(to: &str) -> String {
    format!("HTTP/1.1 307 Temporary Redirect\r\nContent-Length: 0\r\nLocation: {to}\r\n\r\n")
}

/// Serves on a free port; returns it.
fn serve(answer: impl Fn(&Request) -> String + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    serve_on(listener, answer);
    port
}

fn serve_on(listener: TcpListener, answer: impl Fn(&Request) -> String + Send + Sync + 'static) {
    let answer = Arc::new(answer);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, answer) = (stream.unwrap(), Arc::clone(&answer));
            thread::spawn(move || {
                let mut reader = BufReader::new(&stream);
                while let Some(request) = read(&mut reader) {
                    (&stream).write_all(answer(&request).as_bytes()).unwrap();
                }
            });
        }
    });
}

fn read(reader: &mut BufReader<&TcpStream>) -> Option<Request> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let header = |name: &str| {
        lines.iter().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then(|| value.to_owned())
        })
    };
    let length = header("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let mut first = lines.first()?.split(' ');
    Some(Request {
        method: first.next()?.to_owned(),
        target: first.next()?.to_owned(),
        authorization: header("authorization"),
        body: String::from_utf8(body).unwrap(),
    })
}
