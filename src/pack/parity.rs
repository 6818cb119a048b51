//! Recovery volumes, made in a second read of the finished volumes. A run that was killed meanwhile
//! makes them again.

use std::sync::atomic::{AtomicBool, Ordering};

use super::plan::Plan;
use super::progress::Progress;
use crate::bundle::manifest::{Parity, Volume};
use crate::bundle::parity::{Geometry, Volumes, encode, publish, recovery_name};
use crate::bundle::volume::remove_from;
use crate::error::{Error, Result};

/// Makes the recovery volumes that the plan wants, and removes those of an earlier run.
pub fn make(
    plan: &Plan,
    volumes: &[Volume],
    progress: &dyn Progress,
    stop: &AtomicBool,
) -> Result<Option<Parity>> {
    remove_from(&plan.out, 1, recovery_name)?;
    let Some(share) = plan.parity else {
        return Ok(None);
    };
    // A delta that leaves out everything has nothing to recover.
    if volumes.is_empty() {
        progress.note(
            "makes no recovery volumes: the base has everything, so there is nothing to protect",
        );
        return Ok(None);
    }
    let sizes: Vec<u64> = volumes.iter().map(|volume| volume.size).collect();
    let geometry = Geometry::choose(&sizes, share, plan.volume_size)?;
    progress.total(geometry.data as u64 * geometry.shard);
    progress.file("recovery volumes");
    let paths = volumes.iter().map(|volume| plan.out.join(&volume.name));
    let volumes = Volumes::new(paths.zip(sizes));
    let parity = encode(volumes, &geometry, &plan.out, &mut |done| {
        progress.packed(done, done);
        if stop.load(Ordering::Relaxed) {
            return Err(Error::Interrupted(
                "stopped while recovery volumes were made; run the same command again to make them"
                    .into(),
            ));
        }
        Ok(())
    })?;
    publish(&parity, &plan.out)?;
    Ok(Some(parity))
}
