//! The first root cause in the logs of all nodes, with the known remedy.

use serde::Deserialize;

/// Known messages; data, so that a new one needs no code.
const TABLE: &str = include_str!("causes.toml");

/// Lines that only wrap an error which is printed before or after them.
const WRAPPERS: [&str; 3] = [
    "See root cause above",
    "See stack trace above",
    "RayTaskError(",
];

/// Words of lines that are no errors, whatever they speak of.
const LEVELS: [&str; 3] = ["DEBUG", "INFO", "WARNING"];

/// Words that make a line an error although no known message matches.
const ERROR_WORDS: [&str; 4] = ["Error:", "Error(", "Exception:", "error:"];

/// A line of a container's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// The node's name.
    pub node: String,
    /// RFC 3339 with nanoseconds, as `docker logs --timestamps` prints it: sorts as text.
    pub time: String,
    /// The line.
    pub text: String,
}

/// Ray's own inventories quote many words that are messages elsewhere.
const NOISE: &str = "[state-dump]";

/// Why a start failed, as far as the logs tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// Where and what.
    pub line: LogLine,
    /// What helps, when the message is known.
    pub remedy: Option<String>,
}

#[derive(Deserialize)]
struct Table {
    cause: Vec<Known>,
}

#[derive(Deserialize)]
struct Known {
    #[cfg(test)]
    name: String,
    messages: Vec<String>,
    #[serde(default)]
    consequence: bool,
    remedy: String,
}

impl Known {
    fn is_in(&self, text: &str) -> bool {
        let text = text.to_lowercase();
        self.messages
            .iter()
            .any(|message| text.contains(&message.to_lowercase()))
    }
}

/// Splits `TIME TEXT`.
#[must_use]
pub fn parse_log(node: &str, log: &str) -> Vec<LogLine> {
    log.lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(time, text)| LogLine {
            node: node.into(),
            time: time.into(),
            text: text.into(),
        })
        .collect()
}

/// The earliest line with a known message; else the earliest that looks like an error or is what
/// often follows from one.
#[must_use]
pub fn first_cause(mut lines: Vec<LogLine>) -> Option<Cause> {
    let table = table();
    lines.retain(|line| !is_noise(&line.text));
    lines.sort_by(|a, b| a.time.cmp(&b.time));
    let known = |consequence: bool| {
        let table = table
            .iter()
            .filter(move |known| known.consequence == consequence);
        lines.iter().find_map(|line| {
            let known = table.clone().find(|known| known.is_in(&line.text))?;
            Some(Cause {
                line: line.clone(),
                remedy: Some(known.remedy.clone()),
            })
        })
    };
    known(false).or_else(|| {
        let looks_bad = |line: &&LogLine| {
            let is_mild = || {
                line.text
                    .split_whitespace()
                    .any(|word| LEVELS.contains(&word))
            };
            ERROR_WORDS.iter().any(|word| line.text.contains(word)) && !is_mild()
        };
        let consequence = known(true);
        let unknown = lines.iter().find(looks_bad).map(|line| Cause {
            line: line.clone(),
            remedy: None,
        });
        match (consequence, unknown) {
            (Some(known), Some(unknown)) if unknown.line.time < known.line.time => Some(unknown),
            (known, unknown) => known.or(unknown),
        }
    })
}

/// What helps against a message, as a line to follow it; empty when it is not known.
#[must_use]
pub fn advice(message: &str) -> String {
    let known = table().into_iter().find(|known| known.is_in(message));
    known.map_or_else(String::new, |known| format!("\nremedy: {}", known.remedy))
}

fn is_noise(text: &str) -> bool {
    text.contains(NOISE) || WRAPPERS.iter().any(|wrapper| text.contains(wrapper))
}

fn table() -> Vec<Known> {
    toml::from_str::<Table>(TABLE)
        .map(|table| table.cause)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(node: &str, second: u32, text: &str) -> LogLine {
        let time = format!("2026-11-24T10:00:{second:02}.000000000Z");
        LogLine {
            node: node.into(),
            time,
            text: text.into(),
        }
    }

    /// Every known cause has a log in which it, and nothing else, is what an operator should see.
    #[test]
    fn each_cause_is_found_in_its_log() {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/logs");
        let table = toml::from_str::<Table>(TABLE).unwrap().cause;
        for known in &table {
            let log = std::fs::read_to_string(format!("{dir}/{}.log", known.name)).unwrap();
            let lines = log.lines().flat_map(|line| {
                let (node, rest) = line.split_once(' ').unwrap();
                parse_log(node, rest)
            });
            let cause = first_cause(lines.collect()).unwrap();
            let found = cause.remedy.as_ref();
            assert_eq!(
                found,
                Some(&known.remedy),
                "{}: {:?}",
                known.name,
                cause.line
            );
        }
        assert_eq!(std::fs::read_dir(dir).unwrap().count(), table.len());
    }

    #[test]
    fn a_consequence_counts_only_when_nothing_better_is_found() {
        let lost = || {
            line(
                "n2",
                3,
                "Failed to connect to GCS at address 10.0.0.11:6379",
            )
        };
        let cause = |others: Vec<LogLine>| {
            first_cause([vec![lost()], others].concat())
                .unwrap()
                .line
                .node
        };
        assert_eq!(cause(vec![]), "n2");
        assert_eq!(cause(vec![line("n1", 9, "ray: command not found")]), "n1");
        assert_eq!(cause(vec![line("n1", 1, "ValueError: unknown")]), "n1");
        assert_eq!(cause(vec![line("n1", 9, "ValueError: unknown")]), "n2");
    }

    #[test]
    fn the_earliest_known_message_of_all_nodes_wins() {
        let cause = first_cause(vec![
            line(
                "n1",
                9,
                "RuntimeError: Engine core initialization failed. See root cause above.",
            ),
            line("n1", 8, "RuntimeError: NCCL error in: ProcessGroupNCCL.cpp"),
            line("n3", 5, "ValueError: something happened"),
            line(
                "n2",
                7,
                "RuntimeError: Gloo connectFullMesh failed with ...",
            ),
        ])
        .unwrap();
        assert_eq!(cause.line.node, "n2");
        assert!(cause.remedy.unwrap().contains("iface="));
        let advice = advice("docker: could not select device driver");
        assert!(advice.starts_with("\nremedy: "), "{advice}");
        assert_eq!(super::advice("docker: unknown"), "");
    }

    #[test]
    fn an_unknown_error_is_shown_but_never_the_wrapper() {
        let cause = first_cause(vec![
            line("n1", 1, "INFO fine"),
            line(
                "n1",
                2,
                "RuntimeError: Engine failed. See root cause above.",
            ),
            line(
                "n1",
                2,
                "WARNING 11-24 [utils.py:255] This can cause errors like `OSError: [Errno 24] Too many open files`.",
            ),
            line(
                "n1",
                2,
                "ERROR 11-24 [core.py:1510] ray.exceptions.RayTaskError(RuntimeError): ray::init (pid=94)",
            ),
            line("n2", 3, "ValueError: unknown thing"),
        ])
        .unwrap();
        assert_eq!((cause.line.node.as_str(), cause.remedy), ("n2", None));
        assert_eq!(first_cause(vec![line("n1", 1, "INFO fine")]), None);
    }

    #[test]
    fn timestamps_are_split_off() {
        let lines = parse_log("n1", "2026-11-24T10:00:01.5Z hello world\nbroken\n");
        assert_eq!(lines.len(), 1);
        assert_eq!(
            (lines[0].text.as_str(), lines[0].node.as_str()),
            ("hello world", "n1")
        );
    }
}
