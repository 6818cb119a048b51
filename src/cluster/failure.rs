//! Why a server did not start, for an operator: the first root cause on any node, and the last
//! lines of each.

use super::causes::{Cause, LogLine, first_cause, parse_log};
use super::node::Node;
use crate::error::{Error, Result};
use crate::ssh::fan_out;

/// Log lines that are read of each node.
const READ: u32 = 5000;

/// Lines that are shown of each node.
const SHOWN: usize = 5;

/// The last lines of a container, with their times.
pub fn read_log(node: &Node, container: &str, lines: u32) -> Result<Vec<LogLine>> {
    let lines = lines.to_string();
    let args = ["logs", "--timestamps", "--tail", &lines, container].map(str::to_owned);
    let exited = node.runtime(&args)?;
    if exited.status == 0 {
        let mut lines = parse_log(&node.name, &(exited.stdout + &exited.stderr));
        lines.sort_by(|a, b| a.time.cmp(&b.time));
        return Ok(lines);
    }
    let (name, said) = (&node.name, exited.stderr.trim());
    Err(Error::Failed(if said.to_lowercase().contains("no such") {
        format!("{name}: there is no container {container}; `bundle up` starts it")
    } else {
        format!("{name}: cannot read the log of {container}: {said}")
    }))
}

/// The error for `reason`, with what the logs of all nodes tell.
#[must_use]
pub fn explain(nodes: &[Node], container: &str, reason: &str) -> Error {
    let logs = fan_out(nodes, |node| {
        read_log(node, container, READ).map_err(|error| error.to_string())
    });
    let names: Vec<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
    Error::Failed(describe(reason, &names, &logs))
}

/// `logs` in the order of time each, or why there is none.
fn describe(
    reason: &str,
    names: &[&str],
    logs: &[std::result::Result<Vec<LogLine>, String>],
) -> String {
    let mut text = vec![format!("the server did not start: {reason}")];
    let all = logs.iter().flatten().flatten().cloned().collect();
    if let Some(Cause { line, remedy }) = first_cause(all) {
        let (node, said) = (&line.node, line.text.trim());
        text.push(format!("first cause, on {node}: {said:.500}"));
        text.extend(remedy.map(|remedy| format!("remedy: {remedy}")));
    }
    for (name, log) in names.iter().zip(logs) {
        match log {
            Ok(lines) => {
                text.push(format!("last lines of {name}:"));
                let last = lines.iter().skip(lines.len().saturating_sub(SHOWN));
                text.extend(last.map(|line| format!("  {:.500}", line.text)));
            }
            Err(error) => text.push(error.clone()),
        }
    }
    text.push("`bundle logs` shows more".into());
    text.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_comes_first_and_each_node_has_its_last_lines() {
        let log = |node: &str, texts: &[&str]| {
            let line = |(second, text): (usize, &&str)| {
                format!("2026-11-24T10:00:{second:02}.0Z {text}\n")
            };
            let text: String = texts.iter().enumerate().map(line).collect();
            parse_log(node, &text)
        };
        let logs = [
            Ok(log(
                "n1",
                &["1", "2", "3", "4", "5", "ray: command not found"],
            )),
            Err("n2: cannot read the log of x: gone".to_owned()),
        ];
        let told = describe("container x on n1 is exited", &["n1", "n2"], &logs);
        let lines: Vec<&str> = told.lines().collect();
        assert_eq!(lines[1], "first cause, on n1: ray: command not found");
        assert!(lines[2].starts_with("remedy: the image has no Ray"));
        assert_eq!(lines[3..5], ["last lines of n1:", "  2"]);
        assert_eq!(lines[9], "n2: cannot read the log of x: gone");
    }
}
