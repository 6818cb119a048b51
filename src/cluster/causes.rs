//! The first root cause in the logs of all nodes, with the known remedy.

use serde::Deserialize;

/// Known messages; data, so that a new one needs no code.
const TABLE: &str = include_str!("causes.toml");

/// Lines that only wrap an error which was printed before.
const WRAPPERS: [&str; 2] = ["See root cause above", "See stack trace above"];

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
    message: String,
    remedy: String,
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

/// The earliest line with a known message; else the earliest that looks like an error.
#[must_use]
pub fn first_cause(mut lines: Vec<LogLine>) -> Option<Cause> {
    let table: Vec<Known> = toml::from_str::<Table>(TABLE)
        .map(|table| table.cause)
        .unwrap_or_default();
    lines.retain(|line| !WRAPPERS.iter().any(|wrapper| line.text.contains(wrapper)));
    lines.sort_by(|a, b| a.time.cmp(&b.time));
    let known = lines.iter().find_map(|line| {
        let text = line.text.to_lowercase();
        let known = table
            .iter()
            .find(|known| text.contains(&known.message.to_lowercase()))?;
        Some(Cause {
            line: line.clone(),
            remedy: Some(known.remedy.clone()),
        })
    });
    known.or_else(|| {
        let looks_bad = |line: &&LogLine| ERROR_WORDS.iter().any(|word| line.text.contains(word));
        let line = lines.iter().find(looks_bad)?;
        Some(Cause {
            line: line.clone(),
            remedy: None,
        })
    })
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

    #[test]
    fn the_table_is_readable() {
        let table: Table = toml::from_str(TABLE).unwrap();
        assert!(table.cause.len() > 10);
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
