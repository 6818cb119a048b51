//! `bundle check`: can these nodes take the bundle? Changes nothing on them.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use serde::Serialize;

use super::locate::{bundle_dir, media};
use super::nodes::{NodeArgs, deployment, say};
use super::output::{Paint, colours, note, print, print_json, table_with};
use crate::agent::facts::Facts;
use crate::agent::fleet::Contact;
use crate::bundle::manifest::Manifest;
use crate::bundle::media::Media;
use crate::cluster::container;
use crate::cluster::deployment::{MEETING_PORT, executor_port};
use crate::error::Result;
use crate::install::preflight::{COLUMNS, Cell, Level, Port, Row, Wish, verdict};
use crate::install::space;
use crate::install::survey::Survey;

/// Arguments of `bundle check`.
#[derive(clap::Args)]
pub struct Args {
    /// The bundle; by default the one here. Without any, the nodes alone are checked.
    path: Vec<PathBuf>,
    #[command(flatten)]
    nodes: NodeArgs,
    /// Accept a bundle whose serial is lower than that of the installed one.
    #[arg(long)]
    allow_older: bool,
    /// TCP port of the nodes for the data; 0 takes any free one.
    #[arg(long, value_name = "N", default_value_t = 0)]
    data_port: u16,
    /// Print it as JSON.
    #[arg(long)]
    json: bool,
}

/// Runs `bundle check`. A fault on some nodes is exit code 3, on all of them 1, unless they have a
/// more telling code in common.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let media = find_media(&args.path)?;
    let manifest = media.as_ref().map(Media::manifest);
    let contacts = args.nodes.connect()?;
    let mut survey = survey(contacts, &args.nodes, manifest, args.data_port)?;
    if let Some(media) = &media {
        let text = String::from_utf8_lossy(media.manifest_bytes());
        let manifest = media.manifest();
        let containers = !manifest.images.is_empty() && !args.nodes.is_rehearsal();
        survey.add_content(manifest, &text, args.allow_older, containers);
    }
    survey.add_chain(args.data_port);
    if args.json {
        print_json(&Report::of(&survey))?;
    } else {
        print(&describe(&survey.rows, colours(&io::stdout())))?;
    }
    let faulty = survey.rows.iter().filter(|row| !row.is_ready()).count();
    let sentence = format!("{faulty} of {} nodes are not ready", survey.rows.len());
    verdict(&survey.rows, sentence)?;
    match manifest {
        Some(manifest) if !manifest.images.is_empty() && !args.nodes.is_rehearsal() => {
            // Ready each, but do they fit together, and the model on them?
            let Survey { members, facts, .. } = &survey;
            deployment(members, facts, manifest.clone(), media.as_ref())?;
            Ok(())
        }
        _ => Ok(()),
    }
}

/// The bundle, or nothing when none is named and none is here.
fn find_media(paths: &[PathBuf]) -> Result<Option<Media>> {
    if paths.is_empty() && bundle_dir(None, ".".as_ref()).is_err() {
        say("there is no bundle here; checking the nodes alone");
        return Ok(None);
    }
    media(paths).map(Some)
}

/// Asks the nodes for all that the bundle needs of them.
pub fn survey(
    contacts: Vec<Contact>,
    nodes: &NodeArgs,
    manifest: Option<&Manifest>,
    data_port: u16,
) -> Result<Survey> {
    let paths = match manifest {
        Some(manifest) => space::paths(manifest)?,
        None => vec![space::STATE_DIR.parse()?],
    };
    let mut wish = wish(manifest, data_port);
    wish.containers &= !nodes.is_rehearsal();
    Ok(Survey::of(contacts, &wish, &paths))
}

/// Refuses nodes that will not do, with the whole table; remarks are made in passing.
pub fn refuse(rows: &[Row]) -> Result<()> {
    let sentences: Vec<String> = of_level(rows, Level::Obstacle);
    if !sentences.is_empty() {
        note(&table(rows, colours(&io::stderr())));
    }
    for remark in of_level(rows, Level::Remark) {
        say(&remark);
    }
    let text = format!("some nodes are not ready:\n{}", sentences.join("\n"));
    verdict(rows, text)
}

