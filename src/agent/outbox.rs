//! What the agent still has to say: messages queue here and one thread writes them, so that a
//! slow control channel never holds up the data.

use std::io::Write;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use super::protocol::{Answer, Event, Message};
use crate::error::{Error, Result};

/// Messages that may wait before their senders have to.
const QUEUE: usize = 256;

/// The sending end; clones send to the same channel.
#[derive(Clone)]
pub struct Outbox(SyncSender<Message>);

impl Outbox {
    /// Starts the writer.
    pub fn new(output: impl Write + Send + 'static) -> Result<Self> {
        let (sender, messages) = sync_channel(QUEUE);
        thread::Builder::new()
            .name("outbox".into())
            .spawn(move || write_all(&messages, output))
            .map_err(|error| Error::Failed(format!("cannot start a thread: {error}")))?;
        Ok(Self(sender))
    }

    /// Sends the end of a call. When the channel is gone nobody is left to hear it.
    pub fn answer(&self, id: u64, answer: Answer) {
        let _ = self.0.send(Message::Answer { id, answer });
    }

    /// Sends an event; progress is dropped rather than waited for, as more will follow.
    pub fn event(&self, event: Event) {
        let droppable = matches!(event, Event::Progress { .. });
        let message = Message::Event(event);
        let _ = if droppable {
            self.0.try_send(message).is_ok()
        } else {
            self.0.send(message).is_ok()
        };
    }
}

/// Writes one JSON value a line until all senders or the reader are gone.
fn write_all(messages: &Receiver<Message>, mut output: impl Write) {
    for message in messages {
        let Ok(mut line) = serde_json::to_vec(&message) else {
            continue;
        };
        line.push(b'\n');
        if output
            .write_all(&line)
            .and_then(|()| output.flush())
            .is_err()
        {
            return;
        }
    }
}
