//! The plan for real nodes: their own facts, not what the spec hopes for. `install` and `up` ask it
//! before they begin.

use super::hardware::driver_too_old;
use super::report::{Report, report};
use super::subject::{machine, of_bundle};
use crate::agent::facts::Facts;
use crate::bundle::cluster_spec::Gpus;
use crate::bundle::manifest::{ImageFacts, Manifest};
use crate::cluster::deployment::{NodeWish, gpus};
use crate::error::{Error, Result};

/// Plans a bundle's model for these nodes; refuses what cannot work there. `config` is the text of
/// the model's `config.json`, as far as it can be had. Nothing for a CPU image: no GPU memory is
/// to be planned.
pub fn of_nodes(
    manifest: &Manifest,
    config: String,
    nodes: &[(NodeWish, Facts)],
) -> Result<Option<Report>> {
    if manifest.cluster.gpus == Gpus::None {
        return Ok(None);
    }
    let image = manifest.images.first().map(|image| image.facts.clone());
    let image = image.unwrap_or_default();
    check_drivers(&image, nodes)?;
    let (gpus, facts): (Vec<_>, Vec<Facts>) = (
        gpus(manifest.cluster.gpus, nodes),
        nodes.iter().map(|(_, facts)| facts.clone()).collect(),
    );
    let least = gpus.iter().map(|node| node.count).min().unwrap_or(0);
    let machine = machine(&facts, least)?;
    let subject = of_bundle(manifest, config);
    report(&manifest.cluster, &image, &subject, (&machine, &gpus)).map(Some)
}

/// Every node whose driver is too old for the image is named: each has to be updated.
fn check_drivers(image: &ImageFacts, nodes: &[(NodeWish, Facts)]) -> Result<()> {
    let mut sentences = Vec::new();
    for (wish, facts) in nodes {
        if let (Some(cuda), Some(driver)) = (&image.cuda, &facts.driver)
            && let Some(reason) = driver_too_old(cuda, driver)?
        {
            sentences.push(format!("{}: {reason}", wish.address));
        }
    }
    if sentences.is_empty() {
        return Ok(());
    }
    sentences.push("update the driver there, or pack an older image".into());
    Err(Error::Usage(sentences.join("\n")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::facts::Gpu;
    use crate::cluster::deployment::tests::manifest;
    use crate::cluster::plan::tests::config;

    /// A node of so many T4, or other GPUs of that memory, with this driver.
    fn node(last: u8, count: usize, memory_mib: u64, driver: &str) -> (NodeWish, Facts) {
        let wish = NodeWish {
            address: [10, 0, 0, last].into(),
            gpus: None,
            interface: None,
        };
        let gpu = Gpu {
            name: "T4".into(),
            memory_mib,
            compute_capability: "7.5".into(),
        };
        let facts = Facts {
            gpus: vec![gpu; count],
            driver: Some(driver.into()),
            ..Facts::default()
        };
        (wish, facts)
    }

    fn verdict(spec: &str, model: &str, nodes: &[(NodeWish, Facts)]) -> String {
        let mut manifest = manifest(toml::from_str(spec).unwrap(), true);
        manifest.images[0].facts.cuda = Some("12.4".into());
        match of_nodes(&manifest, config(model), nodes) {
            Ok(Some(report)) => format!(
                "{}x{}",
                report.plan.cut.tensor_parallel, report.plan.cut.pipeline_parallel
            ),
            Ok(None) => "nothing to plan".into(),
            Err(error) => format!("{} {error}", error.exit_code()),
        }
    }

    #[test]
    fn what_cannot_work_on_these_nodes_is_refused() {
        const LLAMA: &str = "llama-3.1-8b";
        let four = || node(1, 4, 15360, "535.1");
        for (spec, model, nodes, expected) in [
            ("", LLAMA, vec![four(), node(2, 4, 15360, "535.1")], "4x2"),
            ("gpus = \"none\"", LLAMA, vec![four()], "nothing to plan"),
            (
                "",
                "qwen2.5-0.5b",
                vec![four()],
                "2 14 attention heads are not divisible by tensor_parallel 4; tensor_parallel = 2",
            ),
            (
                "",
                LLAMA,
                vec![node(1, 4, 512, "535.1")],
                "2 stage 1 of 1 needs",
            ),
            (
                "",
                LLAMA,
                vec![four(), node(2, 4, 15360, "470.1"), node(3, 4, 15360, "1.1")],
                "2 10.0.0.2: the image has CUDA 12.4",
            ),
            (
                "",
                LLAMA,
                vec![four(), node(2, 2, 15360, "535.1")],
                "2 10.0.0.1 has 4 GPUs, 10.0.0.2 has 2",
            ),
        ] {
            let verdict = verdict(spec, model, &nodes);
            assert!(verdict.starts_with(expected), "{expected}: {verdict}");
        }
    }
}
