//! Going on with volumes that a process left behind when it died.

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::Path;

use super::growing::Growing;
use super::layout::{entry_header, padding};
use super::writer::{VolumeWriter, part_path};
use crate::bundle::manifest::{Chunk, Volume};
use crate::bundle::volume_name;
use crate::digest::{Hasher, Sha256};
use crate::error::{Error, Result};

impl VolumeWriter {
    /// Goes on in `dir` behind `chunks`, which were appended in this order, with `closed` the
    /// volumes that are known to be complete. The volume of the last chunk is read again; when it
    /// is torn, only the chunks up to the tear are kept. Everything behind them is removed.
    /// Returns how many chunks are kept. The result is the same as if nothing had happened.
    pub fn resume(
        dir: &Path,
        limit: u64,
        closed: &[Volume],
        chunks: &[Chunk],
    ) -> Result<(Self, usize)> {
        let last = chunks.last().map_or(1, |chunk| chunk.volume);
        let before = chunks.partition_point(|chunk| chunk.volume < last);
        let mut volumes = Vec::new();
        for number in 1..last {
            let known = closed.get(number as usize - 1);
            volumes.push(complete_volume(dir, number, known)?);
        }
        let mut kept = before;
        let mut open = None;
        if before < chunks.len() {
            let (volume, good) = reopen(dir, last, &chunks[before..])?;
            kept += good;
            open = volume;
        }
        let next = if open.is_some() { last + 1 } else { last };
        remove_from(dir, next, volume_name)?;
        Ok((Self::resumed(dir, limit, volumes, open), kept))
    }
}

/// A volume that no more chunks go into: as known, else hashed again.
fn complete_volume(dir: &Path, number: u32, known: Option<&Volume>) -> Result<Volume> {
    let name = volume_name(number);
    let path = dir.join(&name);
    let mut file = File::open(&path).map_err(Error::io("go on with", &path))?;
    let size = file
        .metadata()
        .map_err(Error::io("go on with", &path))?
        .len();
    match known {
        Some(known) if known.size == size => Ok(known.clone()),
        Some(known) => Err(Error::Damaged(format!(
            "{} has {size} bytes instead of {}: it was changed since it was written; remove the \
             unfinished bundle and pack again",
            path.display(),
            known.size
        ))),
        None => {
            let (sha256, size) =
                crate::digest::sha256_of_reader(&mut file).map_err(Error::io("read", &path))?;
            Ok(Volume { name, size, sha256 })
        }
    }
}

/// Opens a volume, complete or not, behind the last of `chunks` that is intact. `None` when not
/// even the first is.
fn reopen(dir: &Path, number: u32, chunks: &[Chunk]) -> Result<(Option<Growing>, usize)> {
    let path = part_path(dir, &volume_name(number));
    let complete = dir.join(volume_name(number));
    match fs::rename(&complete, &path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(Error::io("rename", &complete)(error));
        }
        _ => {}
    }
    let mut file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok((None, 0)),
        Err(error) => return Err(Error::io("go on with", &path)(error)),
    };
    let mut hasher = Hasher::default();
    let mut buffer = Vec::new();
    let mut good = 0;
    for chunk in chunks {
        let before = hasher.clone();
        if !read_entry(&mut file, chunk, &mut hasher, &mut buffer)
            .map_err(Error::io("read", &path))?
        {
            hasher = before;
            break;
        }
        good += 1;
    }
    if good == 0 {
        return Ok((None, 0));
    }
    let growing = Growing::reopen(path.clone(), hasher).map_err(Error::io("go on with", &path))?;
    Ok((Some(growing), good))
}

/// Reads one entry into the hasher; false when it is torn.
fn read_entry(
    file: &mut File,
    chunk: &Chunk,
    hasher: &mut Hasher,
    buffer: &mut Vec<u8>,
) -> std::io::Result<bool> {
    let stored = u64::from(chunk.stored);
    let Ok(header) = entry_header(&chunk.blob, stored) else {
        return Ok(false);
    };
    let whole = header.len() as u64 + stored + padding(stored);
    buffer.clear();
    file.take(whole).read_to_end(buffer)?;
    let intact = buffer.len() as u64 == whole
        && chunk.offset == hasher.bytes() + header.len() as u64
        && buffer[..header.len()] == header
        && Sha256::of(&buffer[header.len()..][..chunk.stored as usize]) == chunk.blob
        && buffer[header.len() + chunk.stored as usize..]
            .iter()
            .all(|&byte| byte == 0);
    if intact {
        hasher.update(buffer);
    }
    Ok(intact)
}

