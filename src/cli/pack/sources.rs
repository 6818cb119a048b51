//! Where models and images come from, as the command line says.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::Args;
use crate::error::{Error, Result};
use crate::http;
use crate::hub::{self, Client, Endpoint, Token};
use crate::image::ImageSource;
use crate::image::archive::{ImageWish, TarSource};
use crate::image::daemon::DaemonSource;
use crate::image::directory::DirectorySource;
use crate::image::registry::{self, Name, RegistrySource};
use crate::pack::hub_source::HubSource;
use crate::pack::plan::ModelPlan;
use crate::pack::selection::Selection;
use crate::pack::spec::{ImageSpec, ModelSpec, Spec};
use crate::pack::{model_dir, pinned_commit, pinned_digest};

/// Where models come from, as the command line says.
pub struct Sources<'a> {
    /// The command line.
    pub args: &'a Args,
    /// What is wished for.
    pub spec: &'a Spec,
    /// The bundle's directory: an earlier run may have pinned versions there.
    pub out: &'a Path,
    /// Set when it should end.
    pub stop: &'a Arc<AtomicBool>,
}

impl Sources<'_> {
    /// Where a model comes from: what is given, else the hub.
    pub fn model(&self, model: &ModelSpec) -> Result<ModelPlan> {
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

    /// Where an image comes from: what is given, else a registry.
    pub fn image(&self, image: &ImageSpec) -> Result<Box<dyn ImageSource>> {
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

#[cfg(test)]
mod tests {
    use super::*;

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
