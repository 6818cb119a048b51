//! The test of the network between all nodes, inside the image, before any weights are loaded: a
//! wrong interface or a firewall fails in seconds and with its name.

use std::thread;
use std::time::Duration;

use super::causes::advice;
use super::container::{name, surroundings};
use super::deployment::{Deployment, MEETING_PORT};
use super::node::Node;
use crate::agent::fleet::all;
use crate::agent::protocol::Exited;
use crate::bundle::cluster_spec::Gpus;
use crate::error::{Error, Result};
use crate::ssh::fan_out;

/// The test itself; can be run by hand.
const SCRIPT: &str = include_str!("preflight.py");

/// Seconds for all of it: above the sum of the script's own limits.
const TIMEOUT: u64 = 400;

/// Exit status of the script for what is wrong on that very node.
const WRONG_HERE: i32 = 3;

/// Exit status of the script when all it knows is that others did not come.
const WRONG_ELSEWHERE: i32 = 5;

/// Exit status of a test that was ended from outside.
const KILLED: i32 = 137;

/// How long other nodes may go on when one has found its own fault.
const GRACE: Duration = Duration::from_secs(2);

/// Runs the test on all nodes at once; they must run no container of this bundle.
pub fn test(nodes: &[Node], deployment: &Deployment) -> Result<()> {
    let ranks: Vec<usize> = (0..nodes.len()).collect();
    let answers = all(fan_out(&ranks, |&rank| try_one(nodes, deployment, rank)))?;
    let names = nodes.iter().map(|node| node.name.as_str());
    judge(&names.zip(answers).collect::<Vec<_>>())
}

/// Runs the test on one node. When that node is itself at fault, the others need not wait for it.
fn try_one(nodes: &[Node], deployment: &Deployment, rank: usize) -> Result<Exited> {
    let remove = ["rm", "--force", &test_name(deployment)].map(str::to_owned);
    let node = &nodes[rank];
    // One of a start that was interrupted.
    node.runtime(&remove)?;
    let answer = node.runtime_within(&run(deployment, rank), TIMEOUT);
    if answer.is_err() {
        node.runtime(&remove)?;
    }
    if answer
        .as_ref()
        .is_ok_and(|exited| blame(exited) <= WRONG_HERE && exited.status != 0)
    {
        // The others may be about to find faults of their own.
        thread::sleep(GRACE);
        let _ = fan_out(nodes, |other| other.runtime(&remove));
    }
    answer
}

fn test_name(deployment: &Deployment) -> String {
    format!("{}-network-test", name(&deployment.manifest.name))
}

/// `run --rm ...`: everything after `docker`, for the node of this rank.
#[must_use]
pub fn run(deployment: &Deployment, rank: usize) -> Vec<String> {
    let Some(member) = deployment.members.get(rank) else {
        return Vec::new();
    };
    let gpus = match deployment.manifest.cluster.gpus {
        Gpus::All => member.gpus,
        Gpus::None => 0,
    };
    let own_name = test_name(deployment);
    let mut argv = ["run", "--rm", "--name", &own_name]
        .map(str::to_owned)
        .to_vec();
    argv.extend(surroundings(deployment, member));
    let nodes = deployment.members.len();
    let words = ["--entrypoint", "python3", deployment.image(), "-c", SCRIPT];
    argv.extend(words.map(str::to_owned));
    argv.extend([rank.to_string(), nodes.to_string(), gpus.to_string()]);
    argv.extend([deployment.head().to_string(), MEETING_PORT.to_string()]);
    argv
}

/// Finds the cause among the answers: a node that found its own fault explains why others could
/// not reach it, and one that could not be reached why others waited for it.
fn judge(answers: &[(&str, Exited)]) -> Result<()> {
    let failed = || answers.iter().filter(|(_, exited)| exited.status != 0);
    let Some(first) = failed().map(|(_, exited)| blame(exited)).min() else {
        return Ok(());
    };
    let causes = failed().filter(|(_, exited)| blame(exited) == first);
    let sentence = |(node, exited): &(&str, Exited)| {
        let said = said(exited);
        format!("{node}: {said}{}", advice(&said))
    };
    let sentences: Vec<String> = causes.map(sentence).collect();
    Err(Error::Failed(format!(
        "the nodes cannot work together, so nothing was started:\n{}",
        sentences.join("\n")
    )))
}

