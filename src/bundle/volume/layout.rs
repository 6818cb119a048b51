//! Where blobs stand in a tar file, and every byte around them.

use crate::digest::Sha256;
use crate::error::{Error, Result};

/// Tar counts in blocks; a header is one block, and blobs are padded with zeros to whole blocks.
pub const BLOCK: u64 = 512;

/// A volume ends with two blocks of zeros.
pub const END: u64 = 2 * BLOCK;

/// The ustar header in front of a blob of `len` bytes: a plain file `blobs/sha256/HEX`, mode 0644,
/// owner 0:0 without names, modified at 0.
pub fn entry_header(blob: &Sha256, len: u64) -> Result<[u8; 512]> {
    let mut header = tar::Header::new_ustar();
    header
        .set_path(format!("blobs/sha256/{blob}"))
        .map_err(|cause| Error::Failed(format!("cannot name blob {blob}: {cause}")))?;
    header.set_entry_type(tar::EntryType::Regular);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(len);
    header.set_cksum();
    Ok(*header.as_bytes())
}

/// Zeros that follow a blob of `len` bytes.
#[must_use]
pub fn padding(len: u64) -> u64 {
    len.next_multiple_of(BLOCK) - len
}

/// Whether a blob of `len` bytes still fits into a volume whose entries take `end` bytes so far;
/// the whole volume must stay *below* `limit`, because FAT32 ends one byte before 4 GiB.
#[must_use]
pub fn fits(end: u64, len: u64, limit: u64) -> bool {
    end + BLOCK + len + padding(len) + END < limit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_fixed_bytes() {
        let blob = Sha256::of(b"");
        let header = entry_header(&blob, 0o1234).unwrap();
        let mut expected = [0; 512];
        let mut put = |at: usize, text: &str| {
            expected[at..at + text.len()].copy_from_slice(text.as_bytes());
        };
        put(0, &format!("blobs/sha256/{blob}"));
        put(100, "0000644\0");
        put(108, "0000000\0");
        put(116, "0000000\0");
        put(124, "00000001234\0");
        put(136, "00000000000\0");
        // The sum counts its own field as spaces; then comes the type, a plain file.
        put(148, "        0");
        put(257, "ustar\x0000");
        let sum: u32 = expected.iter().map(|&byte| u32::from(byte)).sum();
        expected[148..156].copy_from_slice(format!("{sum:07o}\0").as_bytes());
        assert_eq!(header, expected);
    }

    #[test]
    fn the_limit_itself_is_too_large() {
        assert_eq!((padding(0), padding(1), padding(512)), (0, 511, 0));
        let whole = BLOCK + 512 + END;
        assert!(!fits(0, 512, whole));
        assert!(fits(0, 512, whole + 1));
        assert!(!fits(512, 1, whole + 1));
    }
}
