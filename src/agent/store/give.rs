//! Chunks go out: what is in place here is encoded again, for nodes that lack it when the media are
//! gone.

use super::Store;
use crate::bundle::codec::Encoder;
use crate::digest::Sha256;
use crate::error::{Error, Result};
use crate::fs::read_direct;

impl Store {
    /// The stored bytes of a chunk, made from the file that is in place. They have the chunk's
    /// SHA-256, or there is an error: the file is damaged, or another release packed the bundle
    /// and encodes in another way.
    pub fn give(&self, index: u32, encoder: &mut Encoder) -> Result<Vec<u8>> {
        let known = self.manifest.chunks.get(index as usize);
        let used = self.targets.uses.get(index as usize);
        let (Some(chunk), Some(place)) = (known, used.and_then(|uses| uses.first())) else {
            return Err(Error::Damaged(format!("chunk {index} is in no file")));
        };
        let target = &self.targets.list[place.target];
        let (start, _) = target.span(place.position);
        let mut raw = self.buffers.aligned(chunk.raw as usize);
        read_direct(&target.published, &mut raw, start)
            .map_err(Error::io("read", &target.published))?;
        if !chunk.is(&raw) {
            return Err(Error::Damaged(format!(
                "{} is damaged here; run `bundle verify --hosts hosts.txt`, then the same command again",
                target.published.display()
            )));
        }
        let stored = encoder.encode(&raw)?.bytes;
        if Sha256::of(&stored) == chunk.blob {
            return Ok(stored);
        }
        Err(Error::Failed(format!(
            "this release of bundle does not encode {} as the one that packed it; use the executable of the bundle, or its media",
            target.published.display()
        )))
    }
}
