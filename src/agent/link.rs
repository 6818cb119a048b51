//! The origin's end of a control channel: sends calls to an agent, matches the answers, hands
//! out its events.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::protocol::{Answer, Call, Event, Exited, Message, PING_ID, Request};
use super::pulse::{Heard, LIMIT, every_interval};
use crate::error::{Error, Result};

/// Longest line that an agent sends: a manifest of some hundred thousand chunks.
const MAX_LINE: u64 = 256 << 20;

/// What a login shell may print before the agent says its first word.
const MAX_FOREIGN_LINES: usize = 100;

/// Lines that wait for their reader before the agent is made to wait.
const QUEUE: usize = 4096;

/// How long to wait for the reason after the channel refused a call.
const REASON: Duration = Duration::from_secs(5);

/// A control channel to an agent. Any number of threads can call at the same time. Dropping it
/// ends the channel, and with it the agent.
pub struct Link {
    name: String,
    writer: Arc<Writer>,
    shared: Arc<Mutex<Shared>>,
    next_id: AtomicU64,
}

type Writer = Mutex<Box<dyn Write + Send>>;

/// Hears events until it says that it wants no more.
type Subscriber = Arc<dyn Fn(Event) -> bool + Send + Sync>;

/// What callers and the reading thread share.
#[derive(Default)]
struct Shared {
    waiting: HashMap<u64, SyncSender<Reply>>,
    subscribers: Vec<Subscriber>,
    /// Why the channel ended, once it has.
    ended: Option<String>,
}

impl Shared {
    /// Fails all calls under way and ends the events.
    fn end(&mut self, reason: String) {
        self.ended.get_or_insert(reason);
        self.waiting.clear();
        self.subscribers.clear();
    }
}

/// What a waiting caller can get.
enum Reply {
    Line(String),
    Answer(Answer),
}

impl Link {
    /// Takes over both directions of a channel and reads it in a thread until it ends. `name` is
    /// put in front of every error. A read error's text is given as the reason of the end.
    pub fn new(
        name: &str,
        reader: impl Read + Send + 'static,
        writer: impl Write + Send + 'static,
    ) -> Result<Self> {
        let shared = Arc::new(Mutex::new(Shared::default()));
        let heard = Heard::default();
        let (for_reader, heard_by_reader) = (Arc::clone(&shared), heard.clone());
        thread::Builder::new()
            .name(format!("link {name}"))
            .spawn(move || {
                let reason = dispatch(BufReader::new(reader), &for_reader, &heard_by_reader);
                lock(&for_reader).end(reason);
            })
            .map_err(|cause| Error::Failed(format!("cannot start a thread: {cause}")))?;
        let writer: Arc<Writer> = Arc::new(Mutex::new(Box::new(writer)));
        keep_alive(&writer, &shared, heard)?;
        Ok(Self {
            name: name.to_owned(),
            writer,
            shared,
            next_id: AtomicU64::new(0),
        })
    }

