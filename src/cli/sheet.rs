//! The sheet that a security officer signs: all that a bundle holds, on one page of HTML that
//! needs nothing else.

use std::fmt::Write as _;

use super::inspect::files_with_code;
use super::output::size;
use crate::bundle::manifest::{Extra, FileEntry, Image, Manifest, Model};
use crate::digest::Sha256;
use crate::path::RelPath;

const STYLE: &str = "\
body{font:14px/1.4 sans-serif;margin:2em auto;max-width:75em;color:#111}\
h1{font-size:1.6em}h2{font-size:1.2em;margin-top:2em;border-bottom:1px solid #999}\
table{border-collapse:collapse;width:100%}\
td,th{text-align:left;padding:.15em .8em .15em 0;vertical-align:top;border-bottom:1px solid #ddd}\
.n{text-align:right;white-space:nowrap}code{font:12px monospace;word-break:break-all}\
.sign td{height:3em;border:1px solid #999;padding:.3em}\
@media print{body{margin:0}details{display:block}}";

/// What the sheet tells besides the manifest.
pub struct Provenance {
    /// SHA-256 of `bundle.json`: it stands for the whole bundle.
    pub manifest: Sha256,
    /// Licence of each model, as far as its files tell, in the order of the models.
    pub licences: Vec<Option<String>>,
    /// Who signed it.
    pub signer: Option<String>,
}

/// The whole page.
pub fn render(manifest: &Manifest, provenance: &Provenance) -> String {
    let name = escape(manifest.name.as_str());
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>{name}</title>\n\
         <style>{STYLE}</style>\n<h1>Bundle {name}</h1>\n"
    );
    page += &summary(manifest, provenance);
    for (index, model) in manifest.models.iter().enumerate() {
        let licence = provenance.licences.get(index).and_then(Option::as_deref);
        page += &describe_model(model, licence);
    }
    for image in &manifest.images {
        page += &describe_image(image);
    }
    for extra in &manifest.extras {
        page += &describe_extra(extra);
    }
    page += &volumes(manifest);
    page + SIGNATURES + "</html>\n"
}

const SIGNATURES: &str = "<h2>Released for import</h2>\n<table class=\"sign\">\
<tr><td>Name</td><td>Date</td><td>Signature</td></tr>\
<tr><td>Name</td><td>Date</td><td>Signature</td></tr></table>\n";

fn summary(manifest: &Manifest, provenance: &Provenance) -> String {
    let base = manifest.base.as_ref().map_or_else(
        || "nothing".to_owned(),
        |base| {
            let name = escape(&base.to_string());
            format!("{name}, bundle.json {}", code(&base.sha256.to_string()))
        },
    );
    let rows = [
        (
            "Identity (SHA-256 of bundle.json)",
            code(&provenance.manifest.to_string()),
        ),
        (
            "Signed by",
            escape(provenance.signer.as_deref().unwrap_or("nobody")),
        ),
        ("Serial", manifest.serial.to_string()),
        ("Builds on", base),
        ("Unpacked", size(manifest.raw_size())),
        ("In volumes", size(manifest.stored_size())),
    ];
    facts(&rows)
}

fn describe_model(model: &Model, licence: Option<&str>) -> String {
    let commit = match &model.commit {
        Some(commit) => code(commit),
        None => "a local directory".to_owned(),
    };
    let rows = [
        ("Revision", escape(&model.revision)),
        ("Commit", commit),
        (
            "Licence",
            escape(licence.unwrap_or("not stated in its files")),
        ),
        ("Installed at", code(model.path.as_str())),
        ("Can run code", codes(files_with_code(model))),
    ];
    format!(
        "<h2>Model {}</h2>\n{}{}",
        escape(&model.repo),
        facts(&rows),
        files(&model.files)
    )
}

fn describe_image(image: &Image) -> String {
    let known = |found: &Option<String>| escape(found.as_deref().unwrap_or("not found"));
    let rows = [
        ("Image id", code(&format!("sha256:{}", image.config))),
        (
            "Registry digest",
            image
                .registry_digest
                .as_deref()
                .map_or_else(|| "not from a registry".to_owned(), code),
        ),
        ("Platform", escape(&image.platform)),
        ("vLLM", known(&image.facts.vllm)),
        ("Ray", known(&image.facts.ray)),
        ("CUDA", known(&image.facts.cuda)),
    ];
    format!(
        "<h2>Container image {}</h2>\n{}{}",
        escape(&image.reference),
        facts(&rows),
        files(&image.files)
    )
}

fn describe_extra(extra: &Extra) -> String {
    let executable = extra.executable.iter().map(RelPath::as_str);
    let rows = [
        ("Installed at", code(extra.path.as_str())),
        ("Executable", codes(executable.collect())),
    ];
    format!(
        "<h2>Files {}</h2>\n{}{}",
        escape(extra.path.as_str()),
        facts(&rows),
        files(&extra.files)
    )
}

fn volumes(manifest: &Manifest) -> String {
    let mut text = String::from(
        "<h2>Volumes</h2>\n<table><tr><th>File</th><th class=\"n\">Bytes</th><th>SHA-256</th></tr>\n",
    );
    for volume in manifest.volumes.iter().chain(manifest.recovery_volumes()) {
        text += &file_row(&volume.name, volume.size, volume.sha256);
    }
    text + "</table>\n"
}

fn files(files: &[FileEntry]) -> String {
    let bytes = files.iter().map(|file| file.size).sum();
    let mut text = format!(
        "<details open><summary>{} files, {}</summary>\n<table>\
         <tr><th>File</th><th class=\"n\">Bytes</th><th>SHA-256</th></tr>\n",
        files.len(),
        size(bytes)
    );
    for file in files {
        text += &file_row(file.path.as_str(), file.size, file.sha256);
    }
    text + "</table></details>\n"
}

fn file_row(name: &str, bytes: u64, sha256: Sha256) -> String {
    format!(
        "<tr><td>{}</td><td class=\"n\">{bytes}</td><td>{}</td></tr>\n",
        escape(name),
        code(&sha256.to_string())
    )
}

/// A table of names and values; the values are HTML already.
fn facts(rows: &[(&str, String)]) -> String {
    let mut text = String::from("<table>\n");
    for (name, value) in rows {
        let _ = writeln!(text, "<tr><th>{name}</th><td>{value}</td></tr>");
    }
    text + "</table>\n"
}

fn code(text: &str) -> String {
    format!("<code>{}</code>", escape(text))
}

/// All of these names.
fn codes(names: Vec<&str>) -> String {
    if names.is_empty() {
        return "none".to_owned();
    }
    let names: Vec<String> = names.into_iter().map(code).collect();
    names.join(", ")
}

/// Text as HTML: names come from strangers.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
