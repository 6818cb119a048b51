//! Reading one small file of a bundle whole, e.g. a model's `config.json`.

use super::codec::Decoder;
use super::manifest::FileEntry;
use super::media::Media;
use crate::digest::Sha256;
use crate::error::{Error, Result};

/// The largest file that counts as small, in bytes.
const MAX: u64 = 16 << 20;

/// The content of a file, checked.
pub fn read(media: &Media, file: &FileEntry) -> Result<Vec<u8>> {
    if file.size > MAX {
        return Err(Error::Damaged(format!(
            "{} is too large for what it should be",
            file.path
        )));
    }
    let mut decoder = Decoder::new()?;
    let (mut content, mut stored, mut raw) = (Vec::new(), Vec::new(), Vec::new());
    for &index in &file.chunks {
        media.read_chunk(index, &mut stored)?;
        let chunk = &media.manifest().chunks[index as usize];
        decoder.decode(chunk.encoding, &stored, chunk.raw as usize, &mut raw)?;
        content.extend_from_slice(&raw);
    }
    if Sha256::of(&content) == file.sha256 {
        return Ok(content);
    }
    Err(Error::Damaged(format!(
        "{} does not have its SHA-256; copy the bundle again",
        file.path
    )))
}
