//! The preflight table: a row per node, a cell per fact, and a remedy for each fact that will not
//! do.

use serde::Serialize;

use crate::agent::facts::{Facts, Listener, Space};
use crate::bundle::cluster_spec::Gpus;
use crate::error::{Error, Result};

/// Clocks further apart than this confuse logs, certificates and tokens; milliseconds.
const MAX_CLOCK_OFFSET: i64 = 30_000;

/// The columns, in the order of the table.
pub const COLUMNS: [&str; 12] = [
    "reachable",
    "host key",
    "runtime",
    "GPUs",
    "driver",
    "toolkit",
    "interface",
    "free",
    "ports",
    "clock",
    "content",
    "chain",
];

/// One node's row.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The node as hosts.txt names it.
    pub node: String,
    /// What was found, in the order of [`COLUMNS`]; not every node has every column.
    pub cells: Vec<Cell>,
}

/// One fact.
#[derive(Clone, Debug, Serialize)]
pub struct Cell {
    /// One of [`COLUMNS`].
    pub column: &'static str,
    /// What was found.
    pub value: String,
    /// Why it will not do.
    pub fault: Option<Fault>,
}

/// What is wrong with a fact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// Whether an install goes on nevertheless.
    pub level: Level,
    /// What is wrong, and what to do about it.
    pub sentence: String,
    /// The exit code that it leads to when it is an obstacle.
    pub exit_code: u8,
}

/// How bad a fault is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Worth knowing.
    Remark,
    /// The node cannot take the bundle.
    Obstacle,
}

/// What the nodes are checked against.
#[derive(Clone, Debug)]
pub struct Wish {
    /// Whether there is an image, so that a container runtime is needed.
    pub containers: bool,
    /// Whether containers get GPUs; not known without a bundle.
    pub gpus: Option<Gpus>,
    /// The name of the bundle's own container: what it holds is not in the way.
    pub container: Option<String>,
    /// Ports that every node needs.
    pub ports: Vec<Port>,
    /// Ports that the head needs besides.
    pub head_ports: Vec<Port>,
}

/// A TCP port that should be free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Port {
    /// Its number.
    pub number: u16,
    /// Who wants it, e.g. `the API`.
    pub purpose: &'static str,
    /// What to do when it is taken.
    pub remedy: &'static str,
}

/// What is known of a node that answered.
pub struct Found<'a> {
    /// The node as hosts.txt names it.
    pub node: &'a str,
    /// How many GPUs hosts.txt wants of it.
    pub gpus: Option<u32>,
    /// Whether it is the head.
    pub head: bool,
    /// Its own word.
    pub facts: &'a Facts,
    /// Milliseconds that its clock is ahead of ours.
    pub clock_offset_ms: i64,
}

impl Wish {
    /// The ports that a node needs.
    pub fn ports_of(&self, head: bool) -> impl Iterator<Item = &Port> {
        let more = if head { &self.head_ports[..] } else { &[] };
        self.ports.iter().chain(more)
    }
}

impl Row {
    /// The row of a node that answered.
    #[must_use]
    pub fn of_facts(found: &Found, wish: &Wish) -> Self {
        let facts = found.facts;
        let mut cells = vec![ok("reachable", "yes"), ok("host key", "known")];
        if wish.containers {
            cells.push(runtime(facts));
            cells.extend(gpu_cells(found, wish.gpus));
            cells.push(interface(facts));
        }
        let ports = wish.ports_of(found.head);
        cells.extend([
            ok("free", free(&facts.space)),
            taken(facts, ports, wish.container.as_deref()),
            clock(found.clock_offset_ms),
        ]);
        Self {
            node: found.node.to_owned(),
            cells,
        }
    }

    /// The row of a node that could not be reached.
    #[must_use]
    pub fn of_error(node: &str, error: &Error) -> Self {
        let cells = match error {
            Error::HostKey(_) => vec![
                ok("reachable", "yes"),
                of_error("host key", "refused", error),
            ],
            _ => vec![of_error("reachable", "no", error)],
        };
        Self {
            node: node.to_owned(),
            cells,
        }
    }

    /// Adds a cell; one that has a fault takes the place of another of its column.
    pub fn add(&mut self, cell: Cell) {
        match self.cells.iter_mut().find(|old| old.column == cell.column) {
            Some(old) if cell.fault.is_some() => old.fault = cell.fault,
            Some(_) => {}
            None => self.cells.push(cell),
        }
    }

