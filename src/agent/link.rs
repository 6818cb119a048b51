//! The origin's end of a control channel: calls to an agent, and what it reports by itself.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::protocol::{Answer, Call, Event, Message, Request};
use crate::error::{Error, Result};

/// A connected agent. Threads may call at the same time; each call waits for its own answer.
pub struct Link {
    name: String,
    writer: Mutex<Box<dyn Write + Send>>,
    shared: Arc<Shared>,
    next_id: AtomicU64,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Calls without an answer yet.
    pending: HashMap<u64, Sender<Answer>>,
    /// Who wants to hear events.
    listener: Option<Sender<Event>>,
    /// Why the channel is gone.
    lost: Option<String>,
}

impl Link {
    /// Takes over a duplex channel to an agent; `name` is the node in messages.
    pub fn new(
        name: &str,
        reader: impl Read + Send + 'static,
        writer: impl Write + Send + 'static,
    ) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let of_thread = Arc::clone(&shared);
        thread::Builder::new()
            .name(format!("link {name}"))
            .spawn(move || of_thread.dispatch(BufReader::new(reader)))
            .map_err(|error| Error::Failed(format!("cannot start a thread: {error}")))?;
        let writer = Mutex::new(Box::new(writer) as Box<dyn Write + Send>);
        Ok(Self {
            name: name.to_owned(),
            writer,
            shared,
            next_id: AtomicU64::new(1),
        })
    }

    /// How messages call the node.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Asks, and waits for the answer as long as the channel lives. A failure on the node is an
    /// error that names it.
    pub fn call(&self, request: Request) -> Result<Answer> {
        let answer = self.send(request)?;
        self.finish(answer.recv().map_err(|_| RecvTimeoutError::Disconnected))
    }

    /// Like [`Link::call`], but gives up after a while.
    pub fn call_within(&self, request: Request, limit: Duration) -> Result<Answer> {
        let answer = self.send(request)?;
        self.finish(answer.recv_timeout(limit))
    }

    /// From now on events come here, and no longer to an earlier receiver. It ends with the
    /// channel.
    pub fn events(&self) -> Receiver<Event> {
        let (sender, receiver) = mpsc::channel();
        let mut state = self.shared.lock();
        if state.lost.is_none() {
            state.listener = Some(sender);
        }
        receiver
    }

    /// Whether the channel still stands.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.shared.lock().lost.is_none()
    }

    fn send(&self, request: Request) -> Result<Receiver<Answer>> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = mpsc::channel();
        {
            let mut state = self.shared.lock();
            if let Some(reason) = &state.lost {
                return Err(self.lost(reason));
            }
            state.pending.insert(id, sender);
        }
        let mut line = serde_json::to_vec(&Call { id, request })
            .map_err(|error| Error::Failed(format!("cannot write a call: {error}")))?;
        line.push(b'\n');
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = writer.write_all(&line).and_then(|()| writer.flush()) {
            self.shared.lose(&error.to_string());
            return Err(self.lost(&error.to_string()));
        }
        Ok(receiver)
    }

    fn finish(&self, answer: std::result::Result<Answer, RecvTimeoutError>) -> Result<Answer> {
        match answer {
            Ok(Answer::Failed { code, message }) => {
                Err(Error::from_code(code, format!("{}: {message}", self.name)))
            }
            Ok(answer) => Ok(answer),
            Err(RecvTimeoutError::Timeout) => Err(Error::Failed(format!(
                "{}: the agent did not answer in time; is the node overloaded?",
                self.name
            ))),
            Err(RecvTimeoutError::Disconnected) => {
                let reason = self.shared.lock().lost.clone().unwrap_or_default();
                Err(self.lost(&reason))
            }
        }
    }

    fn lost(&self, reason: &str) -> Error {
        Error::Failed(format!(
            "{}: the connection to the agent is lost: {reason}",
            self.name
        ))
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fails all calls under way and ends the events.
    fn lose(&self, reason: &str) {
        let mut state = self.lock();
        state.lost.get_or_insert_with(|| reason.to_owned());
        state.pending.clear();
        state.listener = None;
    }

    fn dispatch(&self, reader: impl BufRead) {
        for line in reader.lines() {
            let message = line
                .map_err(|error| error.to_string())
                .and_then(|line| serde_json::from_str(&line).map_err(|error| error.to_string()));
            match message {
                Ok(Message::Answer { id, answer }) => {
                    let caller = self.lock().pending.remove(&id);
                    if let Some(caller) = caller {
                        // A caller that gave up waiting needs no answer.
                        let _ = caller.send(answer);
                    }
                }
                Ok(Message::Event(event)) => {
                    let mut state = self.lock();
                    let heard = state.listener.as_ref().map(|listener| listener.send(event));
                    if matches!(heard, Some(Err(_))) {
                        state.listener = None;
                    }
                }
                Err(reason) => return self.lose(&reason),
            }
        }
        self.lose("the agent ended");
    }
}

