//! The check of `target` in the spec, before the first byte of a model is fetched.

use super::output::note;
use super::plan::describe;
use crate::bundle::cluster_spec::Executor;
use crate::bundle::manifest::ImageFacts;
use crate::cluster::plan::Subject;
use crate::cluster::plan::report::{of_target, report};
use crate::cluster::plan::subject::weights;
use crate::error::{Error, Result};
use crate::pack::plan::Plan;

/// Refuses to pack what cannot work on the target, if the spec names one; says the plan else.
pub fn check(plan: &Plan) -> Result<()> {
    let cluster = &plan.spec.cluster;
    let (Some(target), Some(model)) = (&cluster.target, plan.models.first()) else {
        return Ok(());
    };
    let refused = |error: Error| error.at(format!("target {target}"));
    let (machine, nodes) = of_target(target).map_err(refused)?;
    let files = model.source.files().iter();
    let sizes: Vec<_> = files.map(|file| (file.path.as_str(), file.size)).collect();
    let subject = Subject {
        config: model.config()?,
        weights: weights(&sizes),
        cuda: None,
        serve_args: cluster.serve_args.clone(),
    };
    // What the image can do is seen when it is packed; here it counts as able.
    let image = ImageFacts {
        ray: (cluster.executor != Executor::Mp).then(|| "not seen yet".into()),
        ..ImageFacts::default()
    };
    let report = report(cluster, &image, &subject, (&machine, &nodes)).map_err(refused)?;
    note(&format!(
        "target {target}: {}",
        describe(&report).trim_end()
    ));
    Ok(())
}
