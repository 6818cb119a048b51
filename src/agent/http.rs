//! HTTP requests from the node itself: the API of the cluster may be reachable from here only.

use std::io::Read;
use std::time::Duration;

use reqwest::blocking::Client;
use reqwest::header::CONTENT_TYPE;

use super::protocol::Answer;
use crate::error::{Error, Result};

/// Bytes kept of a body.
const MAX_BODY: u64 = 1 << 20;

/// Sends a GET, or a POST when there is a JSON body. Proxies of the environment are not used:
/// the address is one of the cluster's own.
pub fn request(url: &str, body: Option<String>, timeout: Duration) -> Result<Answer> {
    let fail = |error: reqwest::Error| {
        Error::Failed(format!("no answer from {url}: {}", root_cause(&error)))
    };
    // Another part of the process may have chosen the same provider before.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::builder()
        .no_proxy()
        .timeout(timeout)
        .build()
        .map_err(fail)?;
    let request = match body {
        None => client.get(url),
        Some(body) => client
            .post(url)
            .header(CONTENT_TYPE, "application/json")
            .body(body),
    };
    let response = request.send().map_err(fail)?;
    let status = response.status().as_u16();
    let mut bytes = Vec::new();
    response
        .take(MAX_BODY)
        .read_to_end(&mut bytes)
        .map_err(|error| Error::Failed(format!("the answer from {url} broke off: {error}")))?;
    Ok(Answer::Http {
        status,
        body: String::from_utf8_lossy(&bytes).into_owned(),
    })
}

/// The innermost cause: "connection refused" rather than "error sending request".
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    #[test]
    fn any_status_is_an_answer_and_no_connection_is_a_failure() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/health", listener.local_addr().unwrap());
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut head = [0; 1024];
            let count = stream.read(&mut head).unwrap();
            stream
                .write_all(b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nwait")
                .unwrap();
            String::from_utf8_lossy(&head[..count]).into_owned()
        });
        let timeout = Duration::from_secs(30);
        let answer = request(&url, Some("{}".into()), timeout).unwrap();
        assert!(
            matches!(&answer, Answer::Http { status: 503, body } if body == "wait"),
            "{answer:?}"
        );
        assert!(server.join().unwrap().starts_with("POST /health"));
        let error = request(&url, None, timeout).unwrap_err().to_string();
        assert!(error.contains("refused"), "{error}");
    }
}