#[cfg(test)]
mod tests {
    use std::net::Shutdown;
    use std::os::unix::net::UnixStream;

    use super::*;

    /// A link, and the far end of its channel.
    fn connected() -> (Link, BufReader<UnixStream>, UnixStream) {
        let (near, far) = UnixStream::pair().unwrap();
        let link = Link::new("n1", near.try_clone().unwrap(), near).unwrap();
        (link, BufReader::new(far.try_clone().unwrap()), far)
    }

    fn next_call(reader: &mut impl BufRead) -> Call {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    fn say(writer: &mut impl Write, message: &Message) {
        let line = serde_json::to_string(message).unwrap() + "\n";
        writer.write_all(line.as_bytes()).unwrap();
    }

    #[test]
    fn answers_find_their_calls_in_any_order() {
        let (link, mut reader, mut writer) = connected();
        thread::scope(|scope| {
            let first = scope.spawn(|| link.call(Request::Seal));
            let one = next_call(&mut reader);
            let second = scope.spawn(|| link.call(Request::Inventory));
            let two = next_call(&mut reader);
            let missing = Answer::Missing {
                chunks: vec![(0, 3)],
            };
            say(
                &mut writer,
                &Message::Answer {
                    id: two.id,
                    answer: missing,
                },
            );
            say(
                &mut writer,
                &Message::Answer {
                    id: one.id,
                    answer: Answer::Done,
                },
            );
            assert!(matches!(first.join().unwrap(), Ok(Answer::Done)));
            assert!(matches!(second.join().unwrap(), Ok(Answer::Missing { .. })));
        });
    }

    #[test]
    fn a_failure_names_the_node_and_keeps_its_code() {
        let (link, mut reader, mut writer) = connected();
        thread::scope(|scope| {
            let call = scope.spawn(|| link.call(Request::Seal));
            let id = next_call(&mut reader).id;
            let answer = Answer::Failed {
                code: 13,
                message: "/data is full".into(),
            };
            say(&mut writer, &Message::Answer { id, answer });
            let error = call.join().unwrap().unwrap_err();
            assert_eq!(
                (error.exit_code(), error.to_string().as_str()),
                (13, "n1: /data is full")
            );
        });
    }

    #[test]
    fn events_arrive_and_a_lost_channel_ends_everything() {
        let (link, mut reader, mut writer) = connected();
        let events = link.events();
        say(&mut writer, &Message::Event(Event::RoundDone));
        assert!(matches!(events.recv().unwrap(), Event::RoundDone));
        thread::scope(|scope| {
            let call = scope.spawn(|| link.call(Request::Seal));
            next_call(&mut reader);
            writer.shutdown(Shutdown::Both).unwrap();
            assert!(
                call.join()
                    .unwrap()
                    .unwrap_err()
                    .to_string()
                    .starts_with("n1: the connection")
            );
        });
        assert!(events.recv().is_err() && !link.is_alive());
        assert!(link.call(Request::Seal).is_err());
    }

    #[test]
    fn a_slow_answer_is_given_up() {
        let (link, _reader, _writer) = connected();
        let error = link
            .call_within(Request::Seal, Duration::from_millis(1))
            .unwrap_err();
        assert!(error.to_string().contains("did not answer"));
    }
}