    /// The cell of a column.
    #[must_use]
    pub fn cell(&self, column: &str) -> Option<&Cell> {
        self.cells.iter().find(|cell| cell.column == column)
    }

    /// Whether nothing is in the way of an install.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.sentences(Level::Obstacle).next().is_none()
    }

    /// What is wrong, a sentence each that names the node.
    pub fn sentences(&self, level: Level) -> impl Iterator<Item = String> {
        let faults = self.cells.iter().filter_map(|cell| cell.fault.as_ref());
        faults
            .filter(move |fault| fault.level == level)
            .map(|fault| {
                // Many an error names it already.
                if names(&fault.sentence, &self.node) {
                    fault.sentence.clone()
                } else {
                    format!("{}: {}", self.node, fault.sentence)
                }
            })
    }
}

/// Whether a sentence is about the node of this name, e.g. as `NODE:8000`.
fn names(sentence: &str, node: &str) -> bool {
    let mut words = sentence.split_whitespace();
    words.any(|word| {
        let rest = word.trim_start_matches('[').strip_prefix(node);
        rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '.'))
    })
}

/// The one before the node in the chain can open a connection to it.
#[must_use]
pub fn straight() -> Cell {
    ok("chain", "yes")
}

/// Nobody can, for this reason: its data takes the way of the control channel.
#[must_use]
pub fn through_ssh(cause: &str) -> Cell {
    let sentence = format!(
        "{cause}; its data goes through ssh, which is slower. Open the data port between the nodes \
         (--data-port fixes its number)"
    );
    only_remarked(bad("chain", "ssh", sentence))
}

/// How much of the bundle is there: of `all` chunks `lacking` cannot be; no chunks at all are
/// those that were proven before.
#[must_use]
pub fn content(lacking: usize, all: usize) -> Cell {
    let value = match lacking {
        0 if all == 0 => "in place",
        0 => "to be checked",
        _ if lacking == all => "to be sent",
        _ => "in part",
    };
    ok("content", value)
}

/// The cell of a column whose fact could not be had.
#[must_use]
pub fn of_error(column: &'static str, value: &str, error: &Error) -> Cell {
    let fault = Fault {
        level: Level::Obstacle,
        sentence: error.to_string(),
        exit_code: error.exit_code(),
    };
    Cell {
        column,
        value: value.to_owned(),
        fault: Some(fault),
    }
}

/// The error for rows with obstacles, with `text` as its sentence. A host key that is refused
/// decides the exit code; otherwise it is the obstacles' own when they agree.
pub fn verdict(rows: &[Row], text: String) -> Result<()> {
    let faults = rows
        .iter()
        .flat_map(|row| &row.cells)
        .filter_map(|cell| cell.fault.as_ref());
    let mut codes: Vec<u8> = faults
        .filter(|fault| fault.level == Level::Obstacle)
        .map(|fault| fault.exit_code)
        .collect();
    codes.sort_unstable();
    codes.dedup();
    let host_key = Error::HostKey(String::new()).exit_code();
    match codes[..] {
        [] => Ok(()),
        _ if codes.contains(&host_key) => Err(Error::HostKey(text)),
        [code] if code != 1 => Err(Error::from_code(code, text)),
        _ if rows.iter().any(Row::is_ready) => Err(Error::SomeNodes(text)),
        _ => Err(Error::Failed(text)),
    }
}

fn ok(column: &'static str, value: impl Into<String>) -> Cell {
    Cell {
        column,
        value: value.into(),
        fault: None,
    }
}

fn bad(column: &'static str, value: impl Into<String>, sentence: impl Into<String>) -> Cell {
    Cell {
        column,
        value: value.into(),
        fault: Some(Fault {
            level: Level::Obstacle,
            sentence: sentence.into(),
            exit_code: 1,
        }),
    }
}

/// The same cell, with a fault that is only worth knowing.
fn only_remarked(mut cell: Cell) -> Cell {
    if let Some(fault) = &mut cell.fault {
        fault.level = Level::Remark;
    }
    cell
}

