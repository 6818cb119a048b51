//! The containers' output of several nodes as one stream in the order of time.

use std::collections::BTreeMap;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use super::causes::{LogLine, parse_log};
use super::node::Node;
use crate::error::{Error, Result};

/// How long a line waits for earlier ones of other nodes.
const PATIENCE: Duration = Duration::from_millis(500);

/// How often a container that has ended is looked for.
const POLL: Duration = Duration::from_secs(1);

/// What comes of following.
pub enum News {
    /// A line.
    Line(LogLine),
    /// Nothing more comes from a node; a sentence.
    End(String),
}

/// Tells each line as it comes, across restarts of the containers, until every container is gone.
pub fn follow(nodes: &[Node], container: &str, tail: u32, mut tell: impl FnMut(News)) {
    let (sender, receiver) = mpsc::channel();
    thread::scope(|scope| {
        for node in nodes {
            let sender = sender.clone();
            scope.spawn(move || {
                let error = follow_one(node, container, tail, &sender);
                // The receiver lives as long as this scope.
                let _ = sender.send(News::End(error.to_string()));
            });
        }
        drop(sender);
        let mut merge = Merge::default();
        loop {
            match receiver.recv_timeout(PATIENCE / 5) {
                Ok(News::Line(line)) => merge.push(line, Instant::now()),
                Ok(end) => tell(end),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            for line in merge.due(Instant::now()) {
                tell(News::Line(line));
            }
        }
        for line in merge.due(Instant::now() + PATIENCE) {
            tell(News::Line(line));
        }
    });
}

/// Returns why nothing more comes.
fn follow_one(node: &Node, container: &str, tail: u32, lines: &Sender<News>) -> Error {
    let mut last = String::new();
    loop {
        match once(node, container, tail, &mut last, lines) {
            Ok(()) => thread::sleep(POLL),
            Err(error) => return error,
        }
    }
}

/// Follows until the container ends; it may be started again.
fn once(
    node: &Node,
    container: &str,
    tail: u32,
    last: &mut String,
    lines: &Sender<News>,
) -> Result<()> {
    if node.container(container)?.is_none() {
        let name = &node.name;
        return Err(Error::Failed(format!(
            "{name}: there is no container {container}; `bundle up` starts it"
        )));
    }
    let mut args = vec!["logs".to_owned(), "--timestamps".into(), "--follow".into()];
    if last.is_empty() {
        args.extend(["--tail".into(), tail.to_string()]);
    } else {
        args.extend(["--since".into(), last.clone()]);
    }
    args.push(container.to_owned());
    node.follow(&args, |text| {
        for line in parse_log(&node.name, &text) {
            // `--since` repeats the last one.
            if line.time > *last {
                last.clone_from(&line.time);
                let _ = lines.send(News::Line(line));
            }
        }
    })
}

/// Lines that wait for earlier ones.
#[derive(Default)]
struct Merge {
    /// By time, then in the order in which they came; with the moment at which they came.
    waiting: BTreeMap<(String, u64), (Instant, LogLine)>,
    count: u64,
}

impl Merge {
    fn push(&mut self, line: LogLine, now: Instant) {
        self.count += 1;
        self.waiting
            .insert((line.time.clone(), self.count), (now, line));
    }

    /// What has waited long enough, and all that is earlier.
    fn due(&mut self, now: Instant) -> Vec<LogLine> {
        let waited = |came: &Instant| now.saturating_duration_since(*came) >= PATIENCE;
        let due = self
            .waiting
            .iter()
            .rev()
            .find(|(_, (came, _))| waited(came));
        let Some(key) = due.map(|(key, _)| key.clone()) else {
            return Vec::new();
        };
        let later = self.waiting.split_off(&(key.0, key.1 + 1));
        let due = std::mem::replace(&mut self.waiting, later);
        due.into_values().map(|(_, line)| line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_wait_for_earlier_ones_of_other_nodes() {
        let line = |node: &str, second: u32| LogLine {
            node: node.into(),
            time: format!("2026-11-24T10:00:{second:02}.0Z"),
            text: String::new(),
        };
        let start = Instant::now();
        let mut merge = Merge::default();
        merge.push(line("n1", 5), start);
        merge.push(line("n1", 9), start + PATIENCE);
        merge.push(line("n2", 3), start + PATIENCE / 2);
        assert!(merge.due(start + PATIENCE / 2).is_empty());
        let nodes = |lines: Vec<LogLine>| {
            let names = lines.into_iter().map(|line| line.node);
            names.collect::<Vec<_>>()
        };
        assert_eq!(nodes(merge.due(start + PATIENCE)), ["n2", "n1"]);
        assert_eq!(nodes(merge.due(start + 2 * PATIENCE)), ["n1"]);
        assert!(merge.due(start + 9 * PATIENCE).is_empty());
    }
}
