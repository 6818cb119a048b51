//! The preflight table: a row per node, a cell per fact, and a remedy for each fact that will not
//! do.

use serde::Serialize;

use crate::agent::facts::Facts;
use crate::bundle::cluster_spec::Gpus;
use crate::error::{Error, Result};

/// Clocks further apart than this confuse logs, certificates and tokens; milliseconds.
const MAX_CLOCK_OFFSET: i64 = 30_000;

/// One node's row.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The node as hosts.txt names it.
    pub node: String,
    /// Its facts, in the order of the columns.
    pub cells: Vec<Cell>,
}

/// One fact.
#[derive(Clone, Debug, Serialize)]
pub struct Cell {
    /// The column's heading.
    pub column: &'static str,
    /// What was found.
    pub value: String,
    /// Why it will not do, and what to do about it.
    pub fault: Option<String>,
}

/// What the table is checked against.
#[derive(Clone, Copy, Debug)]
pub struct Wish {
    /// Whether there is an image, so that a container runtime is needed.
    pub containers: bool,
    /// Whether containers get GPUs.
    pub gpus: Gpus,
    /// The origin's clock when the facts were asked for, in milliseconds since 1970.
    pub now_ms: i64,
}

impl Row {
    /// The row of a node that answered.
    #[must_use]
    pub fn of_facts(node: &str, facts: &Facts, wish: Wish) -> Self {
        let mut cells = vec![ok("reachable", "yes")];
        if wish.containers {
            cells.push(runtime(facts));
        }
        if wish.containers && wish.gpus == Gpus::All {
            cells.extend([gpus(facts), driver(facts), toolkit(facts)]);
        }
        cells.extend([interface(facts), space(facts), clock(facts, wish.now_ms)]);
        Self {
            node: node.to_owned(),
            cells,
        }
    }

    /// The row of a node that could not be reached.
    #[must_use]
    pub fn of_error(node: &str, error: &Error) -> Self {
        Self {
            node: node.to_owned(),
            cells: vec![bad("reachable", "no", &error.to_string())],
        }
    }

    /// Adds whether the one before the node in the chain can open a connection to it.
    pub fn add_dial(&mut self, result: &Result<()>) {
        self.cells.push(match result {
            Ok(()) => ok("chain", "yes"),
            Err(error) => {
                let fault = format!(
                    "{error}; open the data port between the nodes (--data-port fixes its number)"
                );
                bad("chain", "no", &fault)
            }
        });
    }

    /// Adds what of the bundle is on the node already.
    pub fn add_content(&mut self, in_place: bool) {
        self.cells.push(ok(
            "content",
            if in_place { "in place" } else { "to be sent" },
        ));
    }

    /// Sentences about everything that will not do.
    pub fn faults(&self) -> impl Iterator<Item = String> {
        self.cells.iter().filter_map(|cell| {
            let fault = cell.fault.as_ref()?;
            // An error from the node names it already.
            let named = fault.starts_with(&self.node);
            Some(if named {
                fault.clone()
            } else {
                format!("{}: {fault}", self.node)
            })
        })
    }
}

fn ok(column: &'static str, value: impl Into<String>) -> Cell {
    Cell {
        column,
        value: value.into(),
        fault: None,
    }
}

fn bad(column: &'static str, value: impl Into<String>, fault: &str) -> Cell {
    Cell {
        column,
        value: value.into(),
        fault: Some(fault.to_owned()),
    }
}

fn runtime(facts: &Facts) -> Cell {
    match &facts.runtime {
        Some(runtime) => ok(
            "runtime",
            format!("{} {}", runtime.command, runtime.version),
        ),
        None => bad(
            "runtime",
            "none",
            "no docker, podman or nerdctl answers; install one, or start its service",
        ),
    }
}

fn gpus(facts: &Facts) -> Cell {
    let Some(first) = facts.gpus.first() else {
        return bad(
            "GPUs",
            "none",
            "nvidia-smi shows no GPU; install the driver, or set gpus = \"none\" for a CPU image",
        );
    };
    let value = format!("{} x {}", facts.gpus.len(), first.name);
    if facts
        .gpus
        .iter()
        .any(|gpu| gpu.compute_capability != first.compute_capability)
    {
        let fault =
            "GPUs of different kinds in one node; limit CUDA_VISIBLE_DEVICES in [cluster] env";
        return bad("GPUs", value, fault);
    }
    ok("GPUs", value)
}

