//! As much of HTTP/1.1 as a server on the loopback needs.

use std::io::{self, BufRead};

use super::content::Content;

/// A request; none that the hub serves has a body.
#[derive(Debug)]
pub struct Request {
    pub method: String,
    /// As sent, e.g. `/o/m/resolve/main/a%20b`.
    pub target: String,
    headers: Vec<(String, String)>,
}

impl Request {
    /// Reads the next request of a connection; none when the client has closed it.
    pub fn read(reader: &mut impl BufRead) -> io::Result<Option<Self>> {
        let Some(first) = read_line(reader)? else {
            return Ok(None);
        };
        let mut words = first.split(' ');
        let (Some(method), Some(target)) = (words.next(), words.next()) else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        let mut headers = Vec::new();
        while let Some(line) = read_line(reader)?.filter(|line| !line.is_empty()) {
            if let Some((name, value)) = line.split_once(':') {
                headers.push((name.to_lowercase(), value.trim().to_owned()));
            }
        }
        // A client behind a proxy sends the whole URL.
        let target = target.split_once("://").map_or(target, |(_, rest)| {
            rest.find('/').map_or("/", |slash| &rest[slash..])
        });
        Ok(Some(Self {
            method: method.to_owned(),
            target: target.to_owned(),
            headers,
        }))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(key, _)| key == name)?;
        Some(value)
    }

    pub fn remove_header(&mut self, name: &str) {
        self.headers.retain(|(key, _)| key != name);
    }

    /// The parts of the path, decoded.
    pub fn segments(&self) -> Vec<String> {
        let path = self.target.split('?').next().unwrap_or_default();
        path.split('/').skip(1).map(decode).collect()
    }

    /// A parameter of the query, decoded.
    pub fn query(&self, name: &str) -> Option<String> {
        let (_, query) = self.target.split_once('?')?;
        let pair = |part: &str| {
            let (key, value) = part.split_once('=')?;
            // In a query, unlike in a path, a plus is a space.
            (key == name).then(|| decode(&value.replace('+', " ")))
        };
        query.split('&').find_map(pair)
    }

    /// First byte and length of the `Range`, if there is one that fits.
    pub fn range(&self, size: u64) -> Option<(u64, u64)> {
        let (first, last) = self
            .header("range")?
            .strip_prefix("bytes=")?
            .split_once('-')?;
        let first: u64 = first.parse().ok()?;
        let last = last.parse().unwrap_or(u64::MAX).min(size.checked_sub(1)?);
        (first <= last).then(|| (first, last - first + 1))
    }
}

fn read_line(reader: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    Ok(Some(line.trim_end().to_owned()))
}

fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let code = text
            .get(at + 1..at + 3)
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (bytes[at], code) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 3;
            }
            (byte, _) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// An answer.
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Body,
}

/// The body of an answer.
pub enum Body {
    Text(String),
    /// A range of a file.
    Span(Content, u64, u64),
}

impl Body {
    pub fn len(&self) -> u64 {
        match self {
            Self::Text(text) => text.len() as u64,
            Self::Span(_, _, len) => *len,
        }
    }
}

impl Answer {
    pub fn text(status: u16, text: impl Into<String>) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Body::Text(text.into()),
        }
    }

    pub fn json(value: &serde_json::Value) -> Self {
        Self::text(200, value.to_string()).with("content-type", "application/json; charset=utf-8")
    }

    /// A file, or the range of it that is asked for.
    pub fn file(request: &Request, content: &Content) -> Self {
        let size = content.size;
        let (status, offset, len) = match (request.header("range"), request.range(size)) {
            (None, _) => (200, 0, size),
            (Some(_), Some((offset, len))) => (206, offset, len),
            (Some(_), None) => {
                return Self::text(416, "").with("content-range", format!("bytes */{size}"));
            }
        };
        let answer = Self {
            status,
            headers: Vec::new(),
            body: Body::Span(content.clone(), offset, len),
        };
        let answer = answer.with("accept-ranges", "bytes");
        if status == 200 {
            return answer;
        }
        let range = format!("bytes {offset}-{}/{size}", offset + len - 1);
        answer.with("content-range", range)
    }

    /// Sets a header.
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.retain(|(key, _)| *key != name);
        self.headers.push((name, value.into()));
        self
    }
}
