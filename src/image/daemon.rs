//! Images from a local daemon: `docker save` (or podman's), piped.

use std::io::{BufReader, Read as _};
use std::process::{Command, Stdio};

use super::archive::{ImageWish, stream};
use super::{ImageSource, Sink};
use crate::bundle::manifest::Image;
use crate::error::{Error, Result};

/// Commands that are tried, in this order.
const COMMANDS: [&str; 2] = ["docker", "podman"];

/// An image that a local daemon has.
pub struct DaemonSource {
    command: &'static str,
    wish: ImageWish,
    size: u64,
}

impl DaemonSource {
    /// Finds the daemon that has the image.
    pub fn find(wish: ImageWish) -> Result<Self> {
        let mut reasons = Vec::new();
        for command in COMMANDS {
            match inspect_size(command, &wish.reference) {
                Ok(size) => {
                    return Ok(Self {
                        command,
                        wish,
                        size,
                    });
                }
                Err(reason) => reasons.push(format!("{command}: {reason}")),
            }
        }
        Err(Error::Failed(format!(
            "no local daemon has the image {} ({}); pull it first, or leave out --image-daemon to take it from its registry",
            wish.reference,
            reasons.join("; ")
        )))
    }
}

impl ImageSource for DaemonSource {
    fn size(&self) -> u64 {
        self.size
    }

    fn stream(&mut self, sink: &mut dyn Sink) -> Result<Image> {
        let failed = |what: String| {
            Error::Failed(format!(
                "`{} save {}` failed: {what}",
                self.command, self.wish.reference
            ))
        };
        let mut child = Command::new(self.command)
            .args(["save", &self.wish.reference])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| failed(error.to_string()))?;
        let result = match child.stdout.take() {
            Some(stdout) => stream(
                BufReader::with_capacity(1 << 20, stdout),
                None,
                &self.wish,
                sink,
            ),
            None => Err(failed("it has no output".into())),
        };
        // The pipe is closed by now, so a child that still writes ends too.
        let mut said = String::new();
        if let Some(mut stderr) = child.stderr.take() {
            // What it said only adds to an error that is reported anyway.
            let _ = stderr.read_to_string(&mut said);
        }
        let status = child.wait().map_err(|error| failed(error.to_string()))?;
        match result {
            Err(_) if !status.success() && !said.trim().is_empty() => {
                Err(failed(said.trim().to_owned()))
            }
            Ok(_) if !status.success() => Err(failed(said.trim().to_owned())),
            result => result,
        }
    }
}

/// The daemon's own idea of the image's size, or why it has none.
fn inspect_size(command: &str, reference: &str) -> std::result::Result<u64, String> {
    let output = Command::new(command)
        .args(["image", "inspect", "--format", "{{.Size}}", reference])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => "not installed".to_owned(),
            _ => error.to_string(),
        })?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
    }
    let text = String::from_utf8_lossy(&output.stdout);
    text.trim()
        .parse()
        .map_err(|_| format!("no size in {text:?}"))
}
