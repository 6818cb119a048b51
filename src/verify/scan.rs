//! Reading all volumes with many threads. They take chunks in the order of the volumes, so that
//! the disk sees one nearly sequential read.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::thread;

use crate::bundle::manifest::Chunk;
use crate::bundle::media::Media;
use crate::bundle::volume::{BLOCK, END, entry_header, padding};
use crate::digest::Sha256;
use crate::error::{Error, Result};

/// Damage, as found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Number of the volume, from 1.
    pub volume: u32,
    /// Where in the volume.
    pub offset: u64,
    /// The bytes of the volume that may be damaged.
    pub span: Range<u64>,
    /// Index of the chunk whose bytes are damaged.
    pub chunk: Option<u32>,
    /// What is wrong.
    pub what: String,
}

/// All damage of the volumes that are at hand, sorted by place.
pub fn scan(media: &Media, threads: usize, done: &(dyn Fn(u64) + Sync)) -> Result<Vec<Finding>> {
    let (mut found, read) = ends(media)?;
    let next = AtomicU32::new(0);
    let bytes = AtomicU64::new(read);
    let worker = || {
        let mut worker = Worker::new(media);
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(chunk) = media.manifest().chunks.get(index as usize) else {
                break;
            };
            if media.volume_path(chunk.volume).is_some() {
                let read = worker.check(index, chunk)?;
                done(bytes.fetch_add(read, Ordering::Relaxed) + read);
            }
        }
        Ok(worker.found)
    };
    found.extend(on_threads(threads, worker)?);
    found.sort_by_key(|finding| (finding.volume, finding.offset));
    Ok(found)
}

/// Everything that so many threads find.
pub fn on_threads<T: Send>(
    threads: usize,
    worker: impl Fn() -> Result<Vec<T>> + Sync,
) -> Result<Vec<T>> {
    let results: Vec<Result<Vec<T>>> = thread::scope(|scope| {
        let handles: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(&worker)).collect();
        let join = |handle: thread::ScopedJoinHandle<'_, _>| {
            handle.join().unwrap_or_else(|_| {
                Err(Error::Failed(
                    "a verifying thread died; this is a bug, please report it".into(),
                ))
            })
        };
        handles.into_iter().map(join).collect()
    });
    let found = results.into_iter().collect::<Result<Vec<_>>>()?;
    Ok(found.into_iter().flatten().collect())
}

/// Each volume must end with zeros exactly where the manifest says. Also returns the bytes read.
fn ends(media: &Media) -> Result<(Vec<Finding>, u64)> {
    let (mut found, mut read) = (Vec::new(), 0);
    for (number, volume) in (1..).zip(&media.manifest().volumes) {
        if media.volume_path(number).is_none() {
            continue;
        }
        let file = media.open_volume(number)?;
        let size = file
            .metadata()
            .map_err(Error::io("read", &volume.name))?
            .len();
        read += END;
        let mut end = [1; 1024];
        let at = volume.size.saturating_sub(END);
        let what = if size != volume.size {
            format!("it has {size} bytes instead of {}", volume.size)
        } else if file.read_exact_at(&mut end, at).is_err() || end != [0; 1024] {
            "its end is not the end of a tar file".to_owned()
        } else {
            continue;
        };
        found.push(Finding {
            volume: number,
            offset: at.min(size),
            span: at.min(size)..volume.size.max(at.min(size)),
            chunk: None,
            what,
        });
    }
    Ok((found, read))
}

/// What a thread works with.
struct Worker<'a> {
    media: &'a Media,
    open: Option<(u32, File)>,
    buffer: Vec<u8>,
    found: Vec<Finding>,
}

impl<'a> Worker<'a> {
    fn new(media: &'a Media) -> Self {
        Self {
            media,
            open: None,
            buffer: Vec::new(),
            found: Vec::new(),
        }
    }

    /// Checks one entry of a tar file: header, blob and padding. Returns the bytes it takes.
    fn check(&mut self, index: u32, chunk: &Chunk) -> Result<u64> {
        let (stored, start) = (u64::from(chunk.stored), chunk.offset - BLOCK);
        let whole = BLOCK + stored + padding(stored);
        let read = self.read(chunk.volume, start, whole)?;
        let fault = match read {
            Ok(()) => fault_of(chunk, &self.buffer)?,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Some((
                Part::Blob,
                "it lies behind the end of the volume".to_owned(),
            )),
            Err(error) => Some((Part::Blob, format!("it cannot be read: {error}"))),
        };
        if let Some((part, what)) = fault {
            let (offset, chunk_index) = match part {
                Part::Blob => (chunk.offset, Some(index)),
                Part::Header => (start, None),
                Part::Padding => (chunk.offset + stored, None),
            };
            self.found.push(Finding {
                volume: chunk.volume,
                offset,
                span: start..start + whole,
                chunk: chunk_index,
                what,
            });
        }
        Ok(whole)
    }

    /// Fills the buffer. The outer error is one of opening, the inner one of reading.
    fn read(&mut self, volume: u32, at: u64, len: u64) -> Result<io::Result<()>> {
        let file = match self.open.take() {
            Some((number, file)) if number == volume => file,
            _ => self.media.open_volume(volume)?,
        };
        let len = usize::try_from(len).map_err(|_| Error::Failed("out of memory".into()))?;
        self.buffer.resize(len, 0);
        let result = file.read_exact_at(&mut self.buffer, at);
        self.open = Some((volume, file));
        Ok(result)
    }
}

/// The parts of an entry.
enum Part {
    Header,
    Blob,
    Padding,
}

/// What is wrong with an entry's bytes; damage of the blob first, because it is what counts.
fn fault_of(chunk: &Chunk, entry: &[u8]) -> Result<Option<(Part, String)>> {
    let header = entry_header(&chunk.blob, chunk.stored.into())?;
    let (found, rest) = entry.split_at(header.len());
    let (blob, padding) = rest.split_at(chunk.stored as usize);
    Ok(if Sha256::of(blob) != chunk.blob {
        Some((Part::Blob, "its SHA-256 is another".to_owned()))
    } else if found != header {
        Some((
            Part::Header,
            "the tar header is not the one that belongs here".to_owned(),
        ))
    } else if padding.iter().any(|&byte| byte != 0) {
        Some((
            Part::Padding,
            "there are bytes where zeros must be".to_owned(),
        ))
    } else {
        None
    })
}
