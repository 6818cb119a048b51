//! What can be known to go wrong before the first byte is fetched.

use std::fs;
use std::io::{ErrorKind, Seek as _, SeekFrom};
use std::path::Path;

use rustix::process::{Resource, getrlimit};

use crate::bundle::parity::Share;
use crate::bundle::volume::MIN_VOLUME_SIZE;
use crate::error::{Error, Result};
use crate::fs::free_space;

/// No 16-bit weights become smaller than this, in percent.
const LEAST_OF_MODELS: u64 = 60;

/// Layers of programs shrink to a third or so, and extra files are the like; this leaves some room,
/// in percent.
const LEAST_OF_PROGRAMS: u64 = 25;

/// What models become, in percent: bf16 weights about the lower, quantized ones about the upper.
const USUAL_OF_MODELS: (u64, u64) = (66, 100);

/// What layers become, in percent.
const USUAL_OF_IMAGES: (u64, u64) = (30, 60);

/// What extra files become, in percent: text, or archives.
const USUAL_OF_EXTRAS: (u64, u64) = (30, 100);

/// The executable, manifest and journal.
const BESIDES: u64 = 64 << 20;

/// What will be written.
#[derive(Clone, Copy, Debug, Default)]
pub struct Work {
    /// Raw bytes of models that are still to be packed.
    pub models: u64,
    /// Raw bytes of images that are still to be packed, as far as known.
    pub images: u64,
    /// Raw bytes of extra files that are still to be packed.
    pub extras: u64,
    /// Bytes that are in the volumes already.
    pub stored: u64,
    /// Bytes that are still to be downloaded.
    pub download: u64,
    /// The share of the bundle that its recovery volumes take.
    pub parity: Option<Share>,
}

/// What is to be expected of a pack before it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forecast {
    /// Raw bytes that are still to be packed.
    pub raw: u64,
    /// Bytes of them to download.
    pub download: u64,
    /// Bytes of all volumes in the end, at the least and at the most, as content usually is.
    pub volumes: (u64, u64),
}

impl Work {
    /// Raw bytes of everything.
    #[must_use]
    pub fn bytes(self) -> u64 {
        self.models + self.images + self.extras
    }

    /// What is to be expected.
    #[must_use]
    pub fn forecast(self) -> Forecast {
        let sum = |models, images, extras| {
            let left = percent(self.models, models)
                + percent(self.images, images)
                + percent(self.extras, extras);
            self.stored + self.with_recovery(left)
        };
        Forecast {
            raw: self.bytes(),
            download: self.download,
            volumes: (
                sum(USUAL_OF_MODELS.0, USUAL_OF_IMAGES.0, USUAL_OF_EXTRAS.0),
                sum(USUAL_OF_MODELS.1, USUAL_OF_IMAGES.1, USUAL_OF_EXTRAS.1),
            ),
        }
    }

    /// Bytes to write when `left` more go into the volumes.
    fn with_recovery(self, left: u64) -> u64 {
        left + self.parity.map_or(0, |share| share.of(self.stored + left))
    }
}

fn percent(bytes: u64, share: u64) -> u64 {
    bytes / 100 * share
}

/// Whether the bundle fits on a filesystem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// Whatever the content is.
    Surely,
    /// If it shrinks as weights usually do.
    Perhaps,
    /// Never.
    Not {
        /// Bytes that are lacking at the least.
        lacking: u64,
    },
}

/// Judges free space, in bytes.
#[must_use]
pub fn fit(work: Work, free: u64) -> Fit {
    let least = percent(work.models, LEAST_OF_MODELS)
        + percent(work.images + work.extras, LEAST_OF_PROGRAMS);
    // Incompressible content costs a little more than its own size.
    let most = percent(work.bytes(), 101);
    let (least, most) = (work.with_recovery(least), work.with_recovery(most));
    if most + BESIDES <= free {
        Fit::Surely
    } else if least + BESIDES <= free {
        Fit::Perhaps
    } else {
        let lacking = least + BESIDES - free;
        Fit::Not { lacking }
    }
}

/// Refuses to begin what cannot fit. Returns a remark when it may not fit.
pub fn check_space(out: &Path, work: Work) -> Result<Option<String>> {
    let free = free_space(out)?;
    let mb = |bytes: u64| bytes.div_ceil(1_000_000);
    match fit(work, free) {
        Fit::Surely => Ok(None),
        Fit::Perhaps => Ok(Some(format!(
            "{} MB are free at {}, and {} MB are to be packed: it fits only if it shrinks as \
             weights usually do; if it does not, make room and run again to go on",
            mb(free),
            out.display(),
            mb(work.bytes())
        ))),
        Fit::Not { lacking } => Err(Error::NoSpace(format!(
            "{} has {} MB free, at least {} MB too few; make room or choose another directory with -o",
            out.display(),
            mb(free),
            mb(lacking)
        ))),
    }
}

