//! Reading a byte range of a remote file of known size, trusting nothing that the server says.

use std::io::{ErrorKind, Read};

use reqwest::StatusCode;
use reqwest::blocking::Response;
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap};

use super::client::{host_of, root_cause};
use super::fault::{Attempt, Fault};

/// A range inside a file of known size; not empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
    /// Bytes of the whole file.
    pub size: u64,
}

impl Span {
    /// The value of the `Range` header.
    #[must_use]
    pub fn header(self) -> String {
        format!("bytes={}-{}", self.offset, self.last())
    }

    fn last(self) -> u64 {
        self.offset + self.len - 1
    }

    fn is_whole(self) -> bool {
        self.offset == 0 && self.len == self.size
    }

    /// Whether an answer is the whole file where this part of it was asked for. Its body is not the
    /// part.
    #[must_use]
    pub fn is_ignored_by(self, response: &Response) -> bool {
        response.status() == StatusCode::OK
            && !self.is_whole()
            && Self::whole(self.size)
                .check_head(response.status(), response.headers())
                .is_ok()
    }

    fn whole(size: u64) -> Self {
        Self {
            offset: 0,
            len: size,
            size,
        }
    }

    /// Checks the head of a 200 or 206 answer; the error is the end of a sentence. A 200 is right
    /// only for the whole file: caches in front of mirrors do that to small files.
    fn check_head(self, status: StatusCode, headers: &HeaderMap) -> Result<(), String> {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        if status != StatusCode::PARTIAL_CONTENT {
            let is_page = text(CONTENT_TYPE).is_some_and(|kind| kind.starts_with("text/html"));
            if is_page {
                return Err("it answered with a web page instead of the file; \
                            is there a login page or a filtering proxy in between?"
                    .into());
            }
            if !self.is_whole() {
                return Err("it ignored the byte range that was asked for".into());
            }
        } else if let Some(fault) = self.range_fault(text(CONTENT_RANGE)) {
            return Err(fault);
        }
        match text(CONTENT_LENGTH).map(str::parse::<u64>) {
            Some(Ok(len)) if len == self.len => Ok(()),
            None => Ok(()),
            Some(_) => Err(format!(
                "it announced {} bytes where {} were due",
                text(CONTENT_LENGTH).unwrap_or_default(),
                self.len
            )),
        }
    }

    /// What is wrong with a `Content-Range`.
    fn range_fault(self, content_range: Option<&str>) -> Option<String> {
        let Some(value) = content_range else {
            return Some("it sent a partial answer without a Content-Range".into());
        };
        let range = format!("bytes {}-{}/", self.offset, self.last());
        let size = self.size.to_string();
        match value.strip_prefix(&range) {
            Some(total) if total == size || total == "*" => None,
            Some(total) => Some(format!(
                "it says that the file has {total} bytes, the listing says {size}"
            )),
            None => Some(format!("it sent {value:?} instead of {:?}", range + &size)),
        }
    }
}

/// Fills `buffer`, which is as long as the span, from a 200 or 206 answer.
pub fn read_span(response: Response, span: Span, buffer: &mut [u8]) -> Attempt<()> {
    let mut body = Body::new(response, span)?;
    body.read(buffer)?;
    body.finish()
}

/// The body of an answer, read piece by piece.
#[derive(Debug)]
pub struct Body {
    response: Response,
    host: String,
    /// Bytes that were read.
    at: u64,
    /// Bytes that are due.
    len: u64,
}

impl Body {
    /// Checks the head of an answer to a request for the whole file.
    pub fn of_whole(response: Response, size: u64) -> Attempt<Self> {
        Self::new(response, Span::whole(size))
    }

    fn new(response: Response, span: Span) -> Attempt<Self> {
        let host = host_of(response.url());
        span.check_head(response.status(), response.headers())
            .map_err(|cause| Fault::passing(host.clone(), cause))?;
        Ok(Self {
            response,
            host,
            at: 0,
            len: span.len,
        })
    }

    /// How many bytes were read.
    #[must_use]
    pub fn at(&self) -> u64 {
        self.at
    }

    /// Fills a buffer with the next bytes.
    pub fn read(&mut self, buffer: &mut [u8]) -> Attempt<()> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.response.read(&mut buffer[filled..]) {
                Ok(0) => {
                    return Err(
                        self.fault(format!("it ended after {} of {} bytes", self.at, self.len))
                    );
                }
                Ok(count) => {
                    filled += count;
                    self.at += count as u64;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    let reason = root_cause(&error);
                    let (at, len) = (self.at, self.len);
                    return Err(
                        self.fault(format!("it broke off after {at} of {len} bytes: {reason}"))
                    );
                }
            }
        }
        Ok(())
    }

    /// Refuses more than was due. Reading the end of the body is also what lets the connection be
    /// used again.
    pub fn finish(mut self) -> Attempt<()> {
        match self.response.read(&mut [0]) {
            Ok(0) => Ok(()),
            _ => Err(self.fault(format!("it sent more than {} bytes", self.len))),
        }
    }

    fn fault(&self, cause: String) -> Fault {
        Fault::passing(self.host.clone(), cause)
    }
}

#[cfg(test)]
mod tests {
    use reqwest::header::{HeaderName, HeaderValue};

    use super::*;

    const MIDDLE: Span = Span {
        offset: 10,
        len: 5,
        size: 20,
    };
    const WHOLE: Span = Span {
        offset: 0,
        len: 20,
        size: 20,
    };

    fn verdict(span: Span, status: u16, headers: &[(HeaderName, &'static str)]) -> String {
        let headers = headers
            .iter()
            .map(|(name, value)| (name.clone(), HeaderValue::from_static(value)))
            .collect();
        match span.check_head(StatusCode::from_u16(status).unwrap(), &headers) {
            Ok(()) => "right".into(),
            Err(cause) => cause,
        }
    }

    #[test]
    fn only_the_exact_range_is_right() {
        let range = |value| vec![(CONTENT_RANGE, value)];
        let cases = [
            (MIDDLE, 206, range("bytes 10-14/20"), "right"),
            (MIDDLE, 206, range("bytes 10-14/*"), "right"),
            (MIDDLE, 206, range("bytes 10-14/21"), "has 21 bytes"),
            (MIDDLE, 206, range("bytes 0-4/20"), "instead of"),
            (MIDDLE, 206, vec![], "without a Content-Range"),
            (MIDDLE, 200, vec![], "ignored the byte range"),
            (
                MIDDLE,
                200,
                vec![(CONTENT_LENGTH, "20")],
                "ignored the byte range",
            ),
            (WHOLE, 200, vec![(CONTENT_LENGTH, "20")], "right"),
            (WHOLE, 200, vec![], "right"),
            (
                WHOLE,
                200,
                vec![(CONTENT_LENGTH, "19")],
                "announced 19 bytes",
            ),
            (
                WHOLE,
                200,
                vec![(CONTENT_TYPE, "text/html; charset=utf-8")],
                "web page",
            ),
            (WHOLE, 206, range("bytes 0-19/20"), "right"),
        ];
        for (span, status, headers, expected) in cases {
            let verdict = verdict(span, status, &headers);
            assert!(
                verdict.contains(expected),
                "{status} {headers:?}: {verdict}"
            );
        }
    }

    #[test]
    fn the_header_counts_inclusively() {
        assert_eq!(MIDDLE.header(), "bytes=10-14");
    }
}