    /// The node's name, as in errors.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the channel still stood at last notice.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        lock(&self.shared).ended.is_none()
    }

    /// Calls the agent and waits for its answer, or for the end of the channel.
    /// [`Answer::Failed`] is returned as the error that it stands for.
    pub fn call(&self, request: Request) -> Result<Answer> {
        self.exchange(request, None, |_| ())
    }

    /// Like [`Self::call`], but gives up after `timeout`; the agent goes on with the call.
    pub fn call_within(&self, request: Request, timeout: Duration) -> Result<Answer> {
        self.exchange(request, Some(timeout), |_| ())
    }

    /// Runs a command out there to its end; `on_line` gets each line of output as it comes.
    pub fn follow(&self, argv: Vec<String>, on_line: impl FnMut(String)) -> Result<Exited> {
        match self.exchange(Request::Follow { argv }, None, on_line)? {
            Answer::Exited(exited) => Ok(exited),
            _ => Err(self.unexpected()),
        }
    }

    /// Lets `hear` have every event from now on, on the thread that reads, until it returns false
    /// or the channel ends. While it takes its time, the agent waits.
    pub fn subscribe(&self, hear: impl Fn(Event) -> bool + Send + Sync + 'static) {
        let mut shared = lock(&self.shared);
        if shared.ended.is_none() {
            shared.subscribers.push(Arc::new(hear));
        }
    }

    /// The error for an answer that does not belong to the request.
    #[must_use]
    pub fn unexpected(&self) -> Error {
        Error::Failed(format!(
            "{}: the agent gave an answer that does not fit the call; is it of another version?",
            self.name
        ))
    }

    fn exchange(
        &self,
        request: Request,
        timeout: Option<Duration>,
        mut on_line: impl FnMut(String),
    ) -> Result<Answer> {
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = mpsc::sync_channel(QUEUE);
        self.register(id, sender)?;
        if self.send(&Call { id, request })?.is_err() {
            // The reader learns why, e.g. from the command's exit status.
            let _ = receiver.recv_timeout(REASON);
            lock(&self.shared).waiting.remove(&id);
            return Err(self.lost());
        }
        loop {
            match receive(&receiver, deadline) {
                Ok(Reply::Line(line)) => on_line(line),
                Ok(Reply::Answer(Answer::Failed { code, message })) => {
                    return Err(Error::from_code(code, message).at(&self.name));
                }
                Ok(Reply::Answer(answer)) => return Ok(answer),
                Err(RecvTimeoutError::Disconnected) => return Err(self.lost()),
                Err(RecvTimeoutError::Timeout) => {
                    lock(&self.shared).waiting.remove(&id);
                    return Err(Error::Failed(format!(
                        "{}: no answer within {} s; look at the node's load, then try again",
                        self.name,
                        timeout.unwrap_or_default().as_secs_f32()
                    )));
                }
            }
        }
    }

    fn register(&self, id: u64, sender: SyncSender<Reply>) -> Result<()> {
        let mut shared = lock(&self.shared);
        if shared.ended.is_some() {
            drop(shared);
            return Err(self.lost());
        }
        shared.waiting.insert(id, sender);
        Ok(())
    }

    /// The outer error is a request that cannot be encoded, the inner one a broken channel.
    fn send(&self, call: &Call) -> Result<std::io::Result<()>> {
        let mut line = serde_json::to_vec(call)
            .map_err(|cause| Error::Failed(format!("{}: {cause}", self.name)))?;
        line.push(b'\n');
        let mut writer = lock(&self.writer);
        Ok(writer.write_all(&line).and_then(|()| writer.flush()))
    }

    fn lost(&self) -> Error {
        let shared = lock(&self.shared);
        let reason = shared.ended.as_deref().unwrap_or("it takes no calls");
        Error::Failed(format!("{}: lost the agent: {reason}", self.name))
    }
}

/// Gives signs of life as long as the link is there, and ends it when the agent gives none.
fn keep_alive(writer: &Arc<Writer>, shared: &Arc<Mutex<Shared>>, heard: Heard) -> Result<()> {
    let ping = Call {
        id: PING_ID,
        request: Request::Ping,
    };
    let mut line = serde_json::to_vec(&ping)
        .map_err(|cause| Error::Failed(format!("cannot write a call: {cause}")))?;
    line.push(b'\n');
    let (writer, shared) = (Arc::downgrade(writer), Arc::clone(shared));
    every_interval(move || {
        let Some(writer) = writer.upgrade() else {
            return false;
        };
        if heard.is_silent() {
            lock(&shared).end(format!("no sign of life for {} s", LIMIT.as_secs()));
            return false;
        }
        let mut writer = lock(&writer);
        writer
            .write_all(&line)
            .and_then(|()| writer.flush())
            .is_ok()
    })
}

/// Waits for the next reply until `deadline`, or for ever without one.
fn receive(
    receiver: &Receiver<Reply>,
    deadline: Option<Instant>,
) -> std::result::Result<Reply, RecvTimeoutError> {
    match deadline {
        Some(deadline) => receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())),
        None => receiver.recv().map_err(RecvTimeoutError::from),
    }
}