/// Refuses volumes that are too small for a chunk, or larger than a file can be in `out`, such as
/// 4 GiB on FAT32. The filesystem is asked by seeking, which writes nothing.
pub fn check_volume_size(out: &Path, volume_size: u64) -> Result<()> {
    if volume_size < MIN_VOLUME_SIZE {
        return Err(Error::Usage(format!(
            "volumes of {volume_size} bytes are too small; --volume-size must be at least {MIN_VOLUME_SIZE}"
        )));
    }
    if let Some(most) = getrlimit(Resource::Fsize).current
        && most < volume_size - 1
    {
        return Err(Error::Usage(format!(
            "no file may grow beyond {most} bytes here; run `ulimit -f unlimited` first, or choose a smaller \
             --volume-size"
        )));
    }
    let probe = tempfile::tempfile_in(out).or_else(|_| named_probe(out));
    let mut probe = probe.map_err(Error::io("create a file in", out))?;
    match probe.seek(SeekFrom::Start(volume_size - 1)) {
        Err(error) if error.kind() == ErrorKind::InvalidInput => Err(Error::Usage(format!(
            "files in {} cannot have {volume_size} bytes (FAT32 takes less than 4 GiB); \
             choose a smaller --volume-size, such as 4G",
            out.display()
        ))),
        Err(error) => Err(Error::io("seek in", out)(error)),
        Ok(_) => Ok(()),
    }
}

/// For filesystems that know no files without a name.
fn named_probe(out: &Path) -> std::io::Result<fs::File> {
    Ok(tempfile::NamedTempFile::new_in(out)?.into_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn space_is_judged_by_what_weights_and_layers_become() {
        const GB: u64 = 1_000_000_000;
        let work = Work {
            models: 140 * GB,
            images: 16 * GB,
            extras: 4 * GB,
            ..Work::default()
        };
        let cases = [
            (200 * GB, Fit::Surely),
            (150 * GB, Fit::Perhaps),
            (
                80 * GB,
                Fit::Not {
                    lacking: 9 * GB + BESIDES,
                },
            ),
        ];
        for (free, expected) in cases {
            assert_eq!(fit(work, free), expected, "{free}");
        }
        assert_eq!(fit(Work::default(), BESIDES), Fit::Surely);
        // What is packed already needs recovery volumes too.
        let with_parity = Work {
            stored: 100 * GB,
            parity: Some("10%".parse().unwrap()),
            ..work
        };
        let lacking = 89 * GB + 100 * GB / 10 + 89 * GB / 10 + BESIDES - 80 * GB;
        assert_eq!(fit(with_parity, 80 * GB), Fit::Not { lacking });
    }

    #[test]
    fn what_is_expected_counts_what_is_there_and_recovery_volumes() {
        const GB: u64 = 1_000_000_000;
        let work = Work {
            models: 140 * GB,
            images: 10 * GB,
            extras: GB,
            download: 145 * GB,
            ..Work::default()
        };
        let least = 140 * GB / 100 * 66 + 3 * GB + GB / 10 * 3;
        let forecast = work.forecast();
        assert_eq!((forecast.raw, forecast.download), (151 * GB, 145 * GB));
        assert_eq!(forecast.volumes, (least, 147 * GB));
        let resumed = Work {
            stored: 100 * GB,
            parity: Some("10%".parse().unwrap()),
            ..work
        };
        let least = resumed.forecast().volumes.0;
        assert_eq!(least, (95_700 * GB / 1000 + 100 * GB) / 10 * 11);
    }

    #[test]
    fn a_file_larger_than_the_filesystem_can_hold_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        check_volume_size(dir.path(), 4_000_000_000).unwrap();
        let error = check_volume_size(dir.path(), u64::MAX / 2 + 1).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("--volume-size"), "{error}");
        let error = check_volume_size(dir.path(), 1000).unwrap_err();
        assert!(error.to_string().contains("too small"), "{error}");
    }

    #[test]
    fn what_cannot_fit_is_refused_before_it_begins() {
        let dir = tempfile::tempdir().unwrap();
        let work = Work {
            models: 1 << 60,
            ..Work::default()
        };
        let error = check_space(dir.path(), work).unwrap_err();
        assert_eq!(error.exit_code(), 13);
    }
}
