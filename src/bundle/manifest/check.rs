//! Whether a manifest contradicts itself. It may come from an attacker: what passes here cannot
//! make a reader write outside of its directory, read outside of a volume, or use more memory
//! than a few chunks, and leaves no byte of a volume unaccounted for.

use std::collections::{BTreeSet, HashSet};

use super::{Chunk, Extra, FORMAT, FileEntry, Image, Manifest, Tree, max_stored};
use crate::bundle::parity::{Geometry, recovery_name};
use crate::bundle::volume::{BLOCK, END, padding};
use crate::bundle::{CHUNK_SIZE, volume_name};
use crate::path::AbsPath;

type Check = std::result::Result<(), String>;

/// The first contradiction, if any.
pub fn check(manifest: &Manifest) -> Check {
    if manifest.format != FORMAT {
        return Err(format!("format {} is not {FORMAT}", manifest.format));
    }
    check_layout(manifest)?;
    let mut seen = HashSet::new();
    for chunk in &manifest.chunks {
        check_chunk(chunk).map_err(|fault| format!("chunk {} {fault}", chunk.blob))?;
        if !seen.insert(chunk.blob) {
            return Err(format!("chunk {} is listed twice", chunk.blob));
        }
    }
    check_use(manifest)?;
    for (_, file) in manifest.files() {
        check_size(file, &manifest.chunks).map_err(|fault| format!("{} {fault}", file.path))?;
    }
    for tree in manifest.trees() {
        check_disjoint(tree.files().iter().map(|file| file.path.as_str()))?;
    }
    check_disjoint(manifest.roots().map(AbsPath::as_str))?;
    manifest.extras.iter().try_for_each(check_extra)?;
    manifest.images.iter().try_for_each(check_image)?;
    check_parity(manifest)
}

/// Chunks stand in the volumes in order, each directly behind the one before or at the start of
/// the next volume, and each volume ends where its last chunk does.
fn check_layout(manifest: &Manifest) -> Check {
    let in_base = |chunk: &&Chunk| chunk.is_in_base();
    if let Some(chunk) = manifest.chunks.iter().find(in_base)
        && (manifest.base.is_none() || chunk.offset != 0)
    {
        return Err(format!("chunk {} is nowhere", chunk.blob));
    }
    let stored = manifest.chunks.iter().filter(|chunk| !chunk.is_in_base());
    let mut chunks = stored.peekable();
    for (number, volume) in (1..).zip(&manifest.volumes) {
        if volume.name != volume_name(number) {
            return Err(format!("volume {number} is called {:?}", volume.name));
        }
        let mut end = 0;
        while let Some(chunk) = chunks.next_if(|chunk| chunk.volume == number) {
            if chunk.offset != end + BLOCK {
                return Err(format!(
                    "chunk {} overlaps the one before or leaves a gap in {}",
                    chunk.blob, volume.name
                ));
            }
            let stored = u64::from(chunk.stored);
            end = chunk.offset + stored + padding(stored);
        }
        if end == 0 || volume.size != end + END {
            return Err(format!("{} does not end behind its chunks", volume.name));
        }
    }
    match chunks.next() {
        Some(chunk) => Err(format!(
            "chunk {} is out of order or in a volume that does not exist",
            chunk.blob
        )),
        None => Ok(()),
    }
}

/// Recovery volumes have the one layout that follows from their shards.
fn check_parity(manifest: &Manifest) -> Check {
    let Some(parity) = &manifest.parity else {
        return Ok(());
    };
    for (number, volume) in (1..).zip(&parity.volumes) {
        if volume.name != recovery_name(number) {
            return Err(format!(
                "recovery volume {number} is called {:?}",
                volume.name
            ));
        }
    }
    Geometry::of(parity, manifest.volume_size())
        .map(drop)
        .map_err(|fault| format!("parity {fault}"))
}

fn check_chunk(chunk: &Chunk) -> Check {
    if chunk.raw == 0 || u64::from(chunk.raw) > CHUNK_SIZE {
        return Err("has an impossible size".into());
    }
    if chunk.stored == 0 || chunk.stored > max_stored(chunk.raw) {
        return Err("is stored larger or smaller than any encoding makes it".into());
    }
    Ok(())
}

/// Files name chunks that exist, in the order of their first use, and no chunk is left over.
fn check_use(manifest: &Manifest) -> Check {
    let mut used = 0;
    for (_, file) in manifest.files() {
        for &index in &file.chunks {
            let index = index as usize;
            if index >= manifest.chunks.len() {
                return Err(format!("{} has a chunk that does not exist", file.path));
            }
            if index > used {
                return Err(format!("{} has a chunk out of order", file.path));
            }
            used = used.max(index + 1);
        }
    }
    match manifest.chunks.get(used) {
        Some(chunk) => Err(format!("chunk {} belongs to no file", chunk.blob)),
        None => Ok(()),
    }
}

/// All chunks but the last are whole, and together they have the file's size.
fn check_size(file: &FileEntry, chunks: &[Chunk]) -> Check {
    let mut size = 0;
    for (position, &index) in (1..).zip(&file.chunks) {
        let raw = u64::from(chunks[index as usize].raw);
        if position < file.chunks.len() && raw != CHUNK_SIZE {
            return Err("has a short chunk before its last".into());
        }
        size += raw;
    }
    if size == file.size {
        Ok(())
    } else {
        Err(format!("has {} bytes but chunks of {size}", file.size))
    }
}

/// Config and layers are there, and each blob is called by its digest.
fn check_image(image: &Image) -> Check {
    let fail = |what: String| Err(format!("image {}: {what}", image.reference));
    for file in &image.files {
        if file.path.as_str() != format!("blobs/sha256/{}", file.sha256) {
            return fail(format!(
                "{} does not have the digest of its name",
                file.path
            ));
        }
    }
    if image.layer_facts.len() != image.layers.len() {
        return fail("the facts are not those of its layers".into());
    }
    let tree = Tree::Image(image);
    for digest in std::iter::once(&image.config).chain(&image.layers) {
        if tree.files().iter().all(|file| file.sha256 != *digest) {
            return fail(format!("blob {digest} is missing"));
        }
    }
    Ok(())
}

/// Only its own files are executable, each listed once and in order.
fn check_extra(extra: &Extra) -> Check {
    let fail = |path, fault| Err(format!("{}: executable {path} {fault}", extra.path));
    let files: HashSet<_> = extra.files.iter().map(|file| &file.path).collect();
    if let Some(path) = extra.executable.iter().find(|path| !files.contains(path)) {
        return fail(path, "is no file of it");
    }
    let mut pairs = extra.executable.windows(2);
    match pairs.find(|pair| pair[0] >= pair[1]) {
        Some(pair) => fail(&pair[1], "is out of order"),
        None => Ok(()),
    }
}

/// No path may equal another, or be a directory of another.
fn check_disjoint<'a>(paths: impl Iterator<Item = &'a str>) -> Check {
    let mut seen = BTreeSet::new();
    for path in paths {
        if !seen.insert(path) {
            return Err(format!("{path} is listed twice"));
        }
    }
    for path in &seen {
        let inside = path.match_indices('/').map(|(at, _)| &path[..at]);
        if let Some(parent) = inside.into_iter().find(|parent| seen.contains(parent)) {
            return Err(format!("{path} lies inside {parent}, which is listed too"));
        }
    }
    Ok(())
}