/// Gives every message to whom it is for, until the channel ends; returns why it ended.
fn dispatch(mut reader: impl BufRead, shared: &Mutex<Shared>, heard: &Heard) -> String {
    let mut line = Vec::new();
    let mut foreign = Some(0);
    loop {
        line.clear();
        match reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut line) {
            Ok(0) => return "the channel was closed".into(),
            Ok(_) => heard.now(),
            Err(cause) => return cause.to_string(),
        }
        match (serde_json::from_slice(&line), foreign) {
            (Ok(message), _) => {
                foreign = None;
                deliver(message, shared);
            }
            // Login scripts may be talkative.
            (Err(_), Some(count)) if count < MAX_FOREIGN_LINES => foreign = Some(count + 1),
            (Err(_), _) => {
                let text: String = String::from_utf8_lossy(&line).chars().take(200).collect();
                return format!(
                    "it said something that is no message: {:?}",
                    text.trim_end()
                );
            }
        }
    }
}

/// The lock is not held while a full queue waits for its reader: others go on calling.
fn deliver(message: Message, shared: &Mutex<Shared>) {
    match message {
        Message::Answer { id, answer } => {
            let caller = lock(shared).waiting.remove(&id);
            send(caller.as_ref(), Reply::Answer(answer));
        }
        Message::Event(Event::Line { id, text }) => {
            let caller = lock(shared).waiting.get(&id).cloned();
            send(caller.as_ref(), Reply::Line(text));
        }
        Message::Event(event) => {
            let subscribers = lock(shared).subscribers.clone();
            let gone: Vec<bool> = subscribers
                .iter()
                .map(|hear| !hear(event.clone()))
                .collect();
            let mut gone = gone.into_iter();
            // New ones may have been pushed behind those that were served.
            lock(shared)
                .subscribers
                .retain(|_| !gone.next().unwrap_or(false));
        }
    }
}

/// A caller that gave up wants no reply.
fn send(caller: Option<&SyncSender<Reply>>, reply: Reply) {
    if let Some(caller) = caller {
        let _ = caller.send(reply);
    }
}

