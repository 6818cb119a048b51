//! Quoting that every login shell understands: sh, bash, csh, fish, busybox.

use crate::error::{Error, Result};

/// Quotes a word so that each shell hands it on unchanged. Only single quotes are used, with the
/// characters outside them that some shell treats specially even inside: `'` ends them
/// everywhere, `\` escapes in fish, `!` recalls history in csh.
pub fn quote(word: &str) -> Result<String> {
    if word.contains(char::is_control) {
        return Err(Error::Usage(format!(
            "{word:?} holds a control character, which no shell passes on unchanged"
        )));
    }
    let mut quoted = String::with_capacity(word.len() + 2);
    quoted.push('\'');
    for character in word.chars() {
        if matches!(character, '\'' | '\\' | '!') {
            quoted.push_str("'\\");
            quoted.push(character);
            quoted.push('\'');
        } else {
            quoted.push(character);
        }
    }
    quoted.push('\'');
    Ok(quoted)
}

/// The command that runs a POSIX `script` of one line, whatever the login shell is; with `sudo`
/// as root, never asking for a password.
pub(super) fn command_line(script: &str, sudo: bool) -> Result<String> {
    let sudo = if sudo { "sudo -n " } else { "" };
    Ok(format!("exec {sudo}/bin/sh -c {}", quote(script)?))
}

/// Quotes a word for a person's POSIX shell: plain words stay as they are, and newlines are allowed.
#[must_use]
pub fn quote_for_people(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn words_for_people_come_through_a_shell() {
        for word in ["plain-1.0", "", "a b", "it's", "two\nlines", "$HOME `x` \\"] {
            let script = format!("printf %s {}", quote_for_people(word));
            let output = std::process::Command::new("sh")
                .args(["-c", &script])
                .output()
                .unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), word);
        }
        assert_eq!(quote_for_people("plain-1.0"), "plain-1.0");
    }

    #[test]
    fn words_are_quoted() {
        let cases = [
            ("", "''"),
            ("plain", "'plain'"),
            ("a b", "'a b'"),
            ("it's", r"'it'\''s'"),
            (r"a\b", r"'a'\\'b'"),
            ("a!b", r"'a'\!'b'"),
            ("$HOME `x` \"y\" *", "'$HOME `x` \"y\" *'"),
        ];
        for (word, quoted) in cases {
            assert_eq!(quote(word).unwrap(), quoted);
        }
        assert_eq!(quote("a\nb").unwrap_err().exit_code(), 2);
    }

    #[test]
    fn the_shells_of_this_machine_pass_words_on() {
        let word = r#"it's 100% "$HOME" \n !! `x` *? ~ # & | ; < > ( ) { } [ ] ^ é \\' \!"#;
        let script = format!("printf %s {}", quote(word).unwrap());
        let line = command_line(&script, false).unwrap();
        let mut tried = 0;
        for shell in [
            ["sh"].as_slice(),
            &["bash"],
            &["tcsh"],
            &["fish"],
            &["busybox", "sh"],
        ] {
            let Ok(output) = Command::new(shell[0])
                .args(&shell[1..])
                .args(["-c", &line])
                .output()
            else {
                continue;
            };
            tried += 1;
            assert_eq!(String::from_utf8_lossy(&output.stdout), word, "{shell:?}");
        }
        assert!(tried > 0);
    }
}
