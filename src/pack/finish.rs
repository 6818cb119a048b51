//! The last step: manifest, executable and checksum list beside the volumes.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::plan::Plan;
use super::state::State;
use crate::bundle::manifest::{FORMAT, FileEntry, Image, Manifest, Model};
use crate::bundle::{EXECUTABLE_NAME, MANIFEST_NAME};
use crate::error::{Error, Result};
use crate::fs::write_atomic;

/// The manifest of what is packed. Trees are the models of the plan, then the images.
pub fn manifest(plan: &Plan, state: State, images: Vec<Image>) -> Manifest {
    let mut trees: Vec<Vec<FileEntry>> = vec![Vec::new(); plan.models.len() + images.len()];
    for file in state.files {
        trees[file.tree].push(file.entry);
    }
    let mut trees = trees.into_iter();
    let models = plan.spec.models.iter().zip(&plan.models);
    let models = models
        .zip(trees.by_ref())
        .map(|((spec, model), files)| Model {
            repo: spec.repo.clone(),
            revision: spec.revision.clone(),
            commit: model.commit.clone(),
            path: spec.path.clone(),
            files,
        })
        .collect();
    let images = images
        .into_iter()
        .zip(trees)
        .map(|(image, files)| Image { files, ..image })
        .collect();
    Manifest {
        format: FORMAT,
        name: plan.spec.name.clone(),
        models,
        images,
        cluster: plan.spec.cluster.clone(),
        chunks: state.chunks,
        volumes: state.volumes,
    }
}

/// Puts the running executable into the bundle, so that the far side needs nothing else.
pub fn copy_executable(out: &Path) -> Result<()> {
    let target = out.join(EXECUTABLE_NAME);
    let running = Path::new("/proc/self/exe");
    let mut source = File::open(running).map_err(Error::io("read", running))?;
    let fail = |cause| Error::io("write", &target)(cause);
    let mut file = tempfile::NamedTempFile::new_in(out).map_err(fail)?;
    io::copy(&mut source, &mut file).map_err(fail)?;
    let handle = file.as_file();
    handle
        .set_permissions(Permissions::from_mode(0o755))
        .map_err(fail)?;
    handle.sync_all().map_err(fail)?;
    file.persist(&target).map_err(|error| fail(error.error))?;
    Ok(())
}

/// Writes `bundle.json`; with it, the bundle is one.
pub fn write_manifest(out: &Path, manifest: &Manifest) -> Result<()> {
    write_atomic(&out.join(MANIFEST_NAME), &manifest.to_bytes()?)
}

/// Removes what only an unfinished pack needs.
pub fn remove_work(work: &Path) -> Result<()> {
    fs::remove_dir_all(work).map_err(Error::io("remove", work))
}