fn driver(facts: &Facts) -> Cell {
    match &facts.driver {
        Some(driver) => ok("driver", driver),
        None => bad("driver", "none", "no NVIDIA driver answers; install it"),
    }
}

fn toolkit(facts: &Facts) -> Cell {
    if facts.toolkit {
        return ok("toolkit", "yes");
    }
    bad(
        "toolkit",
        "no",
        "the NVIDIA container toolkit is missing, so containers get no GPU; install nvidia-container-toolkit and restart the runtime",
    )
}

fn interface(facts: &Facts) -> Cell {
    match &facts.interface {
        Some(interface) => ok("interface", interface),
        None => bad(
            "interface",
            "none",
            "no interface owns the address in hosts.txt; use the node's own address, not one that is translated on the way",
        ),
    }
}

fn space(facts: &Facts) -> Cell {
    let free = facts
        .space
        .iter()
        .map(|space| format!("{} {} GB", space.path, space.free / 1_000_000_000));
    ok("free", free.collect::<Vec<_>>().join(", "))
}

fn clock(facts: &Facts, now_ms: i64) -> Cell {
    let offset = facts.clock_ms - now_ms;
    let value = format!("{:+} s", offset / 1000);
    if offset.abs() <= MAX_CLOCK_OFFSET {
        return ok("clock", value);
    }
    let fault = format!(
        "the clock is {} s off; set it, or run NTP inside the gap",
        offset / 1000
    );
    bad("clock", value, &fault)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::facts::{Gpu, Runtime};

    fn healthy() -> Facts {
        let gpu = Gpu {
            name: "Tesla T4".into(),
            memory_mib: 15360,
            compute_capability: "7.5".into(),
        };
        Facts {
            interface: Some("ens1".into()),
            gpus: vec![gpu; 4],
            driver: Some("535.129.03".into()),
            toolkit: true,
            runtime: Some(Runtime {
                command: "docker".into(),
                version: "20.10.24".into(),
            }),
            ..Facts::default()
        }
    }

    fn faults(facts: &Facts, gpus: Gpus) -> Vec<String> {
        Row::of_facts(
            "n1",
            facts,
            Wish {
                containers: true,
                gpus,
                now_ms: 0,
            },
        )
        .faults()
        .collect()
    }

    #[test]
    fn a_healthy_node_has_no_fault() {
        assert_eq!(faults(&healthy(), Gpus::All), Vec::<String>::new());
    }

    #[test]
    fn each_lack_has_its_sentence() {
        type Spoil = fn(&mut Facts);
        let cases: [(Spoil, &str); 7] = [
            (|facts| facts.runtime = None, "docker"),
            (|facts| facts.gpus.clear(), "nvidia-smi"),
            (
                |facts| facts.gpus[3].compute_capability = "8.0".into(),
                "different kinds",
            ),
            (|facts| facts.driver = None, "driver"),
            (|facts| facts.toolkit = false, "toolkit"),
            (|facts| facts.interface = None, "interface"),
            (|facts| facts.clock_ms = 31_000, "31 s off"),
        ];
        for (spoil, word) in cases {
            let mut facts = healthy();
            spoil(&mut facts);
            let found = faults(&facts, Gpus::All);
            assert!(
                found.len() == 1 && found[0].contains(word),
                "{word}: {found:?}"
            );
        }
    }

    #[test]
    fn a_cpu_image_needs_no_gpu() {
        let facts = Facts {
            gpus: Vec::new(),
            driver: None,
            toolkit: false,
            ..healthy()
        };
        assert_eq!(faults(&facts, Gpus::None), Vec::<String>::new());
    }

    #[test]
    fn an_unreachable_node_says_why_once() {
        let row = Row::of_error("n1", &Error::HostKey("n1: the host key changed".into()));
        assert_eq!(
            row.faults().collect::<Vec<_>>(),
            ["n1: the host key changed"]
        );
    }
}
