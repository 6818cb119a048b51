//! The `config.json` of a bundle's model: from its media, or from a node that has it already.

use crate::agent::fleet::Member;
use crate::agent::protocol::{Answer, Request};
use crate::bundle::manifest::{FileEntry, Manifest};
use crate::bundle::media::Media;
use crate::bundle::small_file;
use crate::digest::Sha256;
use crate::error::Result;

/// Seconds that a node may take to read it.
const PATIENCE: u64 = 10;

/// Its text. Empty when the model has none, or when neither these media nor a node have it: of
/// several media the one that holds it may come later.
pub fn read(manifest: &Manifest, media: Option<&Media>, members: &[Member]) -> Result<String> {
    let Some((model, file)) = manifest.models.first().and_then(|model| {
        let is_config = |file: &&FileEntry| file.path.as_str() == "config.json";
        Some((model, model.files.iter().find(is_config)?))
    }) else {
        return Ok(String::new());
    };
    if let Some(media) = media
        && file.chunks.iter().all(|&chunk| media.has_chunk(chunk))
    {
        return Ok(String::from_utf8_lossy(&small_file::read(media, file)?).into_owned());
    }
    let path = format!("{}/{}", model.path, file.path);
    let mut texts = members.iter().filter_map(|member| on_node(member, &path));
    let found = texts.find(|text| Sha256::of(text.as_bytes()) == file.sha256);
    Ok(found.unwrap_or_default())
}

fn on_node(member: &Member, path: &str) -> Option<String> {
    let request = Request::Exec {
        argv: vec!["cat".into(), path.into()],
        stdin: String::new(),
        timeout: PATIENCE,
    };
    match member.link.call(request) {
        Ok(Answer::Exited(exited)) if exited.status == 0 => Some(exited.stdout),
        _ => None,
    }
}
