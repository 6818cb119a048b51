//! Volumes: plain tar files, each a row of blobs named by the SHA-256 of their bytes.
//!
//! Their layout follows from the blobs alone: no time, no owner, no gap. So a reader can work out
//! every byte of a volume that is no blob, and nothing can hide between the blobs.

mod growing;
mod layout;
mod resume;
mod writer;

pub use layout::{BLOCK, END, entry_header, fits, padding};
pub use resume::remove_from;
pub use writer::{MIN_VOLUME_SIZE, VolumeWriter, part_path};
