//! Whose bundles this side accepts, and `bundle keygen`.

use std::env;
use std::path::PathBuf;

use super::locate::media;
use super::output::print;
use super::terminal::TerminalPrompt;
use crate::bundle::media::Media;
use crate::bundle::sign::{check, generate, trusted};
use crate::error::{Error, Result};
use crate::ssh::Prompt as _;

/// Keys in here, as `*.pub`, pin this site to them.
const SITE_KEYS: &str = "/etc/bundle/trusted";

/// Which keys are trusted.
#[derive(clap::Args)]
pub struct TrustArgs {
    /// Accept only what this minisign public key has signed [default: the keys in
    /// /etc/bundle/trusted and ~/.config/bundle/trusted, if there are any].
    #[arg(long, value_name = "FILE")]
    pubkey: Vec<PathBuf>,
}

impl TrustArgs {
    /// The bundle in these directories, or the one here, when it is trusted.
    pub fn open(&self, paths: &[PathBuf]) -> Result<Media> {
        let media = media(paths)?;
        self.check(&media)?;
        Ok(media)
    }

    /// Refuses a bundle that is not signed by a trusted key; returns the file of the key that
    /// signed it.
    pub fn check(&self, media: &Media) -> Result<Option<PathBuf>> {
        let directories = if self.pubkey.is_empty() {
            key_directories()
        } else {
            Vec::new()
        };
        check(media, &trusted(&self.pubkey, &directories)?)
    }
}

fn key_directories() -> Vec<PathBuf> {
    let home = env::var_os("HOME").map(|home| PathBuf::from(home).join(".config/bundle/trusted"));
    [Some(PathBuf::from(SITE_KEYS)), home]
        .into_iter()
        .flatten()
        .collect()
}

/// Arguments of `bundle keygen`.
#[derive(clap::Args)]
pub struct KeygenArgs {
    /// File for the secret key; the public one goes beside it, with `.pub` at the end.
    #[arg(default_value = "bundle.key")]
    path: PathBuf,
    /// Leave the secret key without a password, for machines that sign by themselves.
    #[arg(long)]
    no_password: bool,
}

/// Runs `bundle keygen`.
pub fn keygen(args: &KeygenArgs) -> anyhow::Result<()> {
    let password = if args.no_password {
        None
    } else {
        Some(new_password()?)
    };
    let public = generate(&args.path, password.as_deref())?;
    print(&format!(
        "secret key {}: stays on the internet side, for `bundle pack --sign`\n\
         public key {}: to {SITE_KEYS}/ on the far side, or `--pubkey`",
        args.path.display(),
        public.display()
    ))
}

fn new_password() -> Result<String> {
    let ask = |question| {
        TerminalPrompt.ask(question, false).ok_or_else(|| {
            Error::Usage("there is no terminal to ask for a password at; see --no-password".into())
        })
    };
    let password = ask("New password of the key:")?;
    if ask("The same again:")? == password {
        return Ok(password);
    }
    Err(Error::Usage(
        "the passwords differ; nothing was written".into(),
    ))
}
