//! Images for the container runtime of the node, from blobs that the store has proven.

use std::fs::File;
use std::io::{BufWriter, Read};
use std::path::PathBuf;
use std::process::ChildStdin;
use std::thread;

use super::child::Children;
use super::collect::{Tools, find_runtime};
use crate::bundle::manifest::Image;
use crate::digest::Sha256;
use crate::error::{Error, Result};
use crate::image::hybrid::{manifest_digest, write_archive};

/// Bytes kept of what the runtime says while it loads.
const MAX_REPORT: u64 = 64 << 10;

/// Loads the images that the runtime does not have under their references yet; returns how many.
/// `blob` says where a blob is.
pub fn load(
    children: &Children,
    images: &[Image],
    blob: impl Fn(Sha256) -> PathBuf,
) -> Result<u32> {
    if images.is_empty() {
        return Ok(0);
    }
    let tools = Tools(children);
    let (found, complaint) = find_runtime(&tools);
    let runtime = found.map(|found| found.runtime).ok_or_else(|| {
        let said = complaint.map_or(String::new(), |said| format!(" ({said})"));
        Error::Failed(format!(
            "no container runtime answers on this node{said}; install docker, podman or nerdctl, or start its service"
        ))
    })?;
    let mut loaded = 0;
    for image in images {
        let shelf = Shelf {
            tools: &tools,
            runtime: &runtime.command,
            image,
            ids: ids(image)?.map(|id| id.to_string()),
        };
        loaded += u32::from(shelf.ensure(children, &blob)?);
    }
    Ok(loaded)
}

/// What a runtime may call an image: its config's digest, or with the containerd image store the
/// digest of the manifest that our archive has.
pub fn ids(image: &Image) -> Result<[Sha256; 2]> {
    Ok([image.config, manifest_digest(image)?])
}

/// Whether the runtime has each of these images, under any of its ids.
#[must_use]
pub fn has(children: &Children, images: &[Vec<Sha256>]) -> Vec<bool> {
    let tools = Tools(children);
    let found = find_runtime(&tools).0;
    let is_there = |ids: &Vec<Sha256>| {
        let runtime = found.as_ref().map(|found| found.runtime.command.as_str());
        let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
        runtime.is_some_and(|runtime| known(&tools, runtime, &ids).is_some())
    };
    images.iter().map(is_there).collect()
}

/// The first of these ids under which a runtime knows an image.
fn known<'a>(tools: &Tools, runtime: &str, ids: &'a [String]) -> Option<&'a String> {
    ids.iter()
        .find(|id| id_of(tools, runtime, id).as_ref() == Some(*id))
}

fn id_of(tools: &Tools, runtime: &str, name: &str) -> Option<String> {
    let argv = [runtime, "image", "inspect", "--format", "{{.Id}}", name];
    let answer = tools.output(&argv)?;
    Some(answer.trim().trim_start_matches("sha256:").to_owned())
}

/// One image and the runtime that shall have it.
struct Shelf<'a> {
    tools: &'a Tools<'a>,
    runtime: &'a str,
    image: &'a Image,
    ids: [String; 2],
}

impl Shelf<'_> {
    /// Returns whether the image had to be loaded.
    fn ensure(&self, children: &Children, blob: &impl Fn(Sha256) -> PathBuf) -> Result<bool> {
        if self.is_tagged() || self.tag() {
            return Ok(false);
        }
        self.feed(children, blob)?;
        if self.is_tagged() || self.tag() {
            return Ok(true);
        }
        Err(Error::Failed(format!(
            "{} loaded image {}, but it does not show it under the id sha256:{}; look at `{} images --no-trunc`",
            self.runtime, self.image.reference, self.image.config, self.runtime
        )))
    }

    /// Whether the reference means this very image.
    fn is_tagged(&self) -> bool {
        id_of(self.tools, self.runtime, &self.image.reference)
            .is_some_and(|id| self.ids.contains(&id))
    }

    /// Gives the reference to an image that is there without it, e.g. after a rollback.
    fn tag(&self) -> bool {
        known(self.tools, self.runtime, &self.ids).is_some_and(|id| {
            let argv = [self.runtime, "tag", id, &self.image.reference];
            self.tools.output(&argv).is_some() && self.is_tagged()
        })
    }

    fn feed(&self, children: &Children, blob: &impl Fn(Sha256) -> PathBuf) -> Result<()> {
        let running = children.spawn(&[self.runtime.to_owned(), "load".to_owned()])?;
        let (input, stdout, stderr) = {
            let mut child = running.child();
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        };
        let (written, said) = thread::scope(|scope| {
            scope.spawn(|| read_report(stdout));
            let stderr = scope.spawn(|| read_report(stderr));
            let written = input.map_or(Ok(()), |input| self.write(input, blob));
            (written, stderr.join().unwrap_or_default())
        });
        let status = running.wait(None)?;
        if status.is_some_and(|status| status.success()) {
            return written;
        }
        Err(self.refused(said.trim()))
    }

    fn write(&self, input: ChildStdin, blob: &impl Fn(Sha256) -> PathBuf) -> Result<()> {
        let open = |file: &crate::bundle::manifest::FileEntry| {
            let path = blob(file.sha256);
            File::open(&path).map_err(Error::io("read", &path))
        };
        write_archive(self.image, open, BufWriter::with_capacity(1 << 20, input))
    }

    /// The runtime's own words; a full disk has its own exit code.
    fn refused(&self, said: &str) -> Error {
        let message = format!(
            "{} did not load image {}: {said}",
            self.runtime, self.image.reference
        );
        if said.contains("no space left") {
            Error::NoSpace(format!(
                "{message}; free space on its filesystem and run the same command again"
            ))
        } else {
            Error::Failed(message)
        }
    }
}

/// Reads to the end and keeps the beginning.
fn read_report(stream: Option<impl Read>) -> String {
    let mut kept = Vec::new();
    if let Some(mut stream) = stream {
        // What cannot be read cannot be reported; the exit status decides.
        let _ = stream.by_ref().take(MAX_REPORT).read_to_end(&mut kept);
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
    }
    String::from_utf8_lossy(&kept).into_owned()
}
