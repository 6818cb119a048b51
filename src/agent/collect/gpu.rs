//! GPUs as `nvidia-smi` lists them.

use super::Tools;
use crate::agent::facts::Gpu;

/// Compute capabilities for drivers whose `nvidia-smi` cannot tell them (before 510). From
/// <https://developer.nvidia.com/cuda-gpus>; the first that begins a word of the product's name counts.
const CAPABILITIES: &[(&str, &str)] = &[
    ("Ada Gen", "8.9"),
    ("RTX A", "8.6"),
    ("H100", "9.0"),
    ("H200", "9.0"),
    ("GH200", "9.0"),
    ("H800", "9.0"),
    ("H20", "9.0"),
    ("L40", "8.9"),
    ("L20", "8.9"),
    ("L4", "8.9"),
    ("RTX 40", "8.9"),
    ("A100", "8.0"),
    ("A800", "8.0"),
    ("A30", "8.0"),
    ("A10", "8.6"),
    ("A16", "8.6"),
    ("A40", "8.6"),
    ("A2", "8.6"),
    ("RTX 30", "8.6"),
    ("T4", "7.5"),
    ("RTX 20", "7.5"),
    ("Quadro RTX", "7.5"),
    ("TITAN RTX", "7.5"),
    ("V100", "7.0"),
    ("TITAN V", "7.0"),
    ("P100", "6.0"),
    ("P40", "6.1"),
    ("P4", "6.1"),
];

/// The GPUs and the driver's version; none when there is no working driver.
pub fn find(tools: &Tools) -> (Vec<Gpu>, Option<String>) {
    let query = |fields: &str| {
        let fields = format!("--query-gpu={fields}");
        tools.output(&["nvidia-smi", &fields, "--format=csv,noheader,nounits"])
    };
    query("name,memory.total,driver_version,compute_cap")
        .or_else(|| query("name,memory.total,driver_version"))
        .map(|text| parse(&text))
        .unwrap_or_default()
}

/// Reads `name, MiB, driver[, capability]` lines.
fn parse(text: &str) -> (Vec<Gpu>, Option<String>) {
    let mut driver = None;
    let mut gpus = Vec::new();
    for line in text.lines() {
        let mut fields = line.split(", ").map(str::trim);
        let (Some(name), Some(memory), Some(version)) =
            (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let Ok(memory_mib) = memory.parse() else {
            continue;
        };
        let told = fields.next().filter(|text| text.parse::<f32>().is_ok());
        driver = Some(version.to_owned());
        gpus.push(Gpu {
            name: name.to_owned(),
            memory_mib,
            compute_capability: told.unwrap_or_else(|| capability_of(name)).to_owned(),
        });
    }
    (gpus, driver)
}

/// The capability that belongs to a product name; empty when unknown.
fn capability_of(product: &str) -> &'static str {
    let begins_a_word = |name: &str| {
        product
            .match_indices(name)
            .any(|(at, _)| !product[..at].ends_with(|c: char| c.is_ascii_alphanumeric()))
    };
    CAPABILITIES
        .iter()
        .find(|(name, _)| begins_a_word(name))
        .map_or("", |(_, capability)| capability)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_new_and_old_drivers() {
        let new = "Tesla T4, 15360, 535.104.05, 7.5\nTesla T4, 15360, 535.104.05, 7.5\n";
        let old = "Tesla T4, 15109, 440.33.01\n";
        let (gpus, driver) = parse(new);
        assert_eq!((gpus.len(), driver.as_deref()), (2, Some("535.104.05")));
        assert_eq!(
            (gpus[1].memory_mib, &*gpus[1].compute_capability),
            (15360, "7.5")
        );
        let (gpus, driver) = parse(old);
        assert_eq!(driver.as_deref(), Some("440.33.01"));
        assert_eq!(gpus[0].compute_capability, "7.5");
    }

    #[test]
    fn what_is_no_gpu_line_is_skipped() {
        for text in [
            "",
            "No devices were found\n",
            "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n",
            "Tesla T4, [N/A], 535.1\n",
        ] {
            assert_eq!(parse(text), (Vec::new(), None), "{text}");
        }
    }

    #[test]
    fn capabilities_by_name() {
        for (name, expected) in [
            ("Tesla T4", "7.5"),
            ("Tesla V100-SXM2-32GB", "7.0"),
            ("NVIDIA A100-SXM4-80GB", "8.0"),
            ("NVIDIA A10", "8.6"),
            ("NVIDIA A2", "8.6"),
            ("NVIDIA L4", "8.9"),
            ("NVIDIA L40S", "8.9"),
            ("NVIDIA H100 80GB HBM3", "9.0"),
            ("NVIDIA GeForce RTX 4090", "8.9"),
            ("NVIDIA GeForce RTX 3090", "8.6"),
            ("NVIDIA RTX A6000", "8.6"),
            ("NVIDIA RTX 6000 Ada Generation", "8.9"),
            ("Tesla P40", "6.1"),
            ("Something New", ""),
        ] {
            assert_eq!(capability_of(name), expected, "{name}");
        }
    }
}
