//! `bundle check`: can these nodes take the bundle? Changes nothing on them.

use std::io::{self, IsTerminal as _};
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::locate::media;
use super::nodes::NodeArgs;
use super::output::{print, print_json, table};
use crate::agent::fleet::{Contact, Member, all};
use crate::bundle::manifest::Manifest;
use crate::error::{Error, Result};
use crate::install::preflight::{Row, Wish};
use crate::install::{dial, distribute, space};
use crate::ssh::fan_out;

/// Arguments of `bundle check`.
#[derive(clap::Args)]
pub struct Args {
    /// The bundle; by default the one here.
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

/// Runs `bundle check`. A fault on some nodes is exit code 3, on all of them 1.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let media = media(&args.path)?;
    let contacts = args.nodes.connect()?;
    let mut rows = rows(&contacts, media.manifest())?;
    if let Ok(members) = all(contacts.into_iter().map(|contact| contact.member).collect()) {
        let in_place = distribute::open(&members, &media, args.allow_older)?;
        let dialled = dial::chain(&members, args.data_port);
        for (row, in_place) in rows.iter_mut().zip(in_place) {
            row.add_content(in_place);
        }
        for (row, result) in rows.iter_mut().zip(&dialled) {
            row.add_dial(result);
        }
    }
    if args.json {
        print_json(&rows)?;
    } else {
        print(&describe(&rows, io::stdout().is_terminal()))?;
    }
    Ok(verdict(&rows)?)
}

/// A row per node, whether it can be reached or not.
fn rows(contacts: &[Contact], manifest: &Manifest) -> Result<Vec<Row>> {
    let paths = space::paths(manifest)?;
    let wish = Wish {
        containers: !manifest.images.is_empty(),
        gpus: manifest.cluster.gpus,
        now_ms: now_ms(),
    };
    let row = |contact: &Contact| {
        let facts = |member: &Member| member.facts(&paths);
        match contact.member.as_ref().map(facts) {
            Ok(Ok(facts)) => Row::of_facts(&contact.name, &facts, wish),
            Ok(Err(error)) => Row::of_error(&contact.name, &error),
            Err(error) => Row::of_error(&contact.name, error),
        }
    };
    Ok(fan_out(contacts, row))
}

/// The origin's clock, in milliseconds since 1970.
pub fn now_ms() -> i64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

fn describe(rows: &[Row], colours: bool) -> String {
    let widest = rows.iter().max_by_key(|row| row.cells.len());
    let columns = widest
        .into_iter()
        .flat_map(|row| row.cells.iter().map(|cell| cell.column));
    let heading = ["node"]
        .into_iter()
        .chain(columns)
        .map(str::to_owned)
        .collect();
    let mut lines = vec![heading];
    for row in rows {
        let values = row.cells.iter().map(|cell| match cell.fault {
            Some(_) => format!("{}!", cell.value),
            None => cell.value.clone(),
        });
        lines.push([row.node.clone()].into_iter().chain(values).collect());
    }
    let mut text = table(&lines);
    let faults: Vec<String> = rows.iter().flat_map(Row::faults).collect();
    if !faults.is_empty() {
        let (red, plain) = if colours {
            ("\x1b[31m", "\x1b[0m")
        } else {
            ("", "")
        };
        text.extend(["\n", red, &faults.join("\n"), plain, "\n"]);
    }
    text
}

fn verdict(rows: &[Row]) -> Result<()> {
    let faulty = rows
        .iter()
        .filter(|row| row.faults().next().is_some())
        .count();
    let sentence = format!("{faulty} of {} nodes are not ready", rows.len());
    match faulty {
        0 => Ok(()),
        all if all == rows.len() => Err(Error::Failed(sentence)),
        _ => Err(Error::SomeNodes(sentence)),
    }
}
