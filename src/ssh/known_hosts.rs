//! Host keys and `known_hosts` files, read strictly: only a line that names the host itself,
//! plainly or hashed, proves a key. Patterns and certificate authorities prove nothing.
//! The format is that of sshd(8), "`SSH_KNOWN_HOSTS` FILE FORMAT".

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha1::Sha1;

use crate::digest::Sha256;
use crate::error::{Error, Result};
use crate::fs;

/// Signature algorithms for host keys, best first; the last only for very old servers.
const ALGORITHMS: &[&str] = &[
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "rsa-sha2-512",
    "rsa-sha2-256",
    "ssh-rsa",
];

/// A public host key in its wire form (RFC 4253, section 6.6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostKey(pub Vec<u8>);

/// What the `known_hosts` files say about a key.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is the host's.
    Known,
    /// Nothing is known about the host.
    Unknown,
    /// The host has another key; where that stands.
    Changed(Place),
    /// The key was withdrawn; where that stands.
    Revoked(Place),
}

/// A line of a file, for messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub file: PathBuf,
    /// Counted from 1.
    pub line: usize,
}

/// The usable lines of some `known_hosts` files.
#[derive(Debug, Default)]
pub struct KnownHosts {
    entries: Vec<Entry>,
    /// The first line about a certificate authority, which proves nothing here.
    authority: Option<Place>,
}

#[derive(Debug)]
struct Entry {
    revoked: bool,
    hosts: String,
    key: HostKey,
    place: Place,
}

impl HostKey {
    /// The key's type, e.g. `ssh-ed25519`.
    #[must_use]
    pub fn kind(&self) -> &str {
        let length = self.0.first_chunk().map(|bytes| u32::from_be_bytes(*bytes));
        length
            .and_then(|length| self.0.get(4..)?.get(..length as usize))
            .and_then(|kind| std::str::from_utf8(kind).ok())
            .unwrap_or("unknown")
    }

    /// As `ssh-keygen -l` shows it: `SHA256:...`.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let digest = Sha256::of(&self.0);
        format!("SHA256:{}", STANDARD_NO_PAD.encode(digest.0))
    }
}

impl KnownHosts {
    /// Reads all files that exist.
    pub fn read(files: &[PathBuf]) -> Result<Self> {
        let mut known = Self::default();
        for file in files.iter().filter(|file| file.exists()) {
            let bytes = fs::read_limited(file, 64 << 20)?;
            known.add(&String::from_utf8_lossy(&bytes), file);
        }
        Ok(known)
    }

    /// Adds the usable lines of a file's text; others are skipped, as ssh does.
    fn add(&mut self, text: &str, file: &Path) {
        for (line, content) in (1..).zip(text.lines()) {
            let place = Place {
                file: file.to_owned(),
                line,
            };
            if self.authority.is_none() && content.trim_start().starts_with("@cert-authority") {
                self.authority = Some(place.clone());
            }
            self.entries.extend(parse(content, place));
        }
    }

    /// What is known about `key` when the host called `name` shows it; see [`lookup_name`].
    #[must_use]
    pub fn check(&self, name: &str, key: &HostKey) -> Verdict {
        let same_key = |entry: &&Entry| entry.key == *key;
        // Whoever holds a withdrawn key can pose as any host.
        let revoked = self.entries.iter().filter(|entry| entry.revoked);
        if let Some(entry) = revoked.clone().find(same_key) {
            return Verdict::Revoked(entry.place.clone());
        }
        let mut of_host = self.of_host(name).peekable();
        match of_host.peek() {
            None => Verdict::Unknown,
            Some(first) => {
                let place = first.place.clone();
                match of_host.find(same_key) {
                    Some(_) => Verdict::Known,
                    None => Verdict::Changed(place),
                }
            }
        }
    }

    /// Where a certificate authority stands, whose word does not count here.
    #[must_use]
    pub fn authority(&self) -> Option<&Place> {
        self.authority.as_ref()
    }

    /// The algorithms to offer, comma-separated: those of the keys that are known of the host
    /// first, so that it shows one of them.
    #[must_use]
    pub fn algorithms(&self, name: &str) -> String {
        let kinds: Vec<&str> = self.of_host(name).map(|entry| entry.key.kind()).collect();
        let is_known = |algorithm: &&&str| kinds.contains(&key_kind(algorithm));
        let known = ALGORITHMS.iter().filter(is_known);
        let others = ALGORITHMS.iter().filter(|algorithm| !is_known(algorithm));
        known.chain(others).copied().collect::<Vec<_>>().join(",")
    }

