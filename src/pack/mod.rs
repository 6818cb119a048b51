//! From a spec to a bundle: sources, the ordered pipeline, resume.

pub mod base;
pub mod extra_files;
pub mod fill;
mod finish;
pub mod hub_source;
mod journal;
pub mod local_files;
pub mod model_dir;
mod parity;
mod pipeline;
pub mod plan;
pub mod preflight;
pub mod progress;
pub mod remote_code;
mod resume;
pub mod selection;
pub mod source;
pub mod spec;
mod state;
mod stored;
mod tree;

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::atomic::AtomicBool;

use self::pipeline::fetch::feed_files;
use self::pipeline::intake::Intake;
use self::pipeline::ledger::Ledger;
use self::pipeline::stream::feed_image;
use self::plan::Plan;
use self::progress::Progress;
use self::source::RangeSource as _;
use self::spec::ImageSpec;
use self::stored::StoredChunks;
use self::tree::TreeId;
use crate::bundle::MANIFEST_NAME;
use crate::bundle::manifest::Manifest;
use crate::error::{Error, Result};
use crate::fs::{Lock, create_dir_all};

/// Directory inside an unfinished bundle that holds the journal and the lock.
const WORK_NAME: &str = ".pack";

/// The commit that an unfinished pack in `out` has pinned a revision to: a branch may move while a
/// pack is interrupted.
pub fn pinned_commit(out: &Path, repo: &str, revision: &str) -> Result<Option<String>> {
    resume::pinned_commit(&out.join(WORK_NAME), repo, revision)
}

/// What the unfinished pack in `out` found an image's reference to mean: a tag may move as well.
pub fn pinned_digest(out: &Path, image: &ImageSpec) -> Result<Option<String>> {
    resume::pinned_digest(&out.join(WORK_NAME), image)
}

/// Packs a bundle, going on where an earlier run of the same plan ended. Setting `stop` ends it
/// soon, with everything kept for the next run.
pub fn run(plan: &mut Plan, progress: &dyn Progress, stop: &AtomicBool) -> Result<Manifest> {
    let work = plan.out.join(WORK_NAME);
    if !plan.fresh {
        refuse_finished(&plan.out, &work)?;
    }
    create_dir_all(&work)?;
    let _lock = Lock::take(&work.join("lock"), "packing here")?;
    if plan.fresh {
        resume::forget(&plan.out, &work)?;
    }
    preflight::check_volume_size(&plan.out, plan.volume_size)?;
    let resumed = resume::resume(plan, &work)?;
    let left = plan.left(&resumed.state);
    progress.forecast(left.forecast());
    if let Some(remark) = preflight::check_space(&plan.out, left)? {
        progress.note(&remark);
    }
    let known = resume::known_files(&resumed.state);
    progress.total(plan.work().bytes());
    let ledger = Ledger::new(
        resumed.state,
        resumed.volumes,
        resumed.journal,
        resumed.mark,
        plan.base.as_ref(),
        progress,
    );
    let stored = StoredChunks::new(plan.out.clone());
    for (spec, model) in plan.spec.models.iter().zip(&plan.models) {
        for remark in model.source.remarks() {
            progress.note(&format!("model {}: {remark}", spec.repo));
        }
    }
    for extra in &plan.extras {
        for remark in extra.source.remarks() {
            progress.note(&format!("files for {}: {remark}", extra.path));
        }
    }
    let (models, image, extras) = (&plan.models, &mut plan.image, &plan.extras);
    let base = plan.base.as_ref();
    let (state, images) = pipeline::run(ledger, plan.jobs, |steps| {
        let mut intake = Intake::new(steps, known, base, stop, progress);
        // First, because what is seen inside decides whether the rest is worth fetching.
        let image = image
            .as_mut()
            .map(|image| feed_image(&mut intake, TreeId::Image(0), image.as_mut(), &stored));
        let images = image.into_iter().collect::<Result<Vec<_>>>()?;
        for image in &images {
            let judged = (plan.judge)(&plan.spec.cluster, &image.facts);
            for remark in judged.map_err(|error| error.at(&image.reference))? {
                progress.note(&format!("{}: {remark}", image.reference));
            }
        }
        for (index, model) in models.iter().enumerate() {
            let source = model.source.as_ref();
            feed_files(&mut intake, TreeId::Model(index), source, &stored)?;
        }
        for (index, extra) in extras.iter().enumerate() {
            feed_files(&mut intake, TreeId::Extra(index), &extra.source, &stored)?;
        }
        Ok(images)
    })?;
    let parity = parity::make(plan, &state.volumes, progress, stop)?;
    let manifest = finish::manifest(plan, state, images, parity)?;
    let executable = finish::copy_executable(&plan.out)?;
    finish::write_manifest(&plan.out, &manifest, executable, plan.signer.as_ref())?;
    finish::remove_work(&work)?;
    Ok(manifest)
}

/// A finished bundle is not packed over by accident.
fn refuse_finished(out: &Path, work: &Path) -> Result<()> {
    if out.join(MANIFEST_NAME).exists() && !work.exists() {
        return Err(Error::Usage(format!(
            "{} holds a finished bundle already; pack it anew with --fresh, or choose another directory with -o",
            out.display()
        )));
    }
    Ok(())
}