/// How near to the cause a failure is; the least counts.
fn blame(exited: &Exited) -> i32 {
    match exited.status {
        status @ WRONG_HERE..=WRONG_ELSEWHERE => status,
        KILLED => WRONG_ELSEWHERE + 1,
        // The container could not be run at all.
        _ => 0,
    }
}

/// The script's sentence, else the last line of what was said instead.
fn said(exited: &Exited) -> String {
    let own = exited
        .stdout
        .lines()
        .rev()
        .find_map(|line| line.strip_prefix("bundle: "));
    // Docker's last line tells only where help is: "Run 'docker run --help' ...", in older versions "See ...".
    let tells = |line: &&str| !line.is_empty() && !line.contains(" run --help'");
    let any = || exited.stderr.lines().rev().find(tells);
    match own.or_else(any) {
        Some(line) => line.to_owned(),
        None => format!(
            "the test of the network ended with status {}",
            exited.status
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::cluster_spec::ClusterSpec;
    use crate::cluster::deployment::tests::{manifest, nodes};

    fn exited(status: i32, stdout: &str, stderr: &str) -> Exited {
        Exited {
            status,
            stdout: stdout.into(),
            stderr: stderr.into(),
        }
    }

    #[test]
    fn the_test_runs_where_the_server_will() {
        let deployment =
            Deployment::plan(manifest(ClusterSpec::default(), true), &nodes(4)).unwrap();
        let argv = run(&deployment, 2);
        let line = argv.join(" ");
        assert!(line.starts_with(
            "run --rm --name bundle-deepseek-r1-70b-network-test --pull=never --network host"
        ));
        for part in [
            "--gpus all",
            "VLLM_HOST_IP=10.0.0.13",
            "GLOO_SOCKET_IFNAME=ens13f0",
        ] {
            assert!(line.contains(part), "{part}");
        }
        assert_eq!(
            argv[argv.len() - 5..],
            ["2", "4", "4", "10.0.0.11", "29511"]
        );
    }

    #[test]
    fn only_the_cause_is_told() {
        let fine = || exited(0, "bundle: the network is fine\n", "");
        let here = || exited(3, "bundle: there is no interface ib9 here\n", "");
        let there = || exited(4, "bundle: 10.0.0.12 cannot reach 10.0.0.13\n", "");
        let away = || exited(5, "bundle: number 3 did not come\n", "");
        let broken = || {
            exited(
                125,
                "",
                "docker: could not select device driver\n\nRun 'docker run --help' for more information\n",
            )
        };
        for (answers, expected) in [
            (vec![fine(), fine(), fine()], ""),
            (
                vec![away(), there(), here()],
                "c: there is no interface ib9 here",
            ),
            (
                vec![away(), there(), fine()],
                "b: 10.0.0.12 cannot reach 10.0.0.13",
            ),
            (
                vec![away(), away(), fine()],
                "a: number 3 did not come\nb: number 3 did not come",
            ),
            (
                vec![away(), broken(), here()],
                "b: docker: could not select device driver\nremedy: the NVIDIA container toolkit is missing or \
                 docker was not restarted after its installation",
            ),
            (
                vec![exited(137, "", ""), fine(), fine()],
                "a: the test of the network ended with status 137",
            ),
        ] {
            let names = ["a", "b", "c"];
            let verdict = judge(&names.into_iter().zip(answers).collect::<Vec<_>>());
            let text = verdict
                .map_err(|error| error.to_string())
                .err()
                .unwrap_or_default();
            let causes = text.split_once('\n').map_or("", |(_, causes)| causes);
            assert_eq!(causes, expected);
        }
    }
}
