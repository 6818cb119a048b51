//! The bundle format: what stands on the disk that crosses the gap. `docs/FORMAT.md` describes
//! it for strangers; this module is its only implementation.

pub mod cluster_spec;
pub mod codec;
pub mod fill;
pub mod manifest;
pub mod media;
pub mod on_disk;
pub mod parity;
pub mod ranges;
pub mod request;
pub mod sign;
pub mod small_file;
pub mod sums;
pub mod volume;

/// Raw bytes of a chunk; only the last chunk of a file is shorter.
pub const CHUNK_SIZE: u64 = 16 << 20;

/// Name of the manifest inside a bundle directory.
pub const MANIFEST_NAME: &str = "bundle.json";

/// Name of the checksum list inside a bundle directory.
pub const SUMS_NAME: &str = "SHA256SUMS";

/// Name of the signature over the manifest.
pub const SIGNATURE_NAME: &str = "bundle.json.minisig";

/// Name of the static executable inside a bundle directory.
pub const EXECUTABLE_NAME: &str = "bundle";

/// File name of a volume, counted from 1.
#[must_use]
pub fn volume_name(number: u32) -> String {
    format!("vol-{number:04}.tar")
}
