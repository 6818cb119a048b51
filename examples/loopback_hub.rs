//! A loopback hub to try `bundle pack` against, without the internet:
//! `cargo run --example loopback_hub -- --synthetic org/tiny=64`, then
//! `bundle pack --mirror http://127.0.0.1:8900`.

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use clap::Parser;

#[path = "../tests/support/hub/mod.rs"]
mod hub;

use hub::{Access, Content, Hub, Options};

/// A loopback hub to try `bundle pack` against.
#[derive(Parser)]
struct Arguments {
    /// A model from a directory: OWNER/NAME=DIR.
    #[arg(long, value_parser = pair::<PathBuf>)]
    repo: Vec<(String, PathBuf)>,
    /// A model of so many MiB of bf16 weights: OWNER/NAME=MIB.
    #[arg(long, value_parser = pair::<usize>)]
    synthetic: Vec<(String, usize)>,
    /// The seed of the synthetic weights.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where to listen.
    #[arg(long, default_value = "127.0.0.1:8900")]
    listen: SocketAddr,
    /// Where the storage host listens; by default at a free port of the same address.
    #[arg(long)]
    storage_listen: Option<SocketAddr>,
    /// Hold back each answer for so many milliseconds.
    #[arg(long, default_value_t = 0)]
    latency: u64,
    /// Send at most so many megabytes in a second, over all connections together.
    #[arg(long)]
    rate: Option<u64>,
    /// The token that may see gated and private models.
    #[arg(long)]
    token: Option<String>,
    /// All models are gated.
    #[arg(long)]
    gated: bool,
    /// All models are private.
    #[arg(long, conflicts_with = "gated")]
    private: bool,
}

/// `NAME=VALUE`.
fn pair<T: std::str::FromStr>(text: &str) -> Result<(String, T), String> {
    text.split_once('=')
        .and_then(|(name, value)| Some((name.to_owned(), value.parse().ok()?)))
        .ok_or_else(|| format!("{text:?} is not of the form OWNER/NAME=VALUE"))
}

fn main() -> io::Result<()> {
    let arguments = Arguments::parse();
    let any_port = SocketAddr::new(arguments.listen.ip(), 0);
    let hub = Hub::start(Options {
        listen: arguments.listen,
        storage_listen: arguments.storage_listen.unwrap_or(any_port),
        token: arguments.token,
        latency: Duration::from_millis(arguments.latency),
        rate: arguments.rate.map(|megabytes| megabytes * 1_000_000),
        ..Options::default()
    })?;
    let mut names = Vec::new();
    for (name, dir) in &arguments.repo {
        hub.commit(name, "main", files_of(dir)?);
        names.push(name);
    }
    for (name, megabytes) in &arguments.synthetic {
        let files = hub::synthetic::model(arguments.seed, *megabytes);
        let files = files
            .into_iter()
            .map(|(path, bytes)| (path, Content::memory(bytes)));
        hub.commit(name, "main", files);
        names.push(name);
    }
    let access = match (arguments.gated, arguments.private) {
        (true, _) => Access::Gated,
        (_, true) => Access::Private,
        _ => Access::Public,
    };
    for name in names {
        hub.protect(name, access);
    }
    let mut out = io::stdout().lock();
    writeln!(out, "{}", hub.url())?;
    out.flush()?;
    loop {
        thread::park();
    }
}

/// All files below a directory.
fn files_of(dir: &Path) -> io::Result<Vec<(String, Content)>> {
    let mut files = Vec::new();
    for entry in walkdir::WalkDir::new(dir).follow_links(true) {
        let entry = entry?;
        if entry.file_type().is_file() {
            let path = entry.path().strip_prefix(dir).map_err(io::Error::other)?;
            let name = path.to_string_lossy().into_owned();
            files.push((name, Content::disk(entry.path())?));
        }
    }
    Ok(files)
}