    fn of_host(&self, name: &str) -> impl Iterator<Item = &Entry> {
        self.entries
            .iter()
            .filter(move |entry| !entry.revoked && names(&entry.hosts, name))
    }
}

/// How `known_hosts` calls a host: `[host]:port` unless the port is 22.
#[must_use]
pub fn lookup_name(host: &str, port: u16) -> String {
    let host = host.to_ascii_lowercase();
    if port == 22 {
        host
    } else {
        format!("[{host}]:{port}")
    }
}

/// Adds a host's key at the end of a file, which is created when missing.
pub fn append(file: &Path, name: &str, key: &HostKey) -> Result<()> {
    if let Some(dir) = file.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(Error::io("create directory", dir))?;
    }
    let ends_open = std::fs::read(file).is_ok_and(|old| old.last().is_some_and(|&b| b != b'\n'));
    let newline = if ends_open { "\n" } else { "" };
    let (kind, blob) = (key.kind(), STANDARD.encode(&key.0));
    File::options()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(file)
        .and_then(|mut out| out.write_all(format!("{newline}{name} {kind} {blob}\n").as_bytes()))
        .map_err(Error::io("write", file))
}

/// `[@MARKER] HOSTS KIND BASE64 [COMMENT]`; nothing for comments, authorities and broken lines.
fn parse(line: &str, place: Place) -> Option<Entry> {
    let mut words = line.split_ascii_whitespace().peekable();
    let marker = words.next_if(|word| word.starts_with('@'));
    let revoked = match marker {
        None => false,
        Some("@revoked") => true,
        Some(_) => return None,
    };
    let hosts = words.next()?;
    let (kind, blob) = (words.next()?, words.next()?);
    let key = HostKey(STANDARD.decode(blob).ok()?);
    (!hosts.starts_with('#') && key.kind() == kind).then(|| Entry {
        revoked,
        hosts: hosts.to_owned(),
        key,
        place,
    })
}

/// Whether the host field of a line means this host, and only by its full name.
fn names(hosts: &str, name: &str) -> bool {
    if let Some(hashed) = hosts.strip_prefix("|1|") {
        return hash_matches(hashed, name).unwrap_or(false);
    }
    // An exception may be a pattern that excludes this host.
    !hosts.contains('!')
        && hosts
            .split(',')
            .any(|host| host.eq_ignore_ascii_case(name) && !host.contains(['*', '?']))
}

/// `SALT|HASH`, both base64: the hash is HMAC-SHA1 of the name with the salt as key.
fn hash_matches(hashed: &str, name: &str) -> Option<bool> {
    let (salt, hash) = hashed.split_once('|')?;
    let mut mac = Hmac::<Sha1>::new_from_slice(&STANDARD.decode(salt).ok()?).ok()?;
    mac.update(name.as_bytes());
    Some(mac.verify_slice(&STANDARD.decode(hash).ok()?).is_ok())
}

