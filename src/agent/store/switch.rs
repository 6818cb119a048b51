//! Puts content into place with renames only. What will be done is written down first, and each
//! directory is known by its inode, so that an interrupted switch is finished by whoever comes
//! next; from outside each model changes from the old to the new content at once.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::home::{Home, Slot};
use super::state::{Generation, State};
use crate::error::{Error, Result};
use crate::fs::{create_dir_all, remove_dir_all, sync_dir};
use crate::path::AbsPath;

/// A switch that was decided.
#[derive(Debug, Serialize, Deserialize)]
pub struct Switch {
    /// Where the new content is.
    from: Slot,
    /// Where the old content goes.
    to: Slot,
    steps: Vec<Step>,
    /// What is in place afterwards.
    current: Option<Generation>,
    /// What can be gone back to afterwards.
    previous: Option<Generation>,
}

impl Switch {
    /// What is in place and what can be gone back to afterwards.
    pub fn outcome(&self) -> (Option<&Generation>, Option<&Generation>) {
        (self.current.as_ref(), self.previous.as_ref())
    }
}

/// One model's directory.
#[derive(Debug, Serialize, Deserialize)]
struct Step {
    path: AbsPath,
    /// Inode of the new content, if there is any.
    incoming: Option<u64>,
    /// Inode of the old content, if there is any.
    outgoing: Option<u64>,
}

/// Puts a sealed generation into place. A repair drops the damaged content and keeps the
/// generation before; directories that the new generation no longer has go away as well.
pub fn publish(home: &Home, state: &mut State, sealed: Generation) -> Result<()> {
    let in_use = union(&[Some(&sealed), state.current.as_ref()]);
    let is_repair = state
        .current
        .as_ref()
        .is_some_and(|current| current.manifest == sealed.manifest);
    let (to, mut steps) = (
        if is_repair {
            Slot::Trash
        } else {
            Slot::Previous
        },
        steps(home, &in_use, Slot::Staging),
    );
    let previous = if is_repair {
        state.previous.clone()
    } else {
        state.current.clone().or_else(|| foreign(&steps))
    };
    if !is_repair {
        // Of these only the slot is ours now; whatever stands in their place is not.
        let retired = union(&[state.previous.as_ref()]);
        steps.extend(
            retired
                .into_iter()
                .filter(|path| !in_use.contains(path))
                .map(Step::retire),
        );
    }
    begin(
        home,
        state,
        Switch {
            from: Slot::Staging,
            to,
            steps,
            current: Some(sealed),
            previous,
        },
    )
}

/// Exchanges the current and the previous generation.
pub fn go_back(home: &Home, state: &mut State) -> Result<()> {
    let previous = state.previous.clone().ok_or_else(|| {
        Error::Failed(format!(
            "this node has no previous generation of {} to go back to; nothing was changed",
            home.name()
        ))
    })?;
    let in_use = union(&[Some(&previous), state.current.as_ref()]);
    let switch = Switch {
        from: Slot::Previous,
        to: Slot::Previous,
        steps: steps(home, &in_use, Slot::Previous),
        current: Some(previous),
        previous: state.current.clone(),
    };
    begin(home, state, switch)
}

/// Writes the intention down and carries it out, if the new content is where it must be.
fn begin(home: &Home, state: &mut State, switch: Switch) -> Result<()> {
    for root in switch
        .current
        .iter()
        .flat_map(|generation| &generation.roots)
    {
        let content = home.slot(root, switch.from);
        if inode(&content).is_none() {
            return Err(Error::Failed(format!(
                "{} is gone; nothing was changed, run the install again",
                content.display()
            )));
        }
    }
    state.switch = Some(switch);
    state.write(home)?;
    finish(home, state)
}

/// The directories of some generations, without repeats.
fn union(generations: &[Option<&Generation>]) -> Vec<AbsPath> {
    let mut roots: Vec<AbsPath> = generations
        .iter()
        .flatten()
        .flat_map(|generation| generation.roots.iter().cloned())
        .collect();
    roots.sort();
    roots.dedup();
    roots
}

