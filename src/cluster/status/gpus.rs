//! How full the GPUs of a node are.

use serde::Serialize;

use super::run;
use crate::agent::fleet::Member;

/// How full a GPU is, in MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct GpuMemory {
    /// By all processes.
    pub used_mib: u64,
    /// All there is.
    pub total_mib: u64,
}

/// Of all GPUs; empty where `nvidia-smi` cannot say.
pub(super) fn memory(member: &Member) -> Vec<GpuMemory> {
    let query = [
        "nvidia-smi",
        "--query-gpu=memory.used,memory.total",
        "--format=csv,noheader,nounits",
    ];
    let exited = run(member, &query).ok().filter(|exited| exited.status == 0);
    exited.map_or_else(Vec::new, |exited| parse(&exited.stdout))
}

/// Reads `used, total` lines.
fn parse(text: &str) -> Vec<GpuMemory> {
    let memory = |line: &str| {
        let (used, total) = line.split_once(',')?;
        Some(GpuMemory {
            used_mib: used.trim().parse().ok()?,
            total_mib: total.trim().parse().ok()?,
        })
    };
    text.lines().filter_map(memory).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_and_broken_gpus_are_left_out() {
        let memory = |used_mib| GpuMemory {
            used_mib,
            total_mib: 15360,
        };
        let text = "13012, 15360\n[GPU is lost], 15360\n3, 15360\n";
        assert_eq!(parse(text), [memory(13012), memory(3)]);
    }
}
