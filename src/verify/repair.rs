//! Rebuilding lost and damaged volumes from the recovery volumes, never in place: a volume grows as
//! `NAME.part`, and gets its name when its SHA-256 is right. A damaged original in the same
//! directory is kept as `NAME.damaged`.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::recovery::{self, Recovery};
use super::report::State;
use super::scan;
use crate::bundle::manifest::{Manifest, Volume};
use crate::bundle::media::Media;
use crate::bundle::parity::{Files, Volumes, encode, rebuild};
use crate::bundle::volume::part_path;
use crate::digest::sha256_of_reader;
use crate::error::{Error, Result};
use crate::fs::{Lock, free_space, sync_dir};

/// What a repair did.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Repaired {
    /// The volumes that are right now.
    pub rebuilt: Vec<PathBuf>,
    /// The damaged ones, for the operator to remove.
    pub kept: Vec<PathBuf>,
}

/// Rebuilds all volumes that are damaged or missing, recovery volumes too. They go to `out`, else
/// to where the damaged one is, else beside the manifest. When too much is lost, nothing is written.
pub fn repair(
    media: &Media,
    out: Option<&Path>,
    threads: usize,
    done: &(dyn Fn(u64) + Sync),
) -> Result<Repaired> {
    let found = scan::scan(media, threads, done)?;
    let Some(known) = recovery::check(media, &found, threads, &|_| ())? else {
        return Err(Error::Usage(
            "this bundle has no recovery volumes: it was packed without --parity".into(),
        ));
    };
    let wanted: Vec<usize> = (0..media.manifest().volumes.len())
        .filter(|&index| {
            let number = u32::try_from(index + 1).unwrap_or(u32::MAX);
            media.volume_path(number).is_none() || found.iter().any(|one| one.volume == number)
        })
        .collect();
    let job = Job {
        media,
        out,
        known: &known,
        done,
    };
    let mut result = Repaired::default();
    let repaired = job.data_volumes(&wanted, &mut result)?;
    job.recovery_volumes(&repaired, &mut result)?;
    Ok(result)
}

struct Job<'a> {
    media: &'a Media,
    out: Option<&'a Path>,
    known: &'a Recovery,
    done: &'a (dyn Fn(u64) + Sync),
}

/// A volume that is to be rebuilt.
struct Target<'a> {
    volume: &'a Volume,
    original: Option<&'a Path>,
    dir: PathBuf,
    _lock: Lock,
}

impl<'a> Job<'a> {
    fn manifest(&self) -> &'a Manifest {
        self.media.manifest()
    }

    /// Rebuilds volumes, given by their index; returns where they are now.
    fn data_volumes(
        &self,
        wanted: &[usize],
        result: &mut Repaired,
    ) -> Result<BTreeMap<usize, PathBuf>> {
        let loss = &self.known.loss;
        if !loss.can_be_rebuilt() {
            return Err(Error::Damaged(format!(
                "too much is lost: {} shards of {} bytes, and only {} recovery shards are intact; \
                 carry the damaged and missing volumes across again (`bundle verify` names them)",
                loss.data.len(),
                self.known.geometry.shard,
                loss.recovery.len()
            )));
        }
        let manifest = self.manifest();
        let original = |index: usize| self.media.volume_path(u32::try_from(index + 1).ok()?);
        let volumes = wanted.iter().map(|&index| &manifest.volumes[index]);
        self.check_space(volumes.zip(wanted.iter().map(|&index| original(index))))?;
        let targets = wanted
            .iter()
            .map(|&index| {
                let dir = self.dir(original(index));
                Target::new(&manifest.volumes[index], original(index), dir)
            })
            .collect::<Result<Vec<_>>>()?;
        self.write(wanted, &targets)?;
        let mut repaired = BTreeMap::new();
        for (&index, target) in wanted.iter().zip(&targets) {
            target.check()?;
            repaired.insert(index, target.publish(result)?);
        }
        Ok(repaired)
    }

    fn dir<'b>(&'b self, original: Option<&'b Path>) -> &'b Path {
        let beside = || original.and_then(Path::parent);
        self.out.or_else(beside).unwrap_or(self.media.dir())
    }

    /// Writes the bytes of all volumes: first what is intact, then what is rebuilt.
    fn write(&self, wanted: &[usize], targets: &[Target<'_>]) -> Result<()> {
        let paths = targets.iter().map(Target::part).collect();
        let mut files = Files::create(paths)?;
        let mut row = recovery::volumes(self.media);
        for (number, &index) in wanted.iter().enumerate() {
            self.copy_intact(&mut row, index, &mut files, number)?;
        }
        let geometry = &self.known.geometry;
        let listed = (0..geometry.volumes()).map(|index| self.media.recovery_path(index));
        let paths = listed.map(|path| path.map(Path::to_owned).unwrap_or_default());
        let places = recovery::volumes(self.media);
        rebuild(
            &mut row,
            &mut Files::to_read(paths.collect()),
            geometry,
            &self.known.loss,
            &mut |shard, at, piece| {
                let from = shard as u64 * geometry.shard + at;
                for part in places.parts(from, piece.len()) {
                    if let Ok(number) = wanted.binary_search(&part.volume) {
                        files.write(number, part.at, &piece[part.from..][..part.len])?;
                    }
                }
                Ok(())
            },
            self.done,
        )
    }

    /// Copies the intact shards of a volume.
    fn copy_intact(
        &self,
        row: &mut Volumes,
        index: usize,
        files: &mut Files,
        number: usize,
    ) -> Result<()> {
        const PIECE: u64 = 1 << 20;
        let place = row.range(index);
        let mut buffer = Vec::new();
        let mut at = place.start;
        while at < place.end {
            let shard = at / self.known.geometry.shard;
            let shard_end = (shard + 1) * self.known.geometry.shard;
            let end = shard_end.min(place.end).min(at + PIECE);
            let lost = &self.known.loss.data;
            if !usize::try_from(shard).is_ok_and(|shard| lost.contains(&shard)) {
                buffer.resize(usize::try_from(end - at).unwrap_or(0), 0);
                row.read(at, &mut buffer)?;
                files.write(number, at - place.start, &buffer)?;
            }
            at = end;
        }
        Ok(())
    }

    /// Makes damaged and missing recovery volumes again, from volumes that are all intact now.
    fn recovery_volumes(
        &self,
        repaired: &BTreeMap<usize, PathBuf>,
        result: &mut Repaired,
    ) -> Result<()> {
        let states = self.known.report.volumes.iter();
        let wanted: Vec<usize> = states
            .enumerate()
            .filter(|(_, volume)| volume.state != State::Intact)
            .map(|(index, _)| index)
            .collect();
        let (Some(parity), Some(&first)) = (&self.manifest().parity, wanted.first()) else {
            return Ok(());
        };
        let dir = self.dir(self.media.recovery_path(first)).to_owned();
        // All of them are made again, though not all are needed.
        self.check_space(parity.volumes.iter().map(|volume| (volume, None)))?;
        let original = |index| {
            wanted
                .contains(&index)
                .then(|| self.media.recovery_path(index))?
        };
        let targets = (0..)
            .zip(&parity.volumes)
            .map(|(index, volume)| Target::new(volume, original(index), &dir))
            .collect::<Result<Vec<_>>>()?;
        let listed = (1..).zip(&self.manifest().volumes).enumerate();
        let paths = listed.map(|(index, (number, volume))| {
            let there = repaired.get(&index).map(PathBuf::as_path);
            let path = there.or_else(|| self.media.volume_path(number));
            (path.map(Path::to_owned).unwrap_or_default(), volume.size)
        });
        encode(
            Volumes::new(paths),
            &self.known.geometry,
            &dir,
            &mut |coded| {
                (self.done)(coded);
                Ok(())
            },
        )?;
        for index in wanted {
            targets[index].check()?;
            targets[index].publish(result)?;
        }
        Ok(())
    }

    /// Refuses when what is to be written does not fit.
    fn check_space<'b>(
        &'b self,
        volumes: impl Iterator<Item = (&'b Volume, Option<&'b Path>)>,
    ) -> Result<()> {
        let mut needed: BTreeMap<&Path, u64> = BTreeMap::new();
        for (volume, original) in volumes {
            *needed.entry(self.dir(original)).or_default() += volume.size;
        }
        for (dir, bytes) in needed {
            let free = free_space(dir)?;
            if free < bytes {
                return Err(Error::NoSpace(format!(
                    "{} has {free} bytes free, and {bytes} are needed; choose another directory with -o",
                    dir.display()
                )));
            }
        }
        Ok(())
    }
}