/// The type of the key that a signature algorithm uses (RFC 8332).
fn key_kind(algorithm: &str) -> &str {
    match algorithm {
        "rsa-sha2-512" | "rsa-sha2-256" => "ssh-rsa",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ED: &str = "AAAAC3NzaC1lZDI1NTE5AAAAIGJ6HyJ3ThIhmMlqqfFZ0iG9xHvbKfLGTC4yGiM3AbCd";
    const OTHER: &str = "AAAAC3NzaC1lZDI1NTE5AAAAIGJ6HyJ3ThIhmMlqqfFZ0iG9xHvbKfLGTC4yGiM3AbCe";
    // Made by `ssh-keygen -H` from "10.0.0.11".
    const HASHED: &str = "|1|oGXBZzLyirxU/TL2vXsS1GelSrk=|tNNfSj3Z7Jo5Lr9vWbNyVgUDpcg=";

    fn key(text: &str) -> HostKey {
        HostKey(STANDARD.decode(text).unwrap())
    }

    fn place(line: usize) -> Place {
        Place {
            file: "kh".into(),
            line,
        }
    }

    fn check(text: &str, name: &str) -> Verdict {
        let mut known = KnownHosts::default();
        known.add(text, Path::new("kh"));
        known.check(name, &key(ED))
    }

    #[test]
    fn only_the_hosts_own_line_proves_a_key() {
        let cases = [
            ("", Verdict::Unknown),
            ("10.0.0.11 ssh-ed25519 ED", Verdict::Known),
            ("gpu1,10.0.0.11 ssh-ed25519 ED comment", Verdict::Known),
            ("  10.0.0.11\tssh-ed25519  ED", Verdict::Known),
            ("|1|HASHED ssh-ed25519 ED", Verdict::Known),
            ("|1|HASHED ssh-ed25519 OTHER", Verdict::Changed(place(1))),
            ("|1|x|y ssh-ed25519 ED", Verdict::Unknown),
            (
                "10.0.0.11 ssh-ed25519 OTHER\n10.0.0.11 ssh-ed25519 ED",
                Verdict::Known,
            ),
            ("\n10.0.0.11 ssh-ed25519 OTHER", Verdict::Changed(place(2))),
            ("[10.0.0.11]:2222 ssh-ed25519 ED", Verdict::Unknown),
            ("10.0.0.* ssh-ed25519 ED", Verdict::Unknown),
            ("* ssh-ed25519 ED", Verdict::Unknown),
            ("10.0.0.11,!10.* ssh-ed25519 ED", Verdict::Unknown),
            ("@cert-authority 10.0.0.11 ssh-ed25519 ED", Verdict::Unknown),
            ("@strange 10.0.0.11 ssh-ed25519 ED", Verdict::Unknown),
            ("#10.0.0.11 ssh-ed25519 ED", Verdict::Unknown),
            ("10.0.0.11 ssh-rsa ED", Verdict::Unknown),
            ("10.0.0.11 ssh-ed25519 ED=", Verdict::Unknown),
            ("10.0.0.11 ssh-ed25519", Verdict::Unknown),
            (
                "10.0.0.11 ssh-ed25519 ED\n@revoked 10.0.0.11 ssh-ed25519 ED",
                Verdict::Revoked(place(2)),
            ),
            ("@revoked * ssh-ed25519 ED", Verdict::Revoked(place(1))),
            (
                "@revoked 10.0.0.11 ssh-ed25519 OTHER\n10.0.0.11 ssh-ed25519 ED",
                Verdict::Known,
            ),
        ];
        for (text, verdict) in cases {
            let text = text
                .replace("|1|HASHED", HASHED)
                .replace("OTHER", OTHER)
                .replace("ED", ED);
            assert_eq!(check(&text, "10.0.0.11"), verdict, "{text}");
        }
    }

    #[test]
    fn other_ports_have_names_of_their_own() {
        let line = format!("[node]:2222 ssh-ed25519 {ED}");
        assert_eq!(check(&line, &lookup_name("Node", 2222)), Verdict::Known);
        assert_eq!(check(&line, &lookup_name("node", 22)), Verdict::Unknown);
    }

    #[test]
    fn known_kinds_are_offered_first() {
        let rsa = STANDARD.encode(b"\0\0\0\x07ssh-rsa\0\0\0\x01\x03");
        let mut known = KnownHosts::default();
        known.add(&format!("a ssh-rsa {rsa}"), Path::new("kh"));
        assert!(
            known
                .algorithms("a")
                .starts_with("rsa-sha2-512,rsa-sha2-256,ssh-rsa,ssh-ed25519")
        );
        assert!(known.algorithms("b").starts_with("ssh-ed25519,"));
        assert_eq!(known.algorithms("a").split(',').count(), ALGORITHMS.len());
    }

    #[test]
    fn an_added_key_is_known_and_other_lines_stay() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("new/known_hosts");
        append(&file, "a", &key(ED)).unwrap();
        std::fs::write(&file, std::fs::read_to_string(&file).unwrap().trim_end()).unwrap();
        append(&file, "[b]:7", &key(OTHER)).unwrap();
        let known = KnownHosts::read(&[file, dir.path().join("missing")]).unwrap();
        assert_eq!(known.check("a", &key(ED)), Verdict::Known);
        assert_eq!(known.check("[b]:7", &key(OTHER)), Verdict::Known);
        assert_eq!(known.entries.len(), 2);
    }

    #[test]
    fn kind_and_fingerprint_are_those_of_ssh_keygen() {
        assert_eq!(key(ED).kind(), "ssh-ed25519");
        assert_eq!(
            key(ED).fingerprint(),
            "SHA256:sMCqHbgjCLN1odHEbetzwQfpIIlPrcwfQUrJ/E/ImEg"
        );
        assert_eq!(HostKey(vec![0, 0, 1]).kind(), "unknown");
        assert_eq!(HostKey(vec![0, 0, 0, 9, 65]).kind(), "unknown");
    }
}
