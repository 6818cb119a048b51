//! Signatures over the exact bytes of `bundle.json`, in the format of minisign: the real tool
//! makes and verifies them too. The manifest names every volume by its hash, so it stands for all.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use minisign::{KeyPair, PublicKey, PublicKeyBox, SecretKey, SecretKeyBox, SignatureBox};

use super::SIGNATURE_NAME;
use super::media::Media;
use crate::error::{Error, Result};
use crate::fs::{read_limited, write_atomic};

/// Keys and signatures are a few hundred bytes.
const MAX_FILE: u64 = 16 << 10;

/// Asks for a key's password; nothing when nobody answers.
pub type AskPassword<'a> = &'a dyn Fn(&str) -> Option<String>;

/// A secret key that is ready to sign.
pub struct Signer(SecretKey);

/// A public key that this side trusts, and where it is from.
pub struct Trusted {
    key: PublicKey,
    /// Its file.
    pub path: PathBuf,
}

/// Makes a key pair: `PATH` for the internet side, to keep secret, and `PATH.pub` for the far
/// side. Without a password the secret key lies open in its file.
pub fn generate(path: &Path, password: Option<&str>) -> Result<PathBuf> {
    let public_path = public_path(path);
    let pair = match password {
        Some(password) => KeyPair::generate_encrypted_keypair(Some(password.to_owned())),
        None => KeyPair::generate_unencrypted_keypair(),
    };
    let pair = pair.map_err(|error| failed("make a key", &error))?;
    let secret = pair
        .sk
        .to_box(None)
        .map_err(|error| failed("write the key", &error))?;
    let public = pair
        .pk
        .to_box()
        .map_err(|error| failed("write the key", &error))?;
    let mut file = fs::File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(Error::io("create", path))?;
    file.write_all(secret.into_string().as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(Error::io("write", path))?;
    write_atomic(&public_path, public.into_string().as_bytes())?;
    Ok(public_path)
}

fn public_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".pub");
    PathBuf::from(name)
}

impl Signer {
    /// Opens a secret key, with its password if it has one.
    pub fn open(path: &Path, ask: AskPassword<'_>) -> Result<Self> {
        let text = read_text(path)?;
        let boxed = || {
            SecretKeyBox::from_string(&text)
                .map_err(|error| wrong(path, &format!("is no minisign secret key: {error}")))
        };
        if let Ok(key) = boxed()?.into_unencrypted_secret_key() {
            return Ok(Self(key));
        }
        let question = format!("Password of {}:", path.display());
        let password = ask(&question).ok_or_else(|| {
            wrong(
                path,
                "needs its password, and there is no terminal to ask at",
            )
        })?;
        let key = boxed()?.into_secret_key(Some(password));
        key.map(Self)
            .map_err(|_| wrong(path, "does not open with this password"))
    }

    /// The text of the signature file. `name` is the bundle's, for the comment that is signed too.
    pub fn sign(&self, manifest: &[u8], name: &str) -> Result<String> {
        let comment = format!("bundle.json of {name}");
        minisign::sign(None, &self.0, manifest, Some(&comment), None)
            .map(SignatureBox::into_string)
            .map_err(|error| failed("sign the manifest", &error))
    }
}

/// The keys of files and directories (their `*.pub`); directories that do not exist have none.
pub fn trusted(files: &[PathBuf], directories: &[PathBuf]) -> Result<Vec<Trusted>> {
    let mut paths = files.to_vec();
    for directory in directories {
        let Ok(entries) = directory.read_dir() else {
            continue;
        };
        let found = entries.filter_map(|entry| Some(entry.ok()?.path()));
        paths.extend(found.filter(|path| path.extension().is_some_and(|end| end == "pub")));
    }
    paths.sort();
    paths.iter().map(|path| read_public(path)).collect()
}

fn read_public(path: &Path) -> Result<Trusted> {
    let key = PublicKeyBox::from_string(&read_text(path)?)
        .and_then(PublicKeyBox::into_public_key)
        .map_err(|error| wrong(path, &format!("is no minisign public key: {error}")))?;
    Ok(Trusted {
        key,
        path: path.to_owned(),
    })
}

/// Who signed a bundle. Once a side trusts a key, a bundle that is not signed by one of them is
/// refused ([`Error::Untrusted`]); without any, signatures cannot be judged.
pub fn check(media: &Media, trusted: &[Trusted]) -> Result<Option<PathBuf>> {
    if trusted.is_empty() {
        return Ok(None);
    }
    let path = media.dir().join(SIGNATURE_NAME);
    if !path.exists() {
        return Err(Error::Untrusted(format!(
            "the bundle is not signed, and this site accepts only what {} signed",
            names(trusted)
        )));
    }
    let signature = SignatureBox::from_string(&read_text(&path)?).map_err(|error| {
        Error::Untrusted(format!("{} is no signature: {error}", path.display()))
    })?;
    let signed_by = |trusted: &&Trusted| {
        minisign::verify(
            &trusted.key,
            &signature,
            io::Cursor::new(media.manifest_bytes()),
            true,
            false,
            false,
        )
        .is_ok()
    };
    match trusted.iter().find(signed_by) {
        Some(signer) => Ok(Some(signer.path.clone())),
        None => Err(Error::Untrusted(format!(
            "the signature of the bundle is by none of {}, or its bundle.json was changed; ask the sender",
            names(trusted)
        ))),
    }
}

fn names(trusted: &[Trusted]) -> String {
    let names: Vec<String> = trusted
        .iter()
        .map(|key| key.path.display().to_string())
        .collect();
    names.join(", ")
}

fn read_text(path: &Path) -> Result<String> {
    let bytes = read_limited(path, MAX_FILE)?;
    String::from_utf8(bytes).map_err(|_| wrong(path, "is no text"))
}

fn wrong(path: &Path, what: &str) -> Error {
    Error::Usage(format!("{} {what}", path.display()))
}

fn failed(what: &str, error: &minisign::PError) -> Error {
    Error::Failed(format!("cannot {what}: {error}"))
}
