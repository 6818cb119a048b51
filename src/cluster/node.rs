//! A connected node as the cluster commands see it: run something there, look at its container.

use crate::agent::link::Link;
use crate::agent::protocol::{Answer, Exited, Request};
use crate::error::{Error, Result};

use super::causes::advice;
use super::container::CONFIG_LABEL;

/// Seconds that a container command may take.
const COMMAND_TIMEOUT: u64 = 120;

/// A node whose agent answers.
pub struct Node<'a> {
    /// How messages call it.
    pub name: String,
    /// The control channel.
    pub link: &'a Link,
    /// `docker`, `podman` or `nerdctl`.
    pub runtime: String,
}

/// A container as the runtime describes it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ContainerState {
    /// `running`, `restarting`, `exited`, ...
    pub status: String,
    /// How often the restart policy had to act.
    pub restarts: u32,
    /// Hash of the arguments that it was started with.
    pub config: String,
}

impl Node<'_> {
    /// Runs the container runtime with these arguments; a non-zero status is an answer.
    pub fn runtime(&self, args: &[String]) -> Result<Exited> {
        self.runtime_within(args, COMMAND_TIMEOUT)
    }

    /// Like [`Node::runtime`], with another limit in seconds.
    pub fn runtime_within(&self, args: &[String], timeout: u64) -> Result<Exited> {
        let command = [std::slice::from_ref(&self.runtime), args].concat();
        self.call(command, "", timeout)
    }

    /// Runs any command, with `stdin` as its input; a non-zero status is an answer.
    pub fn exec(&self, command: &[&str], stdin: &str) -> Result<Exited> {
        let command = command.iter().map(ToString::to_string).collect();
        self.call(command, stdin, COMMAND_TIMEOUT)
    }

    fn call(&self, argv: Vec<String>, stdin: &str, timeout: u64) -> Result<Exited> {
        let request = Request::Exec {
            argv,
            stdin: stdin.to_owned(),
            timeout,
        };
        match self.link.call(request)? {
            Answer::Exited(exited) => Ok(exited),
            _ => Err(self.link.unexpected()),
        }
    }

    /// Like [`Node::runtime`], but a non-zero status is a failure that quotes what was said, with the known
    /// remedy.
    pub fn runtime_ok(&self, args: &[String]) -> Result<String> {
        let exited = self.runtime(args)?;
        if exited.status == 0 {
            return Ok(exited.stdout);
        }
        let verb = args.first().map_or("", String::as_str);
        let said = exited.stderr.trim();
        Err(Error::Failed(format!(
            "{}: `{} {verb}` failed: {said}{}",
            self.name,
            self.runtime,
            advice(said)
        )))
    }

    /// Runs the container runtime and hears each line of output as it comes.
    pub fn follow(&self, args: &[String], on_line: impl FnMut(String)) -> Result<()> {
        let command = [std::slice::from_ref(&self.runtime), args].concat();
        self.link.follow(command, on_line).map(drop)
    }

    /// The container of this name, if there is one.
    pub fn container(&self, name: &str) -> Result<Option<ContainerState>> {
        let format = format!(
            "{{{{.State.Status}}}} {{{{.RestartCount}}}} {{{{index .Config.Labels \"{CONFIG_LABEL}\"}}}}"
        );
        let args = ["container", "inspect", "--format", &format, name].map(str::to_owned);
        let exited = self.runtime(&args)?;
        if exited.status == 0 {
            return parse_state(&exited.stdout).map(Some).ok_or_else(|| {
                Error::Failed(format!(
                    "{}: `{} container inspect` answered {:?}, which makes no sense",
                    self.name, self.runtime, exited.stdout
                ))
            });
        }
        if exited.stderr.to_lowercase().contains("no such") {
            return Ok(None);
        }
        let said = exited.stderr.trim();
        Err(Error::Failed(format!(
            "{}: cannot ask {}: {said}",
            self.name, self.runtime
        )))
    }

    /// An HTTP request from the node; status and body.
    pub fn http(&self, url: &str, body: Option<String>, timeout: u64) -> Result<(u16, String)> {
        match self.link.call(Request::Http {
            url: url.to_owned(),
            body,
            timeout,
        })? {
            Answer::Http { status, body } => Ok((status, body)),
            _ => Err(self.link.unexpected()),
        }
    }
}

fn parse_state(text: &str) -> Option<ContainerState> {
    let mut words = text.split_whitespace();
    let status = words.next()?.to_owned();
    let restarts = words.next()?.parse().ok()?;
    let config = words.next().unwrap_or_default().to_owned();
    Some(ContainerState {
        status,
        restarts,
        config,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_three_words() {
        let state = parse_state("running 2 abc\n").unwrap();
        assert_eq!(
            (state.status.as_str(), state.restarts, state.config.as_str()),
            ("running", 2, "abc")
        );
        assert_eq!(parse_state("exited 0 \n").unwrap().config, "");
        assert!(parse_state("").is_none());
    }
}
