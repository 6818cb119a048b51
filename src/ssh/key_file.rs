//! Private key files: enough of their formats to know whether a passphrase is needed.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::error::{Error, Result};
use crate::fs;

/// Begins the content of an OpenSSH private key; see PROTOCOL.key of OpenSSH.
const OPENSSH_MAGIC: &[u8] = b"openssh-key-v1\0";

/// A private key as it lies in its file.
pub(super) struct KeyFile {
    pub text: String,
    /// A passphrase is needed.
    pub encrypted: bool,
}

impl KeyFile {
    /// Reads a file that must be a private key.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = fs::read_limited(path, 1 << 20)?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        match is_encrypted(&text) {
            Some(encrypted) => Ok(Self { text, encrypted }),
            None => Err(Error::Usage(format!(
                "{} is no private key in OpenSSH or PEM format",
                path.display()
            ))),
        }
    }
}

/// The key blob of a public key file, `KIND BASE64 COMMENT`.
pub(super) fn public_blob(path: &Path) -> Option<Vec<u8>> {
    let text = String::from_utf8(fs::read_limited(path, 1 << 20).ok()?).ok()?;
    STANDARD.decode(text.split_ascii_whitespace().nth(1)?).ok()
}

/// Nothing for what is no private key.
fn is_encrypted(text: &str) -> Option<bool> {
    let mut lines = text.lines().map(str::trim);
    let kind = lines
        .find_map(|line| line.strip_prefix("-----BEGIN "))?
        .strip_suffix("PRIVATE KEY-----")?;
    if kind != "OPENSSH " {
        return Some(kind == "ENCRYPTED " || text.contains("Proc-Type: 4,ENCRYPTED"));
    }
    let body: String = lines.take_while(|line| !line.starts_with('-')).collect();
    let body = STANDARD.decode(body).ok()?;
    let (length, rest) = body.strip_prefix(OPENSSH_MAGIC)?.split_first_chunk()?;
    let cipher = rest.get(..u32::from_be_bytes(*length) as usize)?;
    Some(cipher != b"none")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn openssh(cipher: &str) -> String {
        let length = u8::try_from(cipher.len()).unwrap();
        let mut body = OPENSSH_MAGIC.to_vec();
        body.extend([0, 0, 0, length]);
        body.extend(cipher.as_bytes());
        body.extend([0; 70]);
        let body = STANDARD.encode(body);
        let (one, two) = body.split_at(70);
        format!(
            "-----BEGIN OPENSSH PRIVATE KEY-----\n{one}\n{two}\n-----END OPENSSH PRIVATE KEY-----\n"
        )
    }

    #[test]
    fn encryption_is_seen_in_every_format() {
        let cases = [
            (openssh("none"), Some(false)),
            (openssh("aes256-ctr"), Some(true)),
            ("-----BEGIN RSA PRIVATE KEY-----\nMIIE".into(), Some(false)),
            (
                "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: x\n".into(),
                Some(true),
            ),
            ("-----BEGIN PRIVATE KEY-----\nMIIE".into(), Some(false)),
            (
                "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIE".into(),
                Some(true),
            ),
            ("-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n".into(), None),
            ("-----BEGIN CERTIFICATE-----\nMIIE".into(), None),
            ("ssh-ed25519 AAAA".into(), None),
            (String::new(), None),
        ];
        for (text, encrypted) in cases {
            assert_eq!(is_encrypted(&text), encrypted, "{text}");
        }
    }
}