impl<'a> Target<'a> {
    /// Where a volume is rebuilt. A damaged one that an earlier repair kept is not overwritten.
    fn new(volume: &'a Volume, original: Option<&'a Path>, dir: &Path) -> Result<Self> {
        let kept = kept_path(dir, &volume.name);
        if original.is_some() && kept.exists() {
            return Err(Error::Usage(format!(
                "{} is there already; remove it, or choose another directory with -o",
                kept.display()
            )));
        }
        let part = part_path(dir, &volume.name);
        let lock = Lock::take(&part, "repairing here").map_err(|error| not_writable(error, dir))?;
        Ok(Self {
            volume,
            original,
            dir: dir.to_owned(),
            _lock: lock,
        })
    }

    fn part(&self) -> PathBuf {
        part_path(&self.dir, &self.volume.name)
    }

    /// Whether what was written is the volume.
    fn check(&self) -> Result<()> {
        let part = self.part();
        let file = File::open(&part).map_err(Error::io("read", &part))?;
        file.sync_all().map_err(Error::io("write", &part))?;
        let found = sha256_of_reader(file).map_err(Error::io("read", &part))?;
        if found == (self.volume.sha256, self.volume.size) {
            return Ok(());
        }
        Err(Error::Damaged(format!(
            "{} cannot be rebuilt: what came out does not have its SHA-256; carry it across again",
            self.volume.name
        )))
    }

    /// Gives the volume its name, and the damaged one another.
    fn publish(&self, result: &mut Repaired) -> Result<PathBuf> {
        let path = self.dir.join(&self.volume.name);
        if path.exists() {
            let kept = kept_path(&self.dir, &self.volume.name);
            fs::rename(&path, &kept).map_err(Error::io("rename", &path))?;
            result.kept.push(kept);
        } else {
            result.kept.extend(self.original.map(Path::to_owned));
        }
        fs::rename(self.part(), &path).map_err(Error::io("rename to", &path))?;
        sync_dir(&self.dir)?;
        result.rebuilt.push(path.clone());
        Ok(path)
    }
}

/// What did not become a volume is of no use.
impl Drop for Target<'_> {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.part());
    }
}

fn kept_path(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}.damaged"))
}

/// Optical media, for example.
fn not_writable(error: Error, dir: &Path) -> Error {
    match error {
        Error::Io { cause, .. }
            if matches!(
                cause.kind(),
                io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied
            ) =>
        {
            Error::Usage(format!(
                "cannot write in {}: {cause}; choose another directory with -o",
                dir.display()
            ))
        }
        other => other,
    }
}
