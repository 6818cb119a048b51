//! The last step: manifest, executable and checksum list beside the volumes.

use std::collections::HashSet;
use std::fs::{self, File, Permissions};
use std::io::{self, Seek as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::plan::Plan;
use super::state::State;
use super::tree::TreeId;
use crate::bundle::manifest::{Extra, FORMAT, FileEntry, Image, Manifest, Model, Parity};
use crate::bundle::sign::Signer;
use crate::bundle::sums::Sums;
use crate::bundle::{EXECUTABLE_NAME, MANIFEST_NAME, SIGNATURE_NAME, SUMS_NAME};
use crate::digest::{Sha256, sha256_of_reader};
use crate::error::{Error, Result};
use crate::fs::write_atomic;
use crate::image::blob_label;

/// The manifest of what is packed.
pub fn manifest(
    plan: &Plan,
    state: State,
    images: Vec<Image>,
    parity: Option<Parity>,
) -> Result<Manifest> {
    let models = plan.spec.models.iter().zip(&plan.models).enumerate();
    let models = models.map(|(index, (spec, model))| Model {
        repo: spec.repo.clone(),
        revision: spec.revision.clone(),
        commit: model.commit.clone(),
        path: spec.path.clone(),
        files: files_of(&state, TreeId::Model(index)),
    });
    let images = images.into_iter().enumerate().map(|(index, image)| {
        let files = blobs(files_of(&state, TreeId::Image(index)))?;
        Ok(Image { files, ..image })
    });
    let extras = plan.extras.iter().enumerate().map(|(index, extra)| Extra {
        path: extra.path.clone(),
        executable: extra.source.executable().to_vec(),
        files: files_of(&state, TreeId::Extra(index)),
    });
    Ok(Manifest {
        format: FORMAT,
        name: plan.spec.name.clone(),
        serial: plan.serial(),
        base: plan.base.as_ref().map(|base| base.reference.clone()),
        models: models.collect(),
        images: images.collect::<Result<_>>()?,
        extras: extras.collect(),
        cluster: plan.spec.cluster.clone(),
        chunks: state.chunks,
        volumes: state.volumes,
        parity,
    })
}

fn files_of(state: &State, tree: TreeId) -> Vec<FileEntry> {
    let files = state.files.iter().filter(|file| file.tree == tree);
    files.map(|file| file.entry.clone()).collect()
}

/// The parts of an image under the names that they have on the far side, each once.
fn blobs(parts: Vec<FileEntry>) -> Result<Vec<FileEntry>> {
    let mut seen = HashSet::new();
    parts
        .into_iter()
        .filter(|part| seen.insert(part.sha256))
        .map(|part| {
            let path = blob_label(part.sha256)?;
            Ok(FileEntry { path, ..part })
        })
        .collect()
}

/// Puts the running executable into the bundle, so that the far side needs nothing else.
pub fn copy_executable(out: &Path) -> Result<Sha256> {
    let target = out.join(EXECUTABLE_NAME);
    let running = Path::new("/proc/self/exe");
    let mut source = File::open(running).map_err(Error::io("read", running))?;
    let fail = |cause| Error::io("write", &target)(cause);
    let mut file = tempfile::NamedTempFile::new_in(out).map_err(fail)?;
    io::copy(&mut source, &mut file).map_err(fail)?;
    let handle = file.as_file_mut();
    // Filesystems of media often know no modes, and some call that an error.
    let _ = handle.set_permissions(Permissions::from_mode(0o755));
    handle.sync_all().map_err(fail)?;
    handle.rewind().map_err(fail)?;
    let (sha256, _) = sha256_of_reader(handle).map_err(fail)?;
    file.persist(&target).map_err(|error| fail(error.error))?;
    Ok(sha256)
}

/// Writes `SHA256SUMS` and, last of all, `bundle.json`: with it, the bundle is one.
pub fn write_manifest(
    out: &Path,
    manifest: &Manifest,
    executable: Sha256,
    signer: Option<&Signer>,
) -> Result<()> {
    let bytes = manifest.to_bytes()?;
    let mut sums = Sums::default();
    if let Some(signer) = signer {
        let signature = signer.sign(&bytes, manifest.name.as_str())?;
        write_atomic(&out.join(SIGNATURE_NAME), signature.as_bytes())?;
        sums.insert(SIGNATURE_NAME.parse()?, Sha256::of(signature.as_bytes()));
    }
    sums.insert(EXECUTABLE_NAME.parse()?, executable);
    sums.insert(MANIFEST_NAME.parse()?, Sha256::of(&bytes));
    for volume in manifest.volumes.iter().chain(manifest.recovery_volumes()) {
        sums.insert(volume.name.parse()?, volume.sha256);
    }
    write_atomic(&out.join(SUMS_NAME), sums.to_string().as_bytes())?;
    write_atomic(&out.join(MANIFEST_NAME), &bytes)
}

/// Removes what only an unfinished pack needs.
pub fn remove_work(work: &Path) -> Result<()> {
    fs::remove_dir_all(work).map_err(Error::io("remove", work))
}
