//! The bytes of a served file, in memory or on disk.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use bundle::digest::{GitBlobHasher, sha256_of_reader};

/// A served file.
#[derive(Clone)]
pub struct Content {
    bytes: Bytes,
    /// How many.
    pub size: u64,
    /// The SHA-256 in hex.
    pub sha256: String,
    /// The git blob id in hex.
    pub blob_id: String,
}

#[derive(Clone)]
enum Bytes {
    Memory(Arc<[u8]>),
    Disk(Arc<File>),
}

impl Content {
    /// A file in memory.
    pub fn memory(bytes: impl Into<Vec<u8>>) -> Self {
        let bytes: Vec<u8> = bytes.into();
        let size = bytes.len() as u64;
        let mut blob = GitBlobHasher::new(size);
        blob.update(&bytes);
        Self {
            size,
            sha256: bundle::digest::Sha256::of(&bytes).to_string(),
            blob_id: blob.finish().to_string(),
            bytes: Bytes::Memory(bytes.into()),
        }
    }

    /// A file on disk; it is read once now, for its hashes.
    pub fn disk(path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let size = file.metadata()?.len();
        let mut blob = GitBlobHasher::new(size);
        let mut tee = Tee(&mut file, &mut blob);
        let (sha256, _) = sha256_of_reader(&mut tee)?;
        Ok(Self {
            size,
            sha256: sha256.to_string(),
            blob_id: blob.finish().to_string(),
            bytes: Bytes::Disk(Arc::new(file)),
        })
    }

    /// Whether the hub would keep it in LFS: large files, and those whose names say so.
    pub fn is_lfs(&self, path: &str) -> bool {
        const LFS: [&str; 6] = ["safetensors", "bin", "gguf", "pt", "pth", "msgpack"];
        let extension = path.rsplit('.').next().unwrap_or_default();
        self.size > 10_000_000 || LFS.contains(&extension)
    }

    /// Writes a range to `out`; returns how many bytes went.
    pub fn write(&self, offset: u64, len: u64, out: &mut dyn Write) -> io::Result<u64> {
        const PIECE: u64 = 1 << 20;
        let mut piece = vec![0; usize::try_from(len.min(PIECE)).unwrap_or(0)];
        let mut done = 0;
        while done < len {
            let count = usize::try_from((len - done).min(PIECE)).unwrap_or(0);
            let from = offset + done;
            match &self.bytes {
                Bytes::Memory(bytes) => {
                    let from = usize::try_from(from).unwrap_or(usize::MAX);
                    out.write_all(&bytes[from..from + count])?;
                }
                Bytes::Disk(file) => {
                    file.read_exact_at(&mut piece[..count], from)?;
                    out.write_all(&piece[..count])?;
                }
            }
            done += count as u64;
        }
        Ok(done)
    }
}

/// Reads, and hashes as git does on the way.
struct Tee<'a>(&'a mut File, &'a mut GitBlobHasher);

impl io::Read for Tee<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.0.read(buffer)?;
        self.1.update(&buffer[..count]);
        Ok(count)
    }
}