fn runtime(facts: &Facts) -> Cell {
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
fn gpu_cells(found: &Found, wish: Option<Gpus>) -> Vec<Cell> {
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

/// Free space, a value per filesystem, under the name of the first directory on it.
fn free(space: &[Space]) -> String {
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
fn taken<'a>(facts: &Facts, ports: impl Iterator<Item = &'a Port>, own: Option<&str>) -> Cell {
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

fn clock(offset_ms: i64) -> Cell {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::facts::{Gpu, Runtime};

    const API: Port = Port {
        number: 8000,
        purpose: "the API",
        remedy: "stop it",
    };

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
                version: "20.10.24+dfsg1".into(),
            }),
            ..Facts::default()
        }
    }

    fn wish(gpus: Option<Gpus>) -> Wish {
        Wish {
            containers: true,
            gpus,
            container: Some("bundle-x".into()),
            ports: Vec::new(),
            head_ports: vec![API],
        }
    }

    fn found(facts: &Facts) -> Found<'_> {
        Found {
            node: "n1",
            gpus: None,
            head: true,
            facts,
            clock_offset_ms: 0,
        }
    }

    fn faults(found: &Found, gpus: Option<Gpus>, level: Level) -> Vec<String> {
        Row::of_facts(found, &wish(gpus)).sentences(level).collect()
    }

    fn listener(container: Option<&str>) -> Listener {
        Listener {
            port: 8000,
            program: Some("nginx".into()),
            container: container.map(str::to_owned),
        }
    }

    #[test]
    fn a_healthy_node_has_no_fault() {
        let facts = healthy();
        let row = Row::of_facts(&found(&facts), &wish(Some(Gpus::All)));
        assert!(row.is_ready());
        assert!(row.cells.iter().all(|cell| COLUMNS.contains(&cell.column)));
        assert_eq!(row.cell("runtime").unwrap().value, "docker 20.10.24");
        assert_eq!(row.cell("ports").unwrap().value, "free");
    }

    #[test]
    fn each_lack_has_its_sentence() {
        type Spoil = fn(&mut Facts);
        let cases: [(Spoil, &str); 8] = [
            (|facts| facts.runtime = None, "neither docker"),
            (
                |facts| {
                    facts.runtime = None;
                    facts.runtime_complaint = Some("docker: permission denied".into());
                },
                "(docker: permission denied); start its service",
            ),
            (|facts| facts.gpus.clear(), "nvidia-smi"),
            (
                |facts| facts.gpus[3].compute_capability = "8.0".into(),
                "different kinds",
            ),
            (|facts| facts.driver = None, "driver"),
            (|facts| facts.toolkit = false, "toolkit"),
            (|facts| facts.interface = None, "interface"),
            (
                |facts| facts.listeners = vec![listener(None)],
                "port 8000 for the API is taken by nginx; stop it",
            ),
        ];
        for (spoil, words) in cases {
            let mut facts = healthy();
            spoil(&mut facts);
            let sentences = faults(&found(&facts), Some(Gpus::All), Level::Obstacle);
            assert!(
                sentences.len() == 1 && sentences[0].contains(words),
                "{words}: {sentences:?}"
            );
        }
    }

    #[test]
    fn without_containers_only_space_ports_and_clock_matter() {
        let wish = Wish {
            containers: false,
            ..wish(Some(Gpus::All))
        };
        let row = Row::of_facts(&found(&Facts::default()), &wish);
        assert!(row.is_ready());
        assert!(row.cell("interface").is_none());
    }

    #[test]
    fn hosts_txt_cannot_want_more_gpus_than_there_are() {
        let facts = healthy();
        for (wanted, count, value) in [(4, 0, "4 of 4 x Tesla T4"), (5, 1, "5 of 4 x Tesla T4")] {
            let found = Found {
                gpus: Some(wanted),
                ..found(&facts)
            };
            let row = Row::of_facts(&found, &wish(Some(Gpus::All)));
            assert_eq!(row.cell("GPUs").unwrap().value, value);
            assert_eq!(row.sentences(Level::Obstacle).count(), count);
        }
    }

    #[test]
    fn gpus_are_asked_for_when_they_are_needed() {
        let facts = Facts {
            gpus: Vec::new(),
            driver: None,
            toolkit: false,
            ..healthy()
        };
        let count = |gpus, level| faults(&found(&facts), gpus, level).len();
        assert_eq!(count(Some(Gpus::All), Level::Obstacle), 3);
        assert_eq!(count(Some(Gpus::None), Level::Obstacle), 0);
        assert_eq!(count(Some(Gpus::None), Level::Remark), 0);
        assert_eq!(count(None, Level::Obstacle), 0);
        assert_eq!(count(None, Level::Remark), 3);
    }

    #[test]
    fn a_wrong_clock_is_only_remarked() {
        let facts = healthy();
        for (offset, value, sentence) in [
            (-30_000, "-30.0 s", None),
            (31_000, "+31 s", Some("n1: its clock is 31 s ahead of")),
            (-90_000, "-90 s", Some("n1: its clock is 90 s behind")),
        ] {
            let found = Found {
                clock_offset_ms: offset,
                ..found(&facts)
            };
            let row = Row::of_facts(&found, &wish(None));
            assert_eq!(row.cell("clock").unwrap().value, value);
            assert!(row.is_ready());
            let remark = row.sentences(Level::Remark).next();
            assert_eq!(remark.is_some(), sentence.is_some());
            assert!(
                remark
                    .unwrap_or_default()
                    .starts_with(sentence.unwrap_or_default())
            );
        }
    }

    #[test]
    fn ports_of_the_bundle_itself_and_of_the_head_are_not_in_the_way() {
        let mut facts = healthy();
        facts.listeners = vec![listener(Some("bundle-x"))];
        let row = Row::of_facts(&found(&facts), &wish(None));
        assert_eq!(row.cell("ports").unwrap().value, "ours");
        facts.listeners = vec![listener(Some("other"))];
        let row = Row::of_facts(&found(&facts), &wish(None));
        assert_eq!(row.cell("ports").unwrap().value, "8000");
        let worker = Found {
            head: false,
            ..found(&facts)
        };
        assert!(Row::of_facts(&worker, &wish(None)).is_ready());
    }

    #[test]
    fn filesystems_are_shown_once() {
        let space = |path: &str, device, free: u64| Space {
            path: path.parse().unwrap(),
            device,
            free: free * 1_000_000_000,
        };
        let two = [
            space("/data", 1, 900),
            space("/a", 2, 40),
            space("/b", 2, 40),
        ];
        assert_eq!(free(&two), "/data 900 GB, /a 40 GB");
        assert_eq!(free(&two[1..]), "40 GB");
        assert_eq!(free(&[]), "");
    }

    #[test]
    fn an_unreachable_node_says_why_once() {
        let row = Row::of_error("n1", &Error::Failed("n1: nothing listens".into()));
        let sentences: Vec<_> = row.sentences(Level::Obstacle).collect();
        assert_eq!(sentences, ["n1: nothing listens"]);
        let row = Row::of_error("n1", &Error::HostKey("n1: changed".into()));
        assert_eq!(row.cell("reachable").unwrap().fault, None);
        assert_eq!(row.cell("host key").unwrap().value, "refused");
    }

    #[test]
    fn a_sentence_is_about_a_node_or_not() {
        for (sentence, yes) in [
            ("10.0.0.1: full", true),
            ("10.0.0.2: cannot connect to 10.0.0.1:7777: refused", true),
            ("10.0.0.11: full", false),
            ("10.0.0.1.2: full", false),
            ("full", false),
        ] {
            assert_eq!(names(sentence, "10.0.0.1"), yes, "{sentence}");
        }
        assert!(names("cannot connect to [fd00::1]:80", "fd00::1"));
    }

    #[test]
    fn the_exit_code_says_what_kind_of_fault_it_is() {
        let facts = healthy();
        let good = || Row::of_facts(&found(&facts), &wish(None));
        let bad = |error: Error| Row::of_error("n2", &error);
        let full = || {
            let mut row = good();
            row.add(of_error("free", "", &Error::NoSpace("full".into())));
            row
        };
        let down = || bad(Error::Failed("x".into()));
        let key = || bad(Error::HostKey("x".into()));
        for (rows, code) in [
            (vec![good()], 0),
            (vec![down()], 1),
            (vec![good(), down()], 3),
            (vec![good(), full()], 13),
            (vec![good(), full(), down()], 3),
            (vec![good(), down(), key()], 12),
        ] {
            let result = verdict(&rows, "x".into());
            assert_eq!(result.map_or_else(|error| error.exit_code(), |()| 0), code);
        }
    }
}
