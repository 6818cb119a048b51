//! The operator's access token: where it is found, and that it is never shown.

use std::ffi::OsString;
use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::source::Source;
use crate::error::{Error, Result};
use crate::fs::read_limited;

/// No token is longer, by far.
const MAX_TOKEN_FILE: u64 = 16 << 10;

/// An access token; neither `Debug` nor any error shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

impl Token {
    /// The token of `--token-file`, or of the source's variable (`HF_TOKEN`,
    /// `MODELSCOPE_API_TOKEN`), or where the `hf` tool keeps it: the file `HF_TOKEN_PATH`,
    /// `$HF_HOME/token`, `~/.cache/huggingface/token`. No hub ever gets the token of another.
    pub fn find(source: Source, token_file: Option<&Path>) -> Result<Option<Self>> {
        Self::find_in(source, token_file, |name| std::env::var_os(name))
    }

    fn find_in(
        source: Source,
        token_file: Option<&Path>,
        env: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Option<Self>> {
        if let Some(path) = token_file {
            return Self::read(path)?
                .map(Some)
                .ok_or_else(|| Error::Usage(format!("token file {} is empty", path.display())));
        }
        let variable = source.token_variable();
        if let Some(text) = env(variable).filter(|text| !text.is_empty()) {
            return Self::parse(&text.to_string_lossy(), variable);
        }
        if source != Source::HuggingFace {
            return Ok(None);
        }
        let Some(path) = usual_file(env).filter(|path| path.exists()) else {
            return Ok(None);
        };
        match Self::read(&path) {
            Err(Error::Io { cause, .. }) if cause.kind() == ErrorKind::PermissionDenied => Ok(None),
            other => other,
        }
    }

    fn read(path: &Path) -> Result<Option<Self>> {
        let bytes = read_limited(path, MAX_TOKEN_FILE)?;
        Self::parse(
            &String::from_utf8_lossy(&bytes),
            &path.display().to_string(),
        )
    }

    fn parse(text: &str, place: &str) -> Result<Option<Self>> {
        let text = text.trim();
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Error::Usage(format!(
                "{place} does not hold a token: a token is one word of ASCII"
            )));
        }
        Ok((!text.is_empty()).then(|| Self(text.to_owned())))
    }

    /// For the `Authorization` header.
    pub(super) fn secret(&self) -> &str {
        &self.0
    }
}

fn usual_file(env: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    if let Some(path) = env("HF_TOKEN_PATH") {
        return Some(path.into());
    }
    let home = env("HF_HOME").map(PathBuf::from).or_else(|| {
        let cache = env("XDG_CACHE_HOME").map(PathBuf::from);
        let cache = cache.or_else(|| Some(PathBuf::from(env("HOME")?).join(".cache")));
        Some(cache?.join("huggingface"))
    })?;
    Some(home.join("token"))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn found(source: Source, file: Option<&Path>, vars: &[(&str, &Path)]) -> Option<String> {
        let env = |name: &str| {
            let (_, value) = vars.iter().find(|(key, _)| *key == name)?;
            Some(value.as_os_str().to_owned())
        };
        Token::find_in(source, file, env)
            .unwrap()
            .map(|token| token.0)
    }

    #[test]
    fn the_nearest_place_wins() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path();
        let file = home.join("given");
        fs::write(&file, "hf_given\n").unwrap();
        let hf_home = home.join("hf_home");
        for cache in [home.join(".cache/huggingface"), hf_home.clone()] {
            fs::create_dir_all(&cache).unwrap();
            let name = cache.file_name().unwrap().to_string_lossy().into_owned();
            fs::write(cache.join("token"), name).unwrap();
        }
        let word = Path::new("hf_word");
        let home_var = ("HOME", home);
        let cases = [
            (
                Some(&*file),
                vec![("HF_TOKEN", word), home_var],
                Some("hf_given"),
            ),
            (None, vec![("HF_TOKEN", word), home_var], Some("hf_word")),
            (
                None,
                vec![("HF_TOKEN_PATH", &*file), home_var],
                Some("hf_given"),
            ),
            (
                None,
                vec![("HF_HOME", &*hf_home), home_var],
                Some("hf_home"),
            ),
            (None, vec![home_var], Some("huggingface")),
            (None, vec![("HOME", word)], None),
            (None, vec![], None),
        ];
        for (file, vars, expected) in cases {
            assert_eq!(
                found(Source::HuggingFace, file, &vars).as_deref(),
                expected,
                "{vars:?}"
            );
        }
    }

    #[test]
    fn no_hub_gets_the_token_of_another() {
        let token = |source, name| found(source, None, &[(name, Path::new("secret"))]);
        assert_eq!(token(Source::ModelScope, "HF_TOKEN"), None);
        assert_eq!(token(Source::HuggingFace, "MODELSCOPE_API_TOKEN"), None);
        let own = token(Source::ModelScope, "MODELSCOPE_API_TOKEN");
        assert_eq!(own.as_deref(), Some("secret"));
    }

    #[test]
    fn what_is_no_token_is_refused_and_never_shown() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        for text in ["", "two words", "ümlaut"] {
            fs::write(&path, text).unwrap();
            let error = Token::find_in(Source::HuggingFace, Some(&path), |_| None).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{text}");
            assert!(text.is_empty() || !error.to_string().contains(text));
        }
        let token = Token("hf_secret".into());
        assert!(!format!("{token:?}").contains("secret"));
    }
}
