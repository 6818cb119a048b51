//! Reading bundles from one or several directories.

use std::fs;
use std::path::{Path, PathBuf};

use bundle::bundle::codec::Decoder;
use bundle::bundle::media::Media;

use crate::bundles::Content;
use crate::three_volumes::three_volumes;

fn open(dirs: &[&Path]) -> bundle::error::Result<Media> {
    let dirs: Vec<PathBuf> = dirs.iter().map(|dir| (*dir).to_owned()).collect();
    Media::open(&dirs)
}

#[test]
fn chunks_of_all_volumes_decode_to_the_files() {
    let dir = tempfile::tempdir().unwrap();
    let content = three_volumes();
    content.write(dir.path());
    let media = open(&[dir.path()]).unwrap();
    assert_eq!(media.manifest().volumes.len(), 3);
    let mut decoder = Decoder::new().unwrap();
    let (mut stored, mut raw) = (Vec::new(), Vec::new());
    for ((_, file), (_, expected)) in media.manifest().files().zip(&content.model) {
        let chunk = &media.manifest().chunks[file.chunks[0] as usize];
        media.read_chunk(file.chunks[0], &mut stored).unwrap();
        decoder
            .decode(chunk.encoding, &stored, chunk.raw as usize, &mut raw)
            .unwrap();
        assert!(raw == *expected, "{}", file.path);
    }
}

#[test]
fn volumes_are_found_on_any_medium_and_missing_ones_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (dir.path().join("1"), dir.path().join("2"));
    three_volumes().write(&first);
    fs::create_dir(&second).unwrap();
    fs::rename(first.join("vol-0002.tar"), second.join("vol-0002.tar")).unwrap();
    fs::rename(first.join("vol-0003.tar"), dir.path().join("elsewhere")).unwrap();

    let media = open(&[&second, &first]).unwrap();
    assert_eq!(media.dir(), first);
    assert_eq!(media.missing().collect::<Vec<_>>(), ["vol-0003.tar"]);
    assert_eq!(media.volume_path(2), Some(&*second.join("vol-0002.tar")));
    assert_eq!(
        [0, 1, 2].map(|index| media.has_chunk(index)),
        [true, true, false]
    );
    let mut stored = Vec::new();
    media.read_chunk(1, &mut stored).unwrap();
    let error = media.read_chunk(2, &mut stored).unwrap_err();
    assert_eq!(error.exit_code(), 10);
    assert!(
        error.to_string().contains("vol-0003.tar is missing"),
        "{error}"
    );
}

#[test]
fn different_bundles_and_no_bundle_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (dir.path().join("1"), dir.path().join("2"));
    three_volumes().write(&first);
    Content::model([("x", vec![1])]).write(&second);
    assert_eq!(open(&[&first, &second]).err().unwrap().exit_code(), 2);
    assert_eq!(open(&[dir.path()]).err().unwrap().exit_code(), 2);
}

#[test]
fn a_damaged_chunk_is_named_with_its_file_and_range() {
    let dir = tempfile::tempdir().unwrap();
    let manifest = three_volumes().write(dir.path());
    let volume = dir.path().join("vol-0003.tar");
    let mut bytes = fs::read(&volume).unwrap();
    bytes[600_000] ^= 1;
    fs::write(&volume, &bytes).unwrap();
    let media = open(&[dir.path()]).unwrap();
    let mut stored = vec![0; manifest.chunks[2].stored as usize];
    media.read_unchecked(2, &mut stored).unwrap();
    let error = media.read_chunk(2, &mut stored).unwrap_err();
    assert_eq!(error.exit_code(), 10);
    let blob = manifest.chunks[2].blob.to_string();
    for part in [
        "vol-0003.tar",
        &blob,
        "bytes 0-700000 of c.bin in owner/model",
    ] {
        assert!(error.to_string().contains(part), "{error}");
    }
    fs::write(&volume, &bytes[..5000]).unwrap();
    let error = media.read_chunk(2, &mut stored).unwrap_err();
    assert!(error.to_string().contains("behind the end"), "{error}");
}
