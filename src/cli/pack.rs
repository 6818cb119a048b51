//! `bundle pack`: from a spec to a bundle directory.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGINT, SIGTERM};

use super::jobs::JobsArgs;
use super::locate::media;
use super::output::{note, print, size};
use super::progress::Meter;
use super::target;
use super::terminal::TerminalPrompt;
use crate::bundle::manifest::Manifest;
use crate::bundle::parity::Share;
use crate::bundle::sign::Signer;
use crate::cluster::image_check::check_image;
use crate::error::{Error, Result};
use crate::http;
use crate::hub::{self, Client, Endpoint, Source, Token};
use crate::image::ImageSource;
use crate::image::archive::{ImageWish, TarSource, name_in};
use crate::image::daemon::DaemonSource;
use crate::image::directory::DirectorySource;
use crate::image::registry::{self, Name, RegistrySource};
use crate::pack::base::Base;
use crate::pack::hub_source::HubSource;
use crate::pack::plan::{ModelPlan, Plan};
use crate::pack::preflight::Forecast;
use crate::pack::progress::Progress;
use crate::pack::selection::Selection;
use crate::pack::spec::{ImageSpec, ModelSpec, SPEC_NAME, Spec};
use crate::pack::{extra_files, model_dir, pinned_commit, pinned_digest, remote_code};
use crate::ssh::Prompt as _;

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

/// `bundle pack --only`. What is lost here too is told behind what could be packed.
fn fill(args: &Args, request: &Path, dirs: &[PathBuf]) -> anyhow::Result<()> {
    let out = args.output.as_deref().unwrap_or(Path::new("."));
    let filled = crate::pack::fill::write(&media(dirs)?, request, out, args.volume_size)?;
    if let [first, ..] = &filled.volumes[..] {
        print(&format!(
            "packed {} chunks in {} volumes, from {} on\ncarry them across and put them beside the volumes",
            filled.chunks,
            filled.volumes.len(),
            out.join(&first.name).display()
        ))?;
    }
    if filled.faults.is_empty() {
        return Ok(());
    }
    let faults: Vec<&str> = filled.faults.values().map(String::as_str).collect();
    Err(Error::Damaged(format!(
        "{} of the chunks asked for cannot be had here either:\n  {}\nname the directory that has them, or pack the bundle again",
        filled.lacking,
        faults.join("\n  ")
    ))
    .into())
}

impl Progress for Meter {
    fn forecast(&self, forecast: Forecast) {
        Meter::note(self, &expectation(forecast));
    }

    fn total(&self, bytes: u64) {
        self.set_total(bytes);
    }

    fn file(&self, path: &str) {
        self.label(path);
    }

    fn packed(&self, raw: u64, _stored: u64) {
        self.set(raw);
    }

    fn note(&self, text: &str) {
        Meter::note(self, text);
    }
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

/// Where models come from, as the command line says.
struct Sources<'a> {
    args: &'a Args,
    spec: &'a Spec,
    out: &'a Path,
    stop: &'a Arc<AtomicBool>,
}

impl Sources<'_> {
    fn model(&self, model: &ModelSpec) -> Result<ModelPlan> {
        let selection = Selection::of(model, &self.spec.cluster)?;
        if let Some(dir) = given_dir(&self.args.model_dir, self.spec, model) {
            return Ok(ModelPlan {
                source: Box::new(model_dir::open(dir, &selection)?),
                commit: None,
            });
        }
        if !self.args.model_dir.is_empty() {
            return Err(Error::Usage(format!(
                "no --model-dir is for model {0}; say --model-dir {0}=DIR",
                model.repo
            )));
        }
        let pinned = if self.args.fresh {
            None
        } else {
            pinned_commit(self.out, &model.repo, &model.revision)?
        };
        let revision = pinned.as_ref().unwrap_or(&model.revision);
        let repository = self.hub()?.repository(&model.repo, revision)?;
        let source = HubSource::new(repository, &selection)
            .map_err(|error| error.at(format!("model {}", model.repo)))?;
        Ok(ModelPlan {
            commit: Some(source.commit().to_owned()),
            source: Box::new(source),
        })
    }

    /// What is given; else a registry.
    fn image(&self, image: &ImageSpec) -> Result<Box<dyn ImageSource>> {
        let reference = image.reference.clone().ok_or_else(|| {
            Error::Usage("[image] needs a ref: the name that the image gets on the nodes (an --image-tar brings its own)".into())
        })?;
        let name: Name = reference.parse()?;
        let wish = ImageWish {
            reference: name.tag(),
            platform: image.platform.clone(),
        };
        if let Some(path) = &self.args.image_tar {
            return Ok(if path.is_dir() {
                Box::new(DirectorySource::new(path, wish))
            } else {
                Box::new(TarSource::new(path, wish)?)
            });
        }
        if self.args.image_daemon {
            return Ok(Box::new(DaemonSource::find(wish)?));
        }
        let pinned = if self.args.fresh {
            None
        } else {
            pinned_digest(self.out, image)?
        };
        let options = registry::Options {
            mirrors: self.args.registry_mirror.clone(),
            pinned,
            http: self.http(),
        };
        let source = RegistrySource::find(&name, &image.platform, &options)?;
        Ok(Box::new(source))
    }

    fn http(&self) -> http::Options {
        http::Options {
            proxy: self.args.proxy.clone(),
            ca_file: self.args.ca_file.clone(),
            stop: Arc::clone(self.stop),
            ..http::Options::default()
        }
    }

    fn hub(&self) -> Result<Client> {
        Client::new(hub::Options {
            endpoint: Endpoint::choose(self.args.source, self.args.mirror.as_deref())?,
            token: Token::find(self.args.source, self.args.token_file.as_deref())?,
            http: self.http(),
        })
    }
}

