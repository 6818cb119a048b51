//! The cells that come from a node's own facts: each judges one of them, with a remedy.

use super::{Cell, Found, Port, bad, ok, only_remarked};
use crate::agent::facts::{Facts, Listener, Space};
use crate::bundle::cluster_spec::Gpus;

/// Clocks further apart than this confuse logs, certificates and tokens; milliseconds.
const MAX_CLOCK_OFFSET: i64 = 30_000;

/// The container runtime.
pub fn runtime(facts: &Facts) -> Cell {
    match (&facts.runtime, &facts.runtime_complaint) {
        (Some(runtime), complaint) => {
            // Distributions append their own numbers: 20.10.24+dfsg1.
            let version = runtime.version.split('+').next().unwrap_or_default();
            let value = format!("{} {version}", runtime.command);
            let Some(complaint) = complaint else {
                return ok("runtime", value);
            };
            let sentence = format!(
                "{} is taken, because another runtime does not answer ({complaint}); start its \
                 service if it is meant",
                runtime.command
            );
            only_remarked(bad("runtime", value, sentence))
        }
        (None, None) => bad(
            "runtime",
            "none",
            "neither docker, podman nor nerdctl is installed; install one of them",
        ),
        (None, Some(complaint)) => bad(
            "runtime",
            "silent",
            format!(
                "the container runtime does not answer ({complaint}); start its service there, \
                 and log in as root or with sudo=true in hosts.txt"
            ),
        ),
    }
}

/// GPUs, driver and toolkit. Without a bundle nobody knows whether they are needed.
pub fn gpu_cells(found: &Found, wish: Option<Gpus>) -> Vec<Cell> {
    let cells = [gpus(found), driver(found.facts), toolkit(found.facts)];
    match wish {
        Some(Gpus::All) => cells.into(),
        Some(Gpus::None) => Vec::new(),
        None => cells.map(only_remarked).into(),
    }
}

fn gpus(found: &Found) -> Cell {
    let facts = found.facts;
    let Some(first) = facts.gpus.first() else {
        return bad(
            "GPUs",
            "none",
            "nvidia-smi shows no GPU; install the driver, or set gpus = \"none\" in bundle.toml for a CPU image",
        );
    };
    let there = facts.gpus.len();
    let value = match found.gpus {
        Some(wanted) => format!("{wanted} of {there} x {}", first.name),
        None => format!("{there} x {}", first.name),
    };
    if found.gpus.is_some_and(|wanted| wanted as usize > there) {
        let sentence = format!("hosts.txt wants more GPUs of it than it has, which is {there}");
        return bad("GPUs", value, sentence);
    }
    let kinds_differ = facts
        .gpus
        .iter()
        .any(|gpu| gpu.compute_capability != first.compute_capability);
    if kinds_differ {
        let sentence =
            "GPUs of different kinds in one node; limit CUDA_VISIBLE_DEVICES in [cluster] env";
        return bad("GPUs", value, sentence);
    }
    ok("GPUs", value)
}

fn driver(facts: &Facts) -> Cell {
    match &facts.driver {
        Some(driver) => ok("driver", driver),
        None => bad(
            "driver",
            "none",
            "no NVIDIA driver answers to nvidia-smi; install or load it",
        ),
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

/// The interface that owns the node's address.
pub fn interface(facts: &Facts) -> Cell {
    match &facts.interface {
        Some(interface) => ok("interface", interface),
        None => bad(
            "interface",
            "none",
            "no interface owns the address in hosts.txt; use the node's own address, not one that is translated on the way",
        ),
    }
}

/// Free space, a value per filesystem, under the name of the first directory on it.
pub fn free(space: &[Space]) -> String {
    let mut filesystems: Vec<&Space> = Vec::new();
    for place in space {
        if filesystems.iter().all(|seen| seen.device != place.device) {
            filesystems.push(place);
        }
    }
    let gigabytes = |place: &Space| match place.free / 1_000_000 {
        megabytes @ ..10_000 => format!("{megabytes} MB"),
        megabytes => format!("{} GB", megabytes / 1000),
    };
    if let [only] = filesystems[..] {
        return gigabytes(only);
    }
    let named = |place: &&Space| format!("{} {}", place.path, gigabytes(place));
    filesystems.iter().map(named).collect::<Vec<_>>().join(", ")
}

/// What the bundle's own container listens on is not in the way.
pub fn taken<'a>(facts: &Facts, ports: impl Iterator<Item = &'a Port>, own: Option<&str>) -> Cell {
    let (mut numbers, mut sentences, mut ours) = (Vec::new(), Vec::new(), false);
    for port in ports {
        let taken = facts
            .listeners
            .iter()
            .find(|taken| taken.port == port.number);
        match taken {
            None => {}
            Some(taken) if own.is_some() && taken.container.as_deref() == own => ours = true,
            Some(taken) => {
                numbers.push(port.number.to_string());
                sentences.push(format!(
                    "port {} for {} is taken by {}; {}",
                    port.number,
                    port.purpose,
                    owner(taken),
                    port.remedy
                ));
            }
        }
    }
    match (numbers.is_empty(), ours) {
        (true, false) => ok("ports", "free"),
        (true, true) => ok("ports", "ours"),
        (false, _) => bad("ports", numbers.join(" "), sentences.join("; ")),
    }
}

fn owner(listener: &Listener) -> String {
    match (&listener.container, &listener.program) {
        (Some(container), _) => format!("container {container}"),
        (None, Some(program)) => program.clone(),
        (None, None) => "another program".into(),
    }
}

/// How far the node's clock is from ours, in milliseconds.
pub fn clock(offset_ms: i64) -> Cell {
    #[allow(clippy::cast_precision_loss, reason = "tenths of a second are shown")]
    let seconds = offset_ms as f64 / 1000.0;
    match offset_ms.abs() {
        // The way there and back takes some of it.
        0..100 => return ok("clock", "0 s"),
        100..=MAX_CLOCK_OFFSET => return ok("clock", format!("{seconds:+.1} s")),
        _ => {}
    }
    only_remarked(bad(
        "clock",
        format!("{seconds:+.0} s"),
        format!(
            "its clock is {:.0} s {} the clock here; set it, or run NTP inside the gap",
            seconds.abs(),
            if offset_ms > 0 { "ahead of" } else { "behind" }
        ),
    ))
}
