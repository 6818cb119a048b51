//! Sends an answer, well or badly.

use std::io::{self, Write};

use super::fault::Fault;
use super::http::{Answer, Body, Request};

/// What becomes of the connection.
#[derive(Debug, PartialEq, Eq)]
pub enum After {
    /// It is kept for the next request.
    Keep,
    /// It is closed.
    Close,
    /// It is closed with a reset.
    Reset,
    /// It stays open, and nothing more comes.
    Hang,
}

/// Lets a fault change a request before it is answered.
pub fn spoil_request(request: &mut Request, fault: Option<&Fault>) {
    if fault == Some(&Fault::IgnoreRange) {
        request.remove_header("range");
    }
}

/// Lets a fault change an answer.
pub fn spoil_answer(answer: Answer, fault: Option<&Fault>) -> Answer {
    match fault {
        Some(Fault::Status(status, headers)) => {
            let refusal = Answer::text(*status, "refused by the script");
            headers
                .iter()
                .fold(refusal, |answer, (name, value)| answer.with(name, value))
        }
        Some(Fault::Header(name, value)) => answer.with(name, value),
        Some(Fault::WebPage) => Answer::text(200, "<html>Please log in</html>")
            .with("content-type", "text/html; charset=utf-8"),
        _ => answer,
    }
}

/// Writes an answer; returns the bytes of the body that went, and what becomes of the connection.
pub fn deliver(
    out: &mut dyn Write,
    answer: &Answer,
    head_only: bool,
    fault: Option<&Fault>,
) -> io::Result<(u64, After)> {
    match fault {
        Some(Fault::HangUp) => return Ok((0, After::Reset)),
        Some(Fault::Silence) => return Ok((0, After::Hang)),
        _ => {}
    }
    let len = answer.body.len();
    // One write, so that the head is one packet.
    let mut head = Vec::new();
    write!(head, "HTTP/1.1 {} Status\r\n", answer.status)?;
    for (name, value) in &answer.headers {
        write!(head, "{name}: {value}\r\n")?;
    }
    write!(head, "content-length: {len}\r\n\r\n")?;
    out.write_all(&head)?;
    let (limit, after) = match fault {
        Some(Fault::Truncate(limit)) => (*limit, After::Close),
        Some(Fault::Reset(limit)) => (*limit, After::Reset),
        Some(Fault::Stall(limit)) => (*limit, After::Hang),
        _ => (len, After::Keep),
    };
    let sent = if head_only { 0 } else { len.min(limit) };
    let wrong = sent > 0 && fault == Some(&Fault::WrongByte);
    if wrong {
        let mut first = Vec::new();
        write_body(&answer.body, 0, 1, &mut first)?;
        out.write_all(&[!first[0]])?;
    }
    let done = u64::from(wrong);
    write_body(&answer.body, done, sent - done, out)?;
    out.flush()?;
    Ok((sent, after))
}

fn write_body(body: &Body, from: u64, len: u64, out: &mut dyn Write) -> io::Result<()> {
    match body {
        Body::Text(text) => {
            let from = usize::try_from(from).unwrap_or(0);
            let to = from + usize::try_from(len).unwrap_or(0);
            out.write_all(&text.as_bytes()[from..to])
        }
        Body::Span(content, offset, _) => content.write(offset + from, len, out).map(|_| ()),
    }
}