/// What these locks guard is valid at every step, so a panic elsewhere does not spoil it.
fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::io::{self, BufRead as _};
    use std::net::Shutdown;
    use std::os::unix::net::UnixStream;

    use super::*;

    /// Half-closes on drop, as an SSH channel does.
    struct Half(UnixStream);

    impl Write for Half {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Drop for Half {
        fn drop(&mut self) {
            let _ = self.0.shutdown(Shutdown::Write);
        }
    }

    /// A link whose far end is `agent`, which gets each call and writes what it likes.
    fn link(
        mut agent: impl FnMut(Call, &mut UnixStream) + Send + 'static,
    ) -> (Link, thread::JoinHandle<()>) {
        let (here, there) = UnixStream::pair().unwrap();
        let far = thread::spawn(move || {
            let mut writer = there.try_clone().unwrap();
            for line in BufReader::new(there).lines() {
                let call = serde_json::from_str(&line.unwrap()).unwrap();
                agent(call, &mut writer);
            }
        });
        let writer = Half(here.try_clone().unwrap());
        (Link::new("10.0.0.11", here, writer).unwrap(), far)
    }

    fn events(link: &Link) -> Receiver<Event> {
        let (sender, events) = mpsc::channel();
        link.subscribe(move |event| sender.send(event).is_ok());
        events
    }

    fn say(writer: &mut UnixStream, message: &Message) {
        let mut line = serde_json::to_vec(message).unwrap();
        line.push(b'\n');
        writer.write_all(&line).unwrap();
    }

    fn answer(writer: &mut UnixStream, id: u64, answer: Answer) {
        say(writer, &Message::Answer { id, answer });
    }

    #[test]
    fn answers_in_any_order_reach_their_callers() {
        let mut held = Vec::new();
        let (link, far) = link(move |call, writer| {
            let Request::Installed { name } = call.request else {
                panic!("{call:?}");
            };
            held.push((call.id, name));
            if held.len() == 8 {
                for (id, name) in held.drain(..).rev() {
                    answer(writer, id, Answer::Bundles { names: vec![name] });
                }
            }
        });
        thread::scope(|scope| {
            for number in 0..8 {
                let link = &link;
                scope.spawn(move || {
                    let name = format!("bundle {number}");
                    match link.call(Request::Installed { name: name.clone() }) {
                        Ok(Answer::Bundles { names }) => assert_eq!(names, [name]),
                        other => panic!("{other:?}"),
                    }
                });
            }
        });
        drop(link);
        far.join().unwrap();
    }

    #[test]
    fn a_failure_is_an_error_of_its_kind_at_the_node() {
        let (link, _far) = link(|call, writer| {
            let message = "the disk is full".into();
            answer(writer, call.id, Answer::Failed { code: 13, message });
        });
        let error = link.call(Request::Seal).unwrap_err();
        assert_eq!(error.exit_code(), 13);
        assert_eq!(error.to_string(), "10.0.0.11: the disk is full");
    }

    #[test]
    fn events_reach_every_subscriber_and_lines_their_caller() {
        let (link, _far) = link(|call, writer| {
            say(writer, &Message::Event(Event::RoundDone));
            for text in ["one", "two"] {
                let text = text.into();
                say(writer, &Message::Event(Event::Line { id: call.id, text }));
            }
            let exited = Exited {
                status: 7,
                stdout: String::new(),
                stderr: String::new(),
            };
            answer(writer, call.id, Answer::Exited(exited));
        });
        drop(events(&link));
        let (first, second) = (events(&link), events(&link));
        let mut lines = Vec::new();
        let exited = link
            .follow(vec!["x".into()], |line| lines.push(line))
            .unwrap();
        assert_eq!(
            (exited.status, lines),
            (7, vec!["one".into(), "two".into()])
        );
        for events in [first, second] {
            assert!(matches!(events.recv().unwrap(), Event::RoundDone));
        }
    }

    #[test]
    fn a_lost_channel_fails_all_calls_and_ends_the_events() {
        let mut calls = 0;
        let (link, _far) = link(move |_, writer| {
            calls += 1;
            if calls == 3 {
                writer.shutdown(Shutdown::Both).unwrap();
            }
        });
        let heard = events(&link);
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let error = link.call(Request::Inventory).unwrap_err().to_string();
                    assert_eq!(error, "10.0.0.11: lost the agent: the channel was closed");
                });
            }
        });
        assert!(heard.recv().is_err());
        assert!(!link.is_alive());
        assert!(link.call(Request::Inventory).is_err());
        assert!(events(&link).recv().is_err());
    }

    #[test]
    fn a_late_answer_is_dropped() {
        let mut late = None;
        let (link, _far) = link(move |call, writer| match late.take() {
            None => late = Some(call.id),
            Some(id) => {
                answer(writer, id, Answer::Bundles { names: vec![] });
                answer(writer, call.id, Answer::Done);
            }
        });
        let error = link
            .call_within(Request::Bundles, Duration::from_millis(20))
            .unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("10.0.0.11: no answer within 0.02 s")
        );
        assert!(matches!(link.call(Request::Leave).unwrap(), Answer::Done));
    }

    #[test]
    fn talk_before_the_first_message_is_skipped_but_not_later() {
        let mut calls = 0;
        let (link, _far) = link(move |call, writer| {
            calls += 1;
            writer.write_all(b"Welcome to node 11!\n").unwrap();
            if calls == 1 {
                answer(writer, call.id, Answer::Done);
            }
        });
        assert!(link.call(Request::Leave).is_ok());
        let error = link.call(Request::Leave).unwrap_err().to_string();
        assert!(
            error.contains("no message: \"Welcome to node 11!\""),
            "{error}"
        );
    }
}
