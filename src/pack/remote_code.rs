//! Python files that come with a model. vLLM runs them with `--trust-remote-code` only, and needs
//! them for an architecture that it does not know itself.

use std::collections::BTreeSet;

use serde_json::Value;

use super::plan::Plan;
use crate::error::{Result, names_of};

/// What the operator should know about the code of the models; reads each `config.json`.
pub fn remarks(plan: &Plan) -> Result<Vec<String>> {
    let mut remarks = Vec::new();
    for (spec, model) in plan.spec.models.iter().zip(&plan.models) {
        let files = model.source.files().iter();
        let paths: Vec<&str> = files.map(|file| file.path.as_str()).collect();
        let found = remark(&model.config()?, &paths);
        remarks.extend(found.map(|found| format!("model {}: {found}", spec.repo)));
    }
    Ok(remarks)
}

/// What the operator should know when `config.json` names code (`auto_map`) that does not travel.
/// `paths` are the files that do.
fn remark(config: &str, paths: &[&str]) -> Option<String> {
    let config: Value = serde_json::from_str(config).ok()?;
    let named = config.get("auto_map")?.as_object()?.values();
    // `module.Class`, or `owner/name--module.Class` for code of another repository.
    let named = named.filter_map(|value| value.as_str()?.rsplit_once('.'));
    let modules: Vec<&str> = named.map(|(module, _)| module).collect();
    if let Some((repo, _)) = modules.iter().find_map(|module| module.split_once("--")) {
        return Some(format!(
            "config.json wants code of another repository, {repo}, which does not travel: the model works \
             only where vLLM knows it without that"
        ));
    }
    let files = modules.iter().map(|module| format!("{module}.py"));
    let lacking: BTreeSet<String> = files
        .filter(|file| !paths.contains(&file.as_str()))
        .collect();
    let lacking: Vec<&str> = lacking.iter().map(String::as_str).collect();
    (!lacking.is_empty()).then(|| {
        format!(
            "config.json names {}, which does not travel: if the image's vLLM does not know this model itself, put \
             \"--trust-remote-code\" into serve_args, and the code travels",
            names_of(&lacking)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_that_is_named_and_stays_behind_is_told() {
        let config = r#"{"auto_map": {"AutoConfig": "configuration_x.XConfig",
            "AutoModel": "modeling_x.XModel", "AutoModelForCausalLM": "modeling_x.XForCausalLM"}}"#;
        let foreign = r#"{"auto_map": {"AutoConfig": "o/code--configuration_x.XConfig"}}"#;
        let both = ["configuration_x.py", "modeling_x.py"];
        // config.json, files that travel, a word of the remark
        let cases: [(&str, &[&str], Option<&str>); 6] = [
            (
                config,
                &[],
                Some("names configuration_x.py, modeling_x.py,"),
            ),
            (config, &both[..1], Some("names modeling_x.py,")),
            (config, &both, None),
            (foreign, &both, Some("another repository, o/code,")),
            ("{}", &[], None),
            ("", &[], None),
        ];
        for (config, paths, expected) in cases {
            let found = remark(config, paths);
            assert_eq!(found.is_some(), expected.is_some(), "{found:?}");
            let found = found.unwrap_or_default();
            assert!(found.contains(expected.unwrap_or_default()), "{found}");
        }
    }
}
