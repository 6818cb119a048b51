//! What is known of GPUs, drivers and quantisation methods; data in `hardware.toml`.

use serde::Deserialize;

use crate::cluster::compatibility::numbers;
use crate::error::{Error, Result};

#[derive(Deserialize)]
struct Tables {
    gpu: Vec<KnownGpu>,
    quantisation: Vec<KnownMethod>,
    driver: Vec<KnownDriver>,
}

/// A GPU that `--gpu` can name.
#[derive(Clone, Debug, Deserialize)]
pub struct KnownGpu {
    /// Short name in lower case.
    pub name: String,
    /// Memory in MiB as `nvidia-smi` reports it.
    pub memory_mib: u64,
    /// Compute capability, e.g. `7.5`.
    pub capability: String,
}

#[derive(Deserialize)]
struct KnownMethod {
    method: String,
    capability: String,
}

#[derive(Deserialize)]
struct KnownDriver {
    cuda: u32,
    driver: String,
}

fn tables() -> Result<Tables> {
    toml::from_str(include_str!("hardware.toml"))
        .map_err(|error| Error::Failed(format!("the built-in table of GPUs is broken: {error}")))
}

/// The GPU of this short name.
pub fn gpu(name: &str) -> Result<KnownGpu> {
    let known = tables()?.gpu;
    let wanted = name.to_lowercase();
    if let Some(found) = known.iter().find(|gpu| gpu.name == wanted) {
        return Ok(found.clone());
    }
    let names: Vec<&str> = known.iter().map(|gpu| gpu.name.as_str()).collect();
    Err(Error::Usage(format!(
        "no GPU {name:?} is known here; known are {}",
        names.join(", ")
    )))
}

/// Why a GPU cannot run a quantisation method, if so. Unknown methods pass.
pub fn lacks_method(method: &str, capability: &str) -> Result<Option<String>> {
    let tables = tables()?;
    let known = tables
        .quantisation
        .iter()
        .find(|known| method.starts_with(&known.method));
    Ok(known
        .filter(|known| numbers(capability) < numbers(&known.capability))
        .map(|known| {
            format!(
                "{method} weights need compute capability {}, this GPU has {capability}",
                known.capability
            )
        }))
}

/// Why a driver cannot run a CUDA version, if so. Unknown versions pass.
pub fn driver_too_old(cuda: &str, driver: &str) -> Result<Option<String>> {
    let least = least_driver(cuda)?;
    let least = least.filter(|least| numbers(driver) < numbers(least));
    Ok(least.map(|least| {
        format!(
            "the image has CUDA {cuda}, which needs driver {least} or newer; {driver} is installed"
        )
    }))
}

/// The oldest driver that runs a CUDA version, if that is known.
pub fn least_driver(cuda: &str) -> Result<Option<String>> {
    let major = numbers(cuda).first().copied();
    let mut known = tables()?.driver.into_iter();
    Ok(known
        .find(|known| Some(known.cuda) == major)
        .map(|known| known.driver))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gpus_are_found_by_short_name() {
        assert_eq!(gpu("T4").unwrap().memory_mib, 15360);
        let error = gpu("t5").unwrap_err();
        assert!(
            error.exit_code() == 2 && error.to_string().contains("h100"),
            "{error}"
        );
    }

    #[test]
    fn methods_need_their_capability() {
        for (method, capability, lacks) in [
            ("fp8", "7.5", true),
            ("fp8", "8.9", false),
            ("fp8", "10.0", false),
            ("awq", "7.5", false),
            ("awq_marlin", "7.0", true),
            ("never-heard-of", "1.0", false),
        ] {
            assert_eq!(
                lacks_method(method, capability).unwrap().is_some(),
                lacks,
                "{method} {capability}"
            );
        }
    }

    #[test]
    fn drivers_need_to_know_the_major_version() {
        assert_eq!(driver_too_old("12.4.1", "535.129.03").unwrap(), None);
        assert!(
            driver_too_old("12.4.1", "470.57.02")
                .unwrap()
                .unwrap()
                .contains("525.60.13")
        );
        assert!(driver_too_old("13.0", "535.129.03").unwrap().is_some());
    }
}
