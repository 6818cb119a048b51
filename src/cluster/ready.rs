//! Ready means that the server has answered a real completion.

use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::{Value, json};

use super::container;
use super::deployment::Deployment;
use super::failure::explain;
use super::node::{ContainerState, Node};
use crate::agent::fleet::all;
use crate::error::{Error, Result};
use crate::ssh::fan_out;

/// How often the server is asked while it starts.
const POLL: Duration = Duration::from_secs(2);

/// Restarts of one container while we wait, after which waiting makes no sense.
const MAX_RESTARTS: u32 = 3;

/// Seconds that the probe's completion may take: the first one compiles kernels.
const COMPLETION_TIMEOUT: u64 = 300;

/// Tokens that the probe asks for.
const PROBE_TOKENS: u32 = 16;

/// What the probe found.
#[derive(Clone, Debug, Serialize)]
pub struct Ready {
    /// Base URL of the API.
    pub endpoint: String,
    /// The model's name in requests.
    pub model: String,
    /// What it said.
    pub text: String,
    /// Speed of the probe.
    pub tokens_per_second: f64,
}

/// Asks the head until a completion came back, a container gave up, or the time is over.
/// `say` hears what it waits for.
pub fn wait(
    nodes: &[Node],
    deployment: &Deployment,
    timeout: Duration,
    say: &dyn Fn(&str),
) -> Result<Ready> {
    let (Some(head), Some(endpoint)) = (nodes.first(), deployment.endpoint()) else {
        return Err(Error::Usage("hosts.txt names no node".into()));
    };
    let url = format!("http://{endpoint}");
    let name = container::name(&deployment.manifest.name);
    let deadline = Instant::now() + timeout;
    let before = restarts(&states(nodes, &name)?);
    say(&format!("waiting for {url}/health"));
    while !matches!(head.http(&format!("{url}/health"), None, 5), Ok((200, _))) {
        if let Some(reason) = given_up(nodes, &name, &before)? {
            return Err(explain(nodes, &name, &reason));
        }
        if Instant::now() > deadline {
            let minutes = timeout.as_secs().div_ceil(60);
            let reason = format!("{url}/health did not answer within {minutes} min");
            return Err(explain(nodes, &name, &reason));
        }
        thread::sleep(POLL);
    }
    say("asking for a completion");
    complete(head, &url).map_err(|error| explain(nodes, &name, &error.to_string()))
}

/// One real completion.
pub fn complete(head: &Node, url: &str) -> Result<Ready> {
    let models = get_json(head, &format!("{url}/v1/models"), None, 30)?;
    let model = models["data"][0]["id"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let body = json!({"model": model, "prompt": "Hello", "max_tokens": PROBE_TOKENS});
    let started = Instant::now();
    let answer = get_json(
        head,
        &format!("{url}/v1/completions"),
        Some(body.to_string()),
        COMPLETION_TIMEOUT,
    )?;
    let seconds = started.elapsed().as_secs_f64();
    let Some(text) = answer["choices"][0]["text"].as_str() else {
        return Err(Error::Failed(format!(
            "{url}/v1/completions answered without a text: {answer}"
        )));
    };
    let tokens = answer["usage"]["completion_tokens"]
        .as_f64()
        .unwrap_or_default();
    Ok(Ready {
        endpoint: url.to_owned(),
        model,
        text: text.to_owned(),
        tokens_per_second: tokens / seconds.max(0.001),
    })
}

fn get_json(node: &Node, url: &str, body: Option<String>, timeout: u64) -> Result<Value> {
    let (status, text) = node.http(url, body, timeout)?;
    if status != 200 {
        return Err(Error::Failed(format!(
            "{url} answered {status}: {}",
            text.trim()
        )));
    }
    serde_json::from_str(&text)
        .map_err(|error| Error::Failed(format!("{url} answered no JSON ({error}): {text}")))
}

fn states(nodes: &[Node], name: &str) -> Result<Vec<Option<ContainerState>>> {
    all(fan_out(nodes, |node| node.container(name)))
}

fn restarts(states: &[Option<ContainerState>]) -> Vec<u32> {
    let of = |state: &Option<ContainerState>| state.as_ref().map_or(0, |state| state.restarts);
    states.iter().map(of).collect()
}

/// Why waiting makes no sense any more, if so. `before` are the restarts at its beginning.
fn given_up(nodes: &[Node], name: &str, before: &[u32]) -> Result<Option<String>> {
    let states = states(nodes, name)?;
    let reasons = nodes.iter().zip(&states).zip(before);
    Ok(reasons
        .filter_map(|((node, state), before)| Some((node, fault(state.as_ref(), *before)?)))
        .map(|(node, fault)| format!("container {name} on {} {fault}", node.name))
        .next())
}

/// What is hopeless about a container's state, if anything.
fn fault(state: Option<&ContainerState>, before: u32) -> Option<String> {
    match state {
        None => Some("is gone".into()),
        Some(state) if state.restarts >= before + MAX_RESTARTS => {
            Some(format!("was restarted {} times", state.restarts - before))
        }
        Some(state) if matches!(state.status.as_str(), "exited" | "dead") => {
            Some(format!("is {}", state.status))
        }
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restarting_a_little_is_no_reason_to_give_up() {
        let state = |status: &str, restarts| ContainerState {
            status: status.into(),
            restarts,
            config: String::new(),
        };
        assert_eq!(fault(Some(&state("running", 0)), 0), None);
        assert_eq!(fault(Some(&state("restarting", 2)), 0), None);
        assert_eq!(fault(Some(&state("running", 5)), 3), None);
        let told = |state: Option<ContainerState>, before| {
            fault(state.as_ref(), before).unwrap_or_default()
        };
        assert!(told(Some(state("running", 3)), 0).contains("3 times"));
        assert!(told(Some(state("running", 6)), 3).contains("3 times"));
        assert!(told(Some(state("exited", 0)), 0).contains("exited"));
        assert!(told(None, 0).contains("gone"));
    }
}
