//! Takes secrets out of texts that leave the site.

use std::sync::LazyLock;

use regex::{Captures, Regex};

/// Stands where a secret was.
const REMOVED: &str = "[removed]";

/// Shorter values are words of any text, and no secrets worth the name.
const SHORTEST: usize = 6;

/// What makes a variable, option or field a secret by its name; counted tokens are none.
const NAMES: &str = r"(?:token|secret|passw(?:or)?d|passphrase|api[_-]?key|access[_-]?key|private[_-]?key|credential|authorization|cookie)(?:[_.-]|\b)";

/// `NAME=VALUE`, `"NAME": "VALUE"`, `--name VALUE`, `"--name", "VALUE"`; group 1 stays, 2 goes.
static NAMED: LazyLock<Option<Regex>> = LazyLock::new(|| {
    // What went by its form before stays whole.
    let value = r#"(\[removed\]|"(?:[^"\\]|\\.)*"|'[^']*'|[^\s"',;}\]]+)"#;
    let name = format!(r#"[\w.-]*{NAMES}[\w.-]*["']?"#);
    let pattern = format!(r"(?i)((?:{name}\s*[=:]\s*)|(?:--{name}[,\s]\s*)){value}");
    Regex::new(&pattern).ok()
});

/// Secrets that show by their form: tokens of well-known services, JSON web tokens, passwords in
/// addresses, private keys.
static FORMS: LazyLock<Option<Regex>> = LazyLock::new(|| {
    let forms = [
        r"\b(?:hf_|ghp_|gho_|github_pat_|glpat-|sk-|xox[abp]-|AKIA)[A-Za-z0-9_-]{8,}",
        r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*",
        r"(?i)\b(?:bearer|basic) [A-Za-z0-9+/_.=~-]{8,}",
        r"(?s)-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\z)",
    ];
    Regex::new(&forms.join("|")).ok()
});

/// `//USER:PASSWORD@`.
static ADDRESS: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"(://[^/\s:@]*:)[^/\s@]+@").ok());

/// Whether a name is that of a secret.
#[must_use]
pub fn is_secret(name: &str) -> bool {
    static NAME: LazyLock<Option<Regex>> =
        LazyLock::new(|| Regex::new(&format!("(?i){NAMES}")).ok());
    NAME.as_ref().is_none_or(|pattern| pattern.is_match(name))
}

/// Removes secrets from texts.
#[derive(Default)]
pub struct Redactor {
    values: Vec<String>,
}

impl Redactor {
    /// Adds the value of a variable, when its name is that of a secret: it goes wherever it stands.
    pub fn learn(&mut self, name: &str, value: &str) {
        if is_secret(name) && value.len() >= SHORTEST {
            self.values.push(value.to_owned());
            // The longest first: one may be a part of another.
            self.values
                .sort_by_key(|value| std::cmp::Reverse(value.len()));
        }
    }

    /// The text without what is a secret by name, form or value. Without the patterns, nothing of
    /// it is left.
    #[must_use]
    pub fn clean(&self, text: &str) -> String {
        let (Some(named), Some(forms), Some(address)) = (&*NAMED, &*FORMS, &*ADDRESS) else {
            return REMOVED.to_owned();
        };
        let mut text = text.to_owned();
        for value in &self.values {
            text = text.replace(value, REMOVED);
        }
        let text = forms.replace_all(&text, REMOVED);
        let text =
            address.replace_all(&text, |found: &Captures| format!("{}{REMOVED}@", &found[1]));
        let quoted = |found: &Captures| {
            let quote = found[2]
                .chars()
                .next()
                .filter(|first| "\"'".contains(*first));
            let quote = quote.map_or_else(String::new, String::from);
            format!("{}{quote}{REMOVED}{quote}", &found[1])
        };
        named.replace_all(&text, quoted).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_go_by_their_names_and_forms() {
        let cases = [
            ("HF_TOKEN=abc123 X=1", "HF_TOKEN=[removed] X=1"),
            (
                r#""Env": ["DB_PASSWORD=hunter2hunter2","PATH=/bin"]"#,
                r#""Env": ["DB_PASSWORD=[removed]","PATH=/bin"]"#,
            ),
            (
                r#"{"api_key": "very secret", "a": 1}"#,
                r#"{"api_key": "[removed]", "a": 1}"#,
            ),
            (
                "vllm serve /m --api-key topsecret --port 8000",
                "vllm serve /m --api-key [removed] --port 8000",
            ),
            (
                r#"["--api-key","topsecret","--port"]"#,
                r#"["--api-key","[removed]","--port"]"#,
            ),
            (
                "Authorization: Bearer abc.def.ghi",
                "Authorization: [removed]",
            ),
            (
                "Token authentication is disabled",
                "Token authentication is disabled",
            ),
            ("got hf_AbCdEfGhIjKl here", "got [removed] here"),
            (
                "proxy http://me:s3cret@10.0.0.1:3128/",
                "proxy http://me:[removed]@10.0.0.1:3128/",
            ),
            (
                "x\n-----BEGIN OPENSSH PRIVATE KEY-----\nabc\n-----END OPENSSH PRIVATE KEY-----\ny",
                "x\n[removed]\ny",
            ),
            (
                "INFO generation throughput: 12.5 tokens/s, --max-num-batched-tokens 2048",
                "INFO generation throughput: 12.5 tokens/s, --max-num-batched-tokens 2048",
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(Redactor::default().clean(text), expected);
        }
    }

    #[test]
    fn a_value_that_is_known_goes_wherever_it_stands() {
        let mut redactor = Redactor::default();
        redactor.learn("MY_SECRET", "correct horse");
        redactor.learn("MY_SECRET_2", "correct horse battery");
        redactor.learn("PORT", "8000-8000");
        redactor.learn("PASSWORD", "abc");
        let clean = redactor.clean("said correct horse battery on 8000-8000, abc");
        assert_eq!(clean, "said [removed] on 8000-8000, abc");
    }
}
