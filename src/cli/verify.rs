//! `bundle verify`: is every byte the one that was packed? On the media, or on the nodes.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::jobs::JobsArgs;
use super::nodes::{NameArgs, ReachArgs, say};
use super::output::{print, print_json, size};
use super::progress::Meter;
use super::trust::TrustArgs;
use crate::agent::fleet::all;
use crate::bundle::media::Media;
use crate::bundle::request::Request;
use crate::error::Result;
use crate::fs::write_atomic;
use crate::verify::installed::{Audit, audit};
use crate::verify::{Report, State, VolumeReport, bytes_at_hand, verify};

/// Damaged places shown per volume; `--json` has all.
const SHOWN: usize = 10;

/// Arguments of `bundle verify`.
#[derive(clap::Args)]
pub struct Args {
    /// The bundle; by default the one here. Several directories when its volumes are on several
    /// media.
    path: Vec<PathBuf>,
    /// Hash what is installed on these nodes instead of the media. With PATH it must be that
    /// bundle.
    #[arg(long, value_name = "FILE")]
    hosts: Option<PathBuf>,
    /// With --hosts: the bundle's name, when several are installed.
    #[arg(long, requires = "hosts")]
    name: Option<String>,
    /// Write a request for what is missing or damaged: carry it out, and give it to
    /// `bundle pack --only` there.
    #[arg(long, value_name = "FILE", conflicts_with = "hosts")]
    request: Option<PathBuf>,
    #[command(flatten)]
    reach: ReachArgs,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    jobs: JobsArgs,
    #[command(flatten)]
    trust: TrustArgs,
}

/// Runs `bundle verify`.
pub fn run(args: &Args) -> anyhow::Result<()> {
    if let Some(hosts) = &args.hosts {
        return verify_nodes(args, hosts);
    }
    let media = args.trust.open(&args.path)?;
    let meter = Meter::new("verifying", bytes_at_hand(&media));
    let jobs = args.jobs.threads();
    let report = verify(&media, jobs, &|done| meter.set(done))?;
    drop(meter);
    if args.json {
        print_json(&report)?;
    } else {
        print(&describe(&report))?;
    }
    if let Some(file) = &args.request {
        request(file, &media, &report)?;
    }
    Ok(report.outcome()?)
}

/// Writes the request, when there is something to ask for.
fn request(file: &Path, media: &Media, report: &Report) -> Result<()> {
    if report.lacking.is_empty() {
        say("no chunk is missing or damaged, so there is nothing to request");
        return Ok(());
    }
    write_atomic(file, &Request::new(media, &report.lacking).to_bytes()?)?;
    say(&format!(
        "{} chunks are missing or damaged: carry {} out and run `bundle pack --only` with it where the bundle was packed",
        report.lacking.len(),
        file.display()
    ));
    Ok(())
}

/// Damaged files on some nodes are exit code 3, on all of them 10.
fn verify_nodes(args: &Args, hosts: &Path) -> anyhow::Result<()> {
    let contacts = args.reach.connect(hosts)?;
    let manifest = if args.path.is_empty() {
        let name = NameArgs::new(args.name.clone());
        name.installed_text(
            contacts
                .iter()
                .filter_map(|contact| contact.member.as_ref().ok()),
        )?
    } else {
        let media = args.trust.open(&args.path)?;
        media.manifest_bytes().to_vec()
    };
    say(&format!("hashing what is on {} nodes", contacts.len()));
    let audits = audit(&contacts, &manifest)?;
    if args.json {
        print_json(&audits)?;
    }
    let intact = all(audits.iter().map(Audit::outcome).collect())?;
    if !args.json {
        print(&format!("complete and intact on {} nodes", intact.len()))?;
    }
    Ok(())
}

fn describe(report: &Report) -> String {
    let mut text = String::new();
    for volume in report.all_volumes() {
        describe_volume(volume, &mut text);
    }
    for fill in &report.fills {
        let _ = writeln!(
            text,
            "{}: {} intact chunks of this bundle",
            fill.name, fill.blobs
        );
        if let Some(fault) = &fill.fault {
            let _ = writeln!(text, "  {fault}; that part is ignored");
        }
    }
    for fault in &report.beside {
        let _ = writeln!(text, "{}: {}", fault.name, fault.what);
    }
    if !report.incomplete.is_empty() {
        let _ = writeln!(
            text,
            "incomplete files:\n  {}",
            report.incomplete.join("\n  ")
        );
    }
    let state = if report.outcome().is_ok() {
        "complete and intact"
    } else {
        "NOT complete and intact"
    };
    if let Some(base) = &report.base {
        let _ = writeln!(
            text,
            "{} in {} chunks are not in this bundle: install {} first, which has them",
            size(base.bytes),
            base.chunks,
            base.bundle
        );
    }
    let intact = report.volumes_that_are(State::Intact).count();
    let _ = writeln!(
        text,
        "bundle {} is {state}: {intact} of {} volumes intact, {} read",
        report.name,
        report.all_volumes().count(),
        size(report.bytes)
    );
    text
}

fn describe_volume(volume: &VolumeReport, text: &mut String) {
    let name = &volume.name;
    match volume.state {
        State::Intact => return,
        State::Missing => {
            let _ = writeln!(text, "{name} is missing");
        }
        State::Filled => {
            let _ = writeln!(
                text,
                "{name} is damaged or missing, and fill volumes have what it lacks"
            );
        }
        State::Damaged => {
            let _ = writeln!(text, "{name} is damaged:");
        }
    }
    for fault in volume.faults.iter().take(SHOWN) {
        let _ = write!(text, "  at byte {}: {}", fault.offset, fault.what);
        if let Some(chunk) = fault.chunk {
            let _ = write!(text, ", chunk {chunk}");
        }
        for owner in &fault.owners {
            let _ = write!(text, "\n    {owner}");
        }
        text.push('\n');
    }
    if volume.faults.len() > SHOWN {
        let _ = writeln!(
            text,
            "  and {} places more; --json lists them",
            volume.faults.len() - SHOWN
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::manifest::Owner;
    use crate::digest::Sha256;
    use crate::verify::Fault;

    #[test]
    fn damage_is_told_with_place_and_owner() {
        let fault = |offset| Fault {
            offset,
            what: "its SHA-256 is another".into(),
            chunk: Some(Sha256::of(b"")),
            owners: vec![Owner {
                tree: "o/m".into(),
                path: "a.bin".into(),
                start: 0,
                end: 10,
            }],
        };
        let volume = |name: &str, state, faults| VolumeReport {
            name: name.into(),
            state,
            faults,
        };
        let report = Report {
            name: "tiny".into(),
            bytes: 9_000,
            volumes: vec![
                volume("vol-0001.tar", State::Intact, vec![]),
                volume("vol-0002.tar", State::Damaged, (0..12).map(fault).collect()),
                volume("vol-0003.tar", State::Missing, vec![]),
            ],
            recovery: None,
            base: None,
            fills: vec![],
            lacking: vec![],
            beside: vec![],
            incomplete: vec!["o/m: a.bin".into()],
        };
        let text = describe(&report);
        for part in [
            "vol-0002.tar is damaged:\n  at byte 0: its SHA-256 is another, chunk e3b0",
            "\n    bytes 0-9 of a.bin in o/m\n",
            "and 2 places more",
            "vol-0003.tar is missing\n",
            "incomplete files:\n  o/m: a.bin\n",
            "bundle tiny is NOT complete and intact: 1 of 3 volumes intact, 9.0 kB read\n",
        ] {
            assert!(text.contains(part), "{part:?} is not in {text}");
        }
        assert!(!text.contains("vol-0001"));
    }
}