/// The local directory for a model: `REPO=DIR`, or a bare `DIR` for the only model.
fn given_dir<'a>(given: &'a [String], spec: &Spec, model: &ModelSpec) -> Option<&'a Path> {
    let named = given.iter().find_map(|text| {
        let (repo, dir) = text.split_once('=')?;
        (repo == model.repo).then_some(dir)
    });
    let only = match given {
        [dir] if spec.models.len() == 1 => Some(dir.as_str()),
        _ => None,
    };
    named.or(only).map(Path::new)
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

/// Sizes and times before the first byte. How fast the way to the hub is, nobody knows yet.
fn expectation(forecast: Forecast) -> String {
    let (least, most) = forecast.volumes;
    let time = |megabits: u64| duration(forecast.download.div_ceil(megabits * 1_000_000 / 8));
    let download = match forecast.download {
        0 => String::new(),
        bytes => format!(
            "; to download: {}, which takes {} at 100 Mbit/s, {} at 1 Gbit/s",
            size(bytes),
            time(100),
            time(1000)
        ),
    };
    format!(
        "to pack: {}; the volumes will have about {} to {}{download}",
        size(forecast.raw),
        size(least),
        size(most)
    )
}

/// `40 s`, `12 min`, `3 h 8 min`
fn duration(seconds: u64) -> String {
    match (seconds, seconds.div_ceil(60)) {
        (0..60, _) => format!("{seconds} s"),
        (_, minutes @ 0..60) => format!("{minutes} min"),
        (_, minutes) => format!("{} h {} min", minutes / 60, minutes % 60),
    }
}

fn summary(out: &Path, manifest: &Manifest) -> String {
    let (raw, stored) = (manifest.raw_size(), manifest.stored_size());
    let percent = (stored * 100).checked_div(raw).unwrap_or(100);
    format!(
        "packed {} as {} ({percent} %) in {} volumes: {}\ncarry the whole directory across, then: {}/bundle verify",
        size(raw),
        size(stored),
        manifest.volumes.len(),
        out.display(),
        out.display()
    )
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
    fn sizes_and_times_are_told_before_the_first_byte() {
        let gb = |n: u64| n * 1_000_000_000;
        let forecast = Forecast {
            raw: gb(157),
            download: gb(149),
            volumes: (gb(98), gb(150)),
        };
        assert_eq!(
            expectation(forecast),
            "to pack: 157.0 GB; the volumes will have about 98.0 GB to 150.0 GB; \
             to download: 149.0 GB, which takes 3 h 19 min at 100 Mbit/s, 20 min at 1 Gbit/s"
        );
        let local = Forecast {
            download: 0,
            ..forecast
        };
        assert!(expectation(local).ends_with("to 150.0 GB"));
        assert_eq!(duration(59), "59 s");
    }

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

    #[test]
    fn a_bare_directory_is_for_the_only_model() {
        let model = |repo: &str| format!("[[model]]\nrepo = \"{repo}\"\npath = \"/{repo}\"\n");
        let one = Spec::parse(&format!("name = \"x\"\n{}", model("o/a"))).unwrap();
        let two = Spec::parse(&format!("name = \"x\"\n{}{}", model("o/a"), model("o/b"))).unwrap();
        let given = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();

        let bare = given(&["/d"]);
        assert_eq!(
            given_dir(&bare, &one, &one.models[0]),
            Some(Path::new("/d"))
        );
        assert_eq!(given_dir(&bare, &two, &two.models[0]), None);
        let named = given(&["o/b=/b", "o/a=/a"]);
        assert_eq!(
            given_dir(&named, &two, &two.models[1]),
            Some(Path::new("/b"))
        );
        assert_eq!(given_dir(&[], &one, &one.models[0]), None);
    }
}