/// Does what is left of a switch that was begun, if one was.
pub fn finish(home: &Home, state: &mut State) -> Result<()> {
    let Some(switch) = &state.switch else {
        return Ok(());
    };
    for step in &switch.steps {
        step.perform(home, switch.from, switch.to)?;
    }
    for step in &switch.steps {
        remove_dir_all(&home.slot(&step.path, Slot::Trash))?;
    }
    if let Some(switch) = state.switch.take() {
        if switch.from == Slot::Staging {
            (state.sealed, state.staging) = (None, Vec::new());
        }
        (state.current, state.previous) = (switch.current, switch.previous);
    }
    state.write(home)
}

/// What must happen with each directory when the content in `from` comes into place.
fn steps(home: &Home, roots: &[AbsPath], from: Slot) -> Vec<Step> {
    let step = |path: &AbsPath| Step {
        path: path.clone(),
        incoming: inode(&home.slot(path, from)),
        outgoing: inode(&home.place(path)),
    };
    roots.iter().map(step).collect()
}

/// Content that was not installed by this program but stands where ours will be.
fn foreign(steps: &[Step]) -> Option<Generation> {
    let roots: Vec<AbsPath> = steps
        .iter()
        .filter(|step| step.outgoing.is_some())
        .map(|step| step.path.clone())
        .collect();
    (!roots.is_empty()).then(|| Generation {
        roots,
        ..Generation::default()
    })
}

impl Step {
    /// Only empties the slot.
    fn retire(path: AbsPath) -> Self {
        Self {
            path,
            incoming: None,
            outgoing: None,
        }
    }

    /// Safe to repeat, and to go on with from any point.
    fn perform(&self, home: &Home, from: Slot, to: Slot) -> Result<()> {
        let slot = |slot| home.slot(&self.path, slot);
        let place = home.place(&self.path);
        let (from, to, aside) = (slot(from), slot(to), slot(Slot::Aside));
        for path in [&place, &from, &to, &aside, &slot(Slot::Trash)] {
            path.parent().map_or(Ok(()), create_dir_all)?;
        }
        if from != to && inode(&to).is_some() && inode(&to) != self.outgoing {
            discard(&to, &slot(Slot::Trash))?;
        }
        if self.incoming.is_some() {
            if inode(&from) == self.incoming {
                bring_in(&from, &place, &aside)?;
            }
        } else if self.outgoing.is_some() && inode(&place) == self.outgoing {
            rename(&place, &aside)?;
        }
        for left in [&from, &aside] {
            if left != &to && self.outgoing.is_some() && inode(left) == self.outgoing {
                rename(left, &to)?;
            }
        }
        for path in [&place, &from, &to, &aside] {
            path.parent().map_or(Ok(()), sync_dir)?;
        }
        Ok(())
    }
}

/// Puts `from` into `place`; what was there is in `from` or `aside` afterwards.
fn bring_in(from: &Path, place: &Path, aside: &Path) -> Result<()> {
    if inode(place).is_none() {
        return rename(from, place);
    }
    match renameat_with(CWD, from, CWD, place, RenameFlags::EXCHANGE) {
        Ok(()) => Ok(()),
        // NFS, and kernels and filesystems that cannot exchange: a moment with nothing there.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
            rename(place, aside)?;
            rename(from, place)
        }
        Err(errno) => Err(Error::io("put into place", place)(errno.into())),
    }
}

/// Makes room at `path`; what was there is removed when the switch is done.
fn discard(path: &Path, trash: &Path) -> Result<()> {
    remove_dir_all(trash)?;
    if path == trash {
        return Ok(());
    }
    rename(path, trash)
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).map_err(Error::io("rename", from))
}

/// Identity of a directory (or of a link that stands for it) as long as it is somewhere.
fn inode(path: &Path) -> Option<u64> {
    fs::symlink_metadata(path)
        .ok()
        .map(|metadata| metadata.ino())
}