/// Removes volume `number` and all behind it, complete or not; `name` is what they are called.
pub fn remove_from(dir: &Path, number: u32, name: fn(u32) -> String) -> Result<()> {
    for number in number.. {
        let name = name(number);
        let paths = [dir.join(&name), part_path(dir, &name)];
        let mut found = false;
        for path in paths {
            match fs::remove_file(&path) {
                Ok(()) => found = true,
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(Error::io("remove", &path)(error)),
            }
        }
        if !found {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::manifest::Encoding;
    use crate::digest::Blake3;

    const LIMIT: u64 = 10_000;

    /// Blobs of many sizes; with the limit above, a few go into each volume.
    fn blobs() -> Vec<Vec<u8>> {
        (0..20_u8)
            .map(|n| vec![n; usize::from(n) * 97 % 3000 + 1])
            .collect()
    }

    fn append_all(writer: &mut VolumeWriter, blobs: &[Vec<u8>]) -> Vec<Chunk> {
        let append = |bytes: &Vec<u8>| {
            let blob = Sha256::of(bytes);
            let (volume, offset) = writer.append(&blob, bytes).unwrap();
            let len = u32::try_from(bytes.len()).unwrap();
            Chunk {
                blob,
                stored: len,
                raw: len,
                blake3: Blake3::of(bytes),
                encoding: Encoding::Stored,
                volume,
                offset,
            }
        };
        blobs.iter().map(append).collect()
    }

    /// An uninterrupted run: its chunks, volumes and their bytes.
    fn whole() -> (Vec<Chunk>, Vec<Volume>, Vec<Vec<u8>>) {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = VolumeWriter::create(dir.path(), LIMIT);
        let chunks = append_all(&mut writer, &blobs());
        let volumes = writer.finish().unwrap();
        let bytes = volumes
            .iter()
            .map(|volume| fs::read(dir.path().join(&volume.name)).unwrap())
            .collect();
        (chunks, volumes, bytes)
    }

    #[test]
    fn volumes_are_tars_below_the_limit_with_the_hashes_that_are_told() {
        let (chunks, volumes, bytes) = whole();
        assert!(volumes.len() > 2);
        let mut names = Vec::new();
        for (volume, bytes) in volumes.iter().zip(&bytes) {
            assert_eq!(volume.size, bytes.len() as u64);
            assert!(volume.size < LIMIT);
            assert_eq!(volume.sha256, Sha256::of(bytes));
            for entry in tar::Archive::new(&bytes[..]).entries().unwrap() {
                names.push(entry.unwrap().path().unwrap().display().to_string());
            }
        }
        let expected: Vec<_> = chunks
            .iter()
            .map(|chunk| format!("blobs/sha256/{}", chunk.blob))
            .collect();
        assert_eq!(names, expected);
    }

    #[test]
    fn a_blob_that_fits_no_volume_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = VolumeWriter::create(dir.path(), 2000);
        let error = writer.append(&Sha256::of(b""), &[0; 513]).unwrap_err();
        assert_eq!(error.exit_code(), 2);
    }

    #[test]
    fn going_on_after_any_chunk_gives_the_same_volumes() {
        let (_, volumes, bytes) = whole();
        for stop in 0..=blobs().len() {
            for torn in [false, true] {
                let dir = tempfile::tempdir().unwrap();
                let mut writer = VolumeWriter::create(dir.path(), LIMIT);
                let chunks = append_all(&mut writer, &blobs()[..stop]);
                let closed = writer.closed().to_vec();
                drop(writer);
                if let Some(last) = chunks.last().filter(|_| torn) {
                    let path = part_path(dir.path(), &volume_name(last.volume));
                    let file = File::options().write(true).open(path).unwrap();
                    file.set_len(last.offset).unwrap();
                }
                let (mut writer, kept) =
                    VolumeWriter::resume(dir.path(), LIMIT, &closed, &chunks).unwrap();
                assert_eq!(kept, if torn { stop.saturating_sub(1) } else { stop });
                append_all(&mut writer, &blobs()[kept..]);
                assert_eq!(writer.finish().unwrap(), volumes);
                let names = fs::read_dir(dir.path()).unwrap().count();
                assert_eq!(names, volumes.len());
                for (volume, bytes) in volumes.iter().zip(&bytes) {
                    assert_eq!(&fs::read(dir.path().join(&volume.name)).unwrap(), bytes);
                }
            }
        }
    }

    #[test]
    fn finished_volumes_can_be_cut_back_and_unknown_ones_are_hashed() {
        let (_, volumes, _) = whole();
        let dir = tempfile::tempdir().unwrap();
        let mut writer = VolumeWriter::create(dir.path(), LIMIT);
        let chunks = append_all(&mut writer, &blobs());
        writer.finish().unwrap();
        let keep = chunks.len() / 2;
        let (mut writer, kept) =
            VolumeWriter::resume(dir.path(), LIMIT, &[], &chunks[..keep]).unwrap();
        assert_eq!(kept, keep);
        append_all(&mut writer, &blobs()[kept..]);
        assert_eq!(writer.finish().unwrap(), volumes);
    }

    #[test]
    fn a_complete_volume_that_changed_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = VolumeWriter::create(dir.path(), LIMIT);
        let chunks = append_all(&mut writer, &blobs());
        let closed = writer.closed().to_vec();
        fs::write(dir.path().join(&closed[0].name), "x").unwrap();
        let resumed = VolumeWriter::resume(dir.path(), LIMIT, &closed, &chunks);
        assert_eq!(resumed.err().unwrap().exit_code(), 10);
    }
}
