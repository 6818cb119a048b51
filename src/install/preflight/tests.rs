use super::*;
use crate::agent::facts::{Gpu, Listener, Runtime, Space};

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