fn wish(manifest: Option<&Manifest>, data_port: u16) -> Wish {
    let data = Port {
        number: data_port,
        purpose: "the data",
        remedy: "choose another with --data-port",
    };
    let mut wish = Wish {
        containers: true,
        gpus: None,
        container: None,
        ports: Vec::from_iter((data_port > 0).then_some(data)),
        head_ports: Vec::new(),
    };
    let Some(manifest) = manifest else {
        return wish;
    };
    let cluster = &manifest.cluster;
    wish.containers = !manifest.images.is_empty();
    wish.gpus = Some(cluster.gpus);
    wish.container = Some(container::name(&manifest.name));
    if wish.containers {
        let port = |number, purpose| Port {
            number,
            purpose,
            remedy: "stop that on the head, or make another node the head",
        };
        wish.head_ports = vec![
            port(cluster.port, "the API"),
            port(executor_port(manifest), "the nodes' own cluster"),
            port(MEETING_PORT, "the start of the nodes together"),
        ];
    }
    wish
}

/// The table and the sentences.
fn describe(rows: &[Row], colours: bool) -> String {
    let mut text = table(rows, colours);
    let (bad, odd) = (
        of_level(rows, Level::Obstacle),
        of_level(rows, Level::Remark),
    );
    let painted = [(bad, Paint::Failure), (odd, Paint::Warning)];
    for (sentences, paint) in painted
        .iter()
        .filter(|(sentences, _)| !sentences.is_empty())
    {
        text.push('\n');
        for sentence in sentences {
            text.push_str(&paint.on(sentence, colours));
            text.push('\n');
        }
    }
    text
}

fn of_level(rows: &[Row], level: Level) -> Vec<String> {
    rows.iter().flat_map(|row| row.sentences(level)).collect()
}

/// A column per fact that any node has; `!` marks what is wrong where colours cannot.
fn table(rows: &[Row], colours: bool) -> String {
    let columns = COLUMNS
        .iter()
        .filter(|column| rows.iter().any(|row| row.cell(column).is_some()));
    let columns: Vec<&str> = columns.copied().collect();
    let heading = ["node"].iter().chain(&columns).map(ToString::to_string);
    let mut lines: Vec<Vec<String>> = vec![heading.collect()];
    for row in rows {
        let value = |column: &&str| match row.cell(column) {
            None => "-".to_owned(),
            Some(Cell {
                value, fault: None, ..
            }) => value.clone(),
            Some(Cell { value, .. }) => format!("{value}!"),
        };
        let values = columns.iter().map(value);
        lines.push([row.node.clone()].into_iter().chain(values).collect());
    }
    table_with(&lines, |line, column, text| {
        let cell = line
            .checked_sub(1)
            .and_then(|line| rows.get(line))
            .zip(column.checked_sub(1));
        let cell = cell.and_then(|(row, column)| row.cell(columns.get(column)?));
        let level = cell.map(|cell| cell.fault.as_ref().map(|fault| fault.level));
        match level {
            None => text.to_owned(),
            Some(None) => Paint::Good.on(text, colours),
            Some(Some(Level::Remark)) => Paint::Warning.on(text, colours),
            Some(Some(Level::Obstacle)) => Paint::Failure.on(text, colours),
        }
    })
}

/// The table for scripts.
#[derive(Serialize)]
struct Report<'a> {
    /// Whether nothing is in the way of an install.
    ready: bool,
    nodes: Vec<NodeReport<'a>>,
}

#[derive(Serialize)]
struct NodeReport<'a> {
    node: &'a str,
    ready: bool,
    /// By column, with `_` for spaces.
    cells: BTreeMap<String, &'a Cell>,
    /// What the node says of itself, in full; nothing when it did not answer.
    facts: Option<&'a Facts>,
}

impl<'a> Report<'a> {
    fn of(survey: &'a Survey) -> Self {
        let facts = |place: usize| {
            let member = survey
                .places
                .iter()
                .position(|&of_member| of_member == place)?;
            survey.facts.get(member)
        };
        let key = |cell: &Cell| cell.column.replace(' ', "_").to_lowercase();
        let node = |(place, row): (usize, &'a Row)| NodeReport {
            node: &row.node,
            ready: row.is_ready(),
            cells: row.cells.iter().map(|cell| (key(cell), cell)).collect(),
            facts: facts(place),
        };
        Self {
            ready: survey.rows.iter().all(Row::is_ready),
            nodes: survey.rows.iter().enumerate().map(node).collect(),
        }
    }
}
