//! `bundle pack`: from a spec to a bundle directory.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGINT, SIGTERM};

use self::fill::fill;
use self::sources::Sources;
use self::words::summary;
use super::jobs::JobsArgs;
use super::output::{note, print};
use super::progress::Meter;
use super::target;
use super::terminal::TerminalPrompt;
use crate::bundle::parity::Share;
use crate::bundle::sign::Signer;
use crate::cluster::image_check::check_image;
use crate::error::Result;
use crate::hub::Source;
use crate::image::archive::name_in;
use crate::pack::base::Base;
use crate::pack::plan::Plan;
use crate::pack::spec::{SPEC_NAME, Spec};
use crate::pack::{extra_files, remote_code};
use crate::ssh::Prompt as _;

mod fill;
mod sources;
mod words;

/// Arguments of `bundle pack`.
#[derive(clap::Args)]
pub struct Args {
    /// The spec.
    #[arg(default_value = SPEC_NAME)]
    spec: PathBuf,
    /// The kind of hub: huggingface or modelscope.
    #[arg(long, value_name = "KIND", default_value_t)]
    source: Source,
    /// The hub to download from, e.g. hf-mirror.com or `http://10.0.0.5:8080`
    /// [default: `$HF_ENDPOINT`, else huggingface.co].
    #[arg(long, value_name = "HOST|URL")]
    mirror: Option<String>,
    /// File with the token for gated or private models [default: `$HF_TOKEN` or where hf keeps it].
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Proxy for all requests [default: `$HTTPS_PROXY` and the like].
    #[arg(long, value_name = "URL")]
    proxy: Option<String>,
    /// More authorities to trust for TLS, as PEM.
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Directory of the bundle [default: ./NAME.bundle].
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Ask this registry for the image first; may be given several times. PREFIX goes in front of the
    /// repository's name, as for a proxy project of Harbor.
    #[arg(long, value_name = "HOST[/PREFIX]|URL")]
    registry_mirror: Vec<String>,
    /// Take the image from an archive of `docker save`, podman or skopeo, or from an OCI directory.
    #[arg(long, value_name = "FILE|DIR", conflicts_with = "registry_mirror")]
    image_tar: Option<PathBuf>,
    /// Take the image from the local docker or podman.
    #[arg(long, conflicts_with_all = ["image_tar", "registry_mirror"])]
    image_daemon: bool,
    /// The bundle that the far side has installed, as its bundle.json: what it holds is left out.
    #[arg(long, value_name = "FILE|DIR")]
    base: Option<PathBuf>,
    /// Take the model from a directory instead of the hub; with several models, say OWNER/NAME=DIR
    /// for each.
    #[arg(long, value_name = "DIR")]
    model_dir: Vec<String>,
    /// The most bytes of a volume: 4G (4000 MB, fits FAT32), 25G, 700M, 2GiB.
    #[arg(long, value_name = "SIZE", default_value = "4G", value_parser = parse_size)]
    volume_size: u64,
    /// Add recovery volumes: `bundle repair` rebuilds what is lost or damaged, up to this share of
    /// the bundle, such as 5%.
    #[arg(long, value_name = "SHARE")]
    parity: Option<Share>,
    #[command(flatten)]
    jobs: JobsArgs,
    /// Sign the bundle with this minisign secret key (see `bundle keygen`).
    #[arg(long, value_name = "KEY")]
    sign: Option<PathBuf>,
    /// Pack no spec, but the fill volumes for a request of `bundle verify --request`, from the bundle in
    /// these directories, into the directory of -o [default: here].
    #[arg(long, value_names = ["FILE", "BUNDLE_DIR"], num_args = 1.., conflicts_with = "spec")]
    only: Vec<PathBuf>,
    /// Throw away what an earlier run has packed here, and start over.
    #[arg(long)]
    fresh: bool,
}

/// Runs `bundle pack`.
pub fn run(args: &Args) -> anyhow::Result<()> {
    if let [request, dirs @ ..] = &args.only[..] {
        return fill(args, request, dirs);
    }
    let stop = stop_on_signals()?;
    let mut plan = plan(args, &stop)?;
    for remark in remote_code::remarks(&plan)? {
        note(&remark);
    }
    target::check(&plan)?;
    let meter = Meter::new("packing", plan.work().bytes());
    let manifest = crate::pack::run(&mut plan, &meter, &stop)?;
    drop(meter);
    print(&summary(&plan.out, &manifest))
}

fn plan(args: &Args, stop: &Arc<AtomicBool>) -> Result<Plan> {
    let mut spec = Spec::read(&args.spec)?;
    if let (Some(image), Some(archive)) = (&mut spec.image, &args.image_tar)
        && image.reference.is_none()
    {
        let name = name_in(archive)?;
        note(&format!("the image is {name}, as its archive says"));
        image.reference = Some(name);
    }
    let ask = |question: &str| TerminalPrompt.ask(question, false);
    let signer = args
        .sign
        .as_ref()
        .map(|key| Signer::open(key, &ask))
        .transpose()?;
    let out = args.output.clone();
    let out = out.unwrap_or_else(|| format!("{}.bundle", spec.name).into());
    let sources = Sources {
        args,
        spec: &spec,
        out: &out,
        stop,
    };
    let models = spec.models.iter().map(|model| sources.model(model));
    let models = models.collect::<Result<_>>()?;
    let image = spec.image.as_ref().map(|image| sources.image(image));
    Ok(Plan {
        base: args.base.as_deref().map(Base::read).transpose()?,
        volume_size: args.volume_size,
        parity: args.parity,
        jobs: args.jobs.threads(),
        fresh: args.fresh,
        models,
        image: image.transpose()?,
        extras: extra_files::plans(&spec)?,
        judge: check_image,
        signer,
        out,
        spec,
    })
}

/// A flag that is set by the first Ctrl-C or SIGTERM; the second ends the process at once, which
/// is safe at any moment.
fn stop_on_signals() -> anyhow::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&stop))?;
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    Ok(stop)
}

/// `4G`, `700M`, `2GiB`, `123456`: decimal units as media are sold, binary ones with an `i`.
fn parse_size(text: &str) -> std::result::Result<u64, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.trim_end_matches('B') {
        "" => 1,
        "k" | "K" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "T" => 1_000_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        _ => {
            return Err(format!(
                "unknown unit {unit:?}; use M, G, T, MiB, GiB or TiB"
            ));
        }
    };
    let number: u64 = number
        .parse()
        .map_err(|_| "a size is a whole number and a unit, such as 4G".to_owned())?;
    number
        .checked_mul(factor)
        .ok_or_else(|| "that is more than any disk holds".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_decimal_unless_they_say_otherwise() {
        let cases = [
            ("4G", 4_000_000_000),
            ("25GB", 25_000_000_000),
            ("2GiB", 2 << 30),
            ("700M", 700_000_000),
            ("4096", 4096),
        ];
        for (text, bytes) in cases {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for bad in ["", "G", "4X", "1.5G", "-1", "99999999T"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }
}
