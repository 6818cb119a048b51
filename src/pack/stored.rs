//! Reading chunks back from volumes that are still being written.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use crate::bundle::codec::Decoder;
use crate::bundle::manifest::Chunk;
use crate::bundle::volume::part_path;
use crate::bundle::volume_name;
use crate::error::{Error, Result};

/// The volumes of a directory.
pub struct StoredChunks {
    dir: PathBuf,
}

/// Reads chunks one after the other.
pub struct ChunkReader<'a> {
    volumes: &'a StoredChunks,
    open: Option<(u32, File)>,
    decoder: Decoder,
    stored: Vec<u8>,
}

impl StoredChunks {
    /// The volumes in `dir`.
    pub fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Opens a volume, complete or not.
    fn open(&self, number: u32) -> io::Result<File> {
        match File::open(self.dir.join(volume_name(number))) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                File::open(part_path(&self.dir, &volume_name(number)))
            }
            result => result,
        }
    }

    /// A reader with its own handle and buffer.
    pub fn reader(&self) -> Result<ChunkReader<'_>> {
        Ok(ChunkReader {
            volumes: self,
            open: None,
            decoder: Decoder::new()?,
            stored: Vec::new(),
        })
    }
}

impl ChunkReader<'_> {
    /// Decodes a chunk into `raw`.
    pub fn read(&mut self, chunk: &Chunk, raw: &mut Vec<u8>) -> Result<()> {
        let path = self.volumes.dir.join(volume_name(chunk.volume));
        self.load(chunk)
            .map_err(|cause| Error::io("read", &path)(cause))?;
        self.decoder
            .decode(chunk.encoding, &self.stored, chunk.raw as usize, raw)
            .map_err(|error| error.at(path.display()))
    }

    fn load(&mut self, chunk: &Chunk) -> io::Result<()> {
        let file = match self.open.take() {
            Some((number, file)) if number == chunk.volume => file,
            _ => self.volumes.open(chunk.volume)?,
        };
        self.stored.resize(chunk.stored as usize, 0);
        let result = file.read_exact_at(&mut self.stored, chunk.offset);
        self.open = Some((chunk.volume, file));
        result
    }
}
