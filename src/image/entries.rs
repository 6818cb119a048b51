//! The entries of an image archive, told apart by their content: small JSON files that are kept,
//! and layers, compressed or not, that are streamed.

use std::io::{self, Read};

use crate::error::{Error, Result};

/// Larger JSON is no metadata of an image.
const MAX_METADATA: u64 = 8 << 20;

/// Enough to tell a tar by its magic.
const SNIFF: usize = 512;

/// How gzip streams start.
const GZIP: &[u8] = &[0x1f, 0x8b];

/// How zstd frames start.
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];

/// What an entry turned out to be.
pub enum Kind<'a> {
    /// JSON and other small files.
    Metadata(Vec<u8>),
    /// A layer, uncompressed.
    Layer(Box<dyn Read + 'a>),
}

/// Tells what an entry of this size is, by its first bytes.
pub fn kind_of<'a>(mut entry: impl Read + 'a, size: u64) -> io::Result<Kind<'a>> {
    let mut start = start_of(&mut entry)?;
    if is_compressed(&start) || is_tar(&start) || size > MAX_METADATA {
        let whole = io::Cursor::new(start).chain(entry);
        return Ok(Kind::Layer(uncompressed(whole)?));
    }
    entry.read_to_end(&mut start)?;
    Ok(Kind::Metadata(start))
}

/// A layer without the compression that its first bytes tell of, if any.
pub fn uncompressed<'a>(mut layer: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let start = start_of(&mut layer)?;
    let (is_gzip, is_zstd) = (is_gzip(&start), is_zstd(&start));
    let whole = io::Cursor::new(start).chain(layer);
    Ok(if is_gzip {
        Box::new(flate2::read::MultiGzDecoder::new(whole))
    } else if is_zstd {
        Box::new(zstd::Decoder::new(whole)?)
    } else {
        Box::new(whole)
    })
}

/// The first bytes, enough to tell what it is.
pub fn start_of(reader: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut start = Vec::new();
    reader.take(SNIFF as u64).read_to_end(&mut start)?;
    Ok(start)
}

fn is_compressed(start: &[u8]) -> bool {
    is_gzip(start) || is_zstd(start)
}

/// Whether a stream that starts like this is gzip.
pub fn is_gzip(start: &[u8]) -> bool {
    start.starts_with(GZIP)
}

/// Whether a stream that starts like this is zstd.
pub fn is_zstd(start: &[u8]) -> bool {
    start.starts_with(ZSTD)
}

/// A tar's magic, or the zeros of an empty one.
fn is_tar(start: &[u8]) -> bool {
    start.len() == SNIFF && (&start[257..262] == b"ustar" || start.iter().all(|&byte| byte == 0))
}

/// The name of an entry, in the form that `manifest.json` uses.
pub fn name_of(entry: &tar::Entry<'_, impl Read>) -> Result<String> {
    let bytes = entry.path_bytes();
    let name = std::str::from_utf8(&bytes)
        .map_err(|_| Error::Damaged("the archive has a name that is not UTF-8".into()))?;
    Ok(name
        .trim_start_matches("./")
        .trim_end_matches('/')
        .to_owned())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn layer(bytes: &[u8]) -> Option<Vec<u8>> {
        match kind_of(bytes, bytes.len() as u64).unwrap() {
            Kind::Metadata(kept) => {
                assert_eq!(kept, bytes);
                None
            }
            Kind::Layer(mut reader) => {
                let mut content = Vec::new();
                reader.read_to_end(&mut content).unwrap();
                Some(content)
            }
        }
    }

    #[test]
    fn layers_are_known_by_their_magic_and_uncompressed() {
        let plain = tar::Builder::new(Vec::new()).into_inner().unwrap();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&plain).unwrap();
        let zstd = zstd::encode_all(&plain[..], 3).unwrap();
        assert_eq!(layer(&plain), Some(plain.clone()));
        assert_eq!(layer(&gzip.finish().unwrap()), Some(plain.clone()));
        assert_eq!(layer(&zstd), Some(plain));
    }

    #[test]
    fn everything_small_besides_is_kept() {
        for text in ["", "{}", "1.0", &format!("[{}]", " ".repeat(2000))] {
            assert_eq!(layer(text.as_bytes()), None, "{text}");
        }
    }
}
