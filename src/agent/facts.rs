//! What a node says about itself: inventory for preflight and plan.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::path::AbsPath;

/// What is asked of a node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Question {
    /// The node's own address.
    pub address: IpAddr,
    /// Directories whose filesystems matter.
    pub paths: Vec<AbsPath>,
    /// TCP ports that should be free.
    pub ports: Vec<u16>,
    /// Whether containers shall run there. Their runtime, GPUs and driver are looked for only
    /// then: tools must be run for that, and they take longer than all the rest.
    pub containers: bool,
}

/// Facts about a node. Absent values could not be found out there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// `uname -n`.
    pub hostname: String,
    /// The interface that owns the node's address.
    pub interface: Option<String>,
    /// GPUs in `nvidia-smi` order.
    pub gpus: Vec<Gpu>,
    /// NVIDIA driver version.
    pub driver: Option<String>,
    /// Whether the NVIDIA container toolkit's hook is installed.
    pub toolkit: bool,
    /// The container runtime that answers.
    pub runtime: Option<Runtime>,
    /// What those said that are installed and do not answer, though they come first.
    pub runtime_complaint: Option<String>,
    /// Who has the ports that were asked for; free ones are absent.
    pub listeners: Vec<Listener>,
    /// Free space, in the order of the paths asked for; then where the runtime keeps images, and
    /// where it keeps an archive while it loads it.
    pub space: Vec<Space>,
    /// Milliseconds since 1970 on the node's clock.
    pub clock_ms: i64,
}

/// A GPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gpu {
    /// Product name, e.g. `Tesla T4`.
    pub name: String,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Compute capability, e.g. `7.5`.
    pub compute_capability: String,
}

/// A container runtime.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Runtime {
    /// Its command: `docker`, `podman` or `nerdctl`.
    pub command: String,
    /// The server's version.
    pub version: String,
}

/// A TCP port on which something listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    /// The port.
    pub port: u16,
    /// The program's name, where the agent may know it.
    pub program: Option<String>,
    /// The name of the container that the program runs in.
    pub container: Option<String>,
}

/// Free space of the filesystem that holds a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Space {
    /// The path asked for.
    pub path: AbsPath,
    /// Device number, to tell filesystems apart.
    pub device: u64,
    /// Bytes.
    pub free: u64,
}
