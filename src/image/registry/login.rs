//! Logins that `docker login` and `podman login` have left on this machine.

use std::fmt;
use std::path::PathBuf;

use docker_credential::{CredentialRetrievalError, DockerCredential, get_credential_from_reader};

use crate::error::{Error, Result};
use crate::fs::read_limited;

/// No such file is larger.
const MAX_FILE: u64 = 1 << 20;

/// Names under which a login to docker.io may be kept; the first is docker's own.
const DOCKER_HUB: [&str; 3] = [
    "https://index.docker.io/v1/",
    "index.docker.io",
    "docker.io",
];

/// A login to a registry; never shown.
#[derive(Clone, Debug, PartialEq)]
pub struct Login {
    /// What proves who asks.
    pub secret: Secret,
    /// The file that has it or names the helper that does.
    pub place: PathBuf,
}

/// What proves who asks.
#[derive(Clone, PartialEq)]
pub enum Secret {
    /// User and password.
    Password(String, String),
    /// A token that is exchanged for others.
    Identity(String),
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Login {
    /// The login to `account` (a registry's host) for `repository`, from docker's `config.json`
    /// or podman's `auth.json`.
    pub fn find(account: &str, repository: &str) -> Result<Option<Self>> {
        let env = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let home = || env("HOME").map(PathBuf::from);
        let docker = env("DOCKER_CONFIG").map(PathBuf::from);
        let docker = docker.or_else(|| Some(home()?.join(".docker")));
        let runtime = env("XDG_RUNTIME_DIR").map(PathBuf::from);
        let config = env("XDG_CONFIG_HOME").map(PathBuf::from);
        let config = config.or_else(|| Some(home()?.join(".config")));
        let podman = match env("REGISTRY_AUTH_FILE") {
            Some(file) => vec![PathBuf::from(file)],
            None => [runtime, config]
                .into_iter()
                .flatten()
                .map(|dir| dir.join("containers/auth.json"))
                .collect(),
        };
        let docker = docker.map(|dir| dir.join("config.json"));
        let hosts = hosts(account);
        let names = with_namespaces(&hosts, repository);
        let docker = docker.into_iter().map(|place| (place, &hosts));
        for (place, names) in docker.chain(podman.into_iter().map(|place| (place, &names))) {
            if let Some(login) = Self::read(place, names)? {
                return Ok(Some(login));
            }
        }
        Ok(None)
    }

    /// The login in a file under the first of some names that it knows.
    fn read(place: PathBuf, names: &[String]) -> Result<Option<Self>> {
        if !place.exists() {
            return Ok(None);
        }
        let bytes = read_limited(&place, MAX_FILE)?;
        for name in names {
            let secret = match get_credential_from_reader(&bytes[..], name) {
                Ok(DockerCredential::UsernamePassword(user, password)) => {
                    Secret::Password(user, password)
                }
                Ok(DockerCredential::IdentityToken(token)) => Secret::Identity(token),
                Err(error) if is_absence(&error) => continue,
                Err(error) => return Err(unusable(&place, name, &error)),
            };
            return Ok(Some(Self { secret, place }));
        }
        Ok(None)
    }
}

/// Whether there is simply no login. A helper that is not installed gives none: configurations
/// are copied between machines, and most images are public.
fn is_absence(error: &CredentialRetrievalError) -> bool {
    match error {
        CredentialRetrievalError::NoCredentialConfigured => true,
        CredentialRetrievalError::HelperCommunicationError => {
            tracing::warn!("docker's credential helper does not run; asking without a login");
            true
        }
        CredentialRetrievalError::HelperFailure { stdout, stderr, .. } => {
            // The words of docker's own helpers.
            (stdout.to_owned() + stderr).contains("credentials not found")
        }
        _ => false,
    }
}

fn unusable(place: &std::path::Path, name: &str, error: &CredentialRetrievalError) -> Error {
    let cause = match error {
        // Its output might hold a secret.
        CredentialRetrievalError::HelperFailure { helper, .. } => format!("{helper} failed"),
        error => error.to_string(),
    };
    Error::Usage(format!(
        "the login for {name} in {} cannot be used: {cause}; log in again, or log out",
        place.display()
    ))
}

fn hosts(account: &str) -> Vec<String> {
    if account == "docker.io" {
        return DOCKER_HUB.map(str::to_owned).to_vec();
    }
    vec![account.to_owned()]
}

/// Podman keeps logins for parts of a registry: `quay.io/team/app`, `quay.io/team`, `quay.io`.
fn with_namespaces(hosts: &[String], repository: &str) -> Vec<String> {
    let name_of = |host: &String, parts: usize| {
        let parts = repository.split('/').take(parts);
        let parts = std::iter::once(host.as_str()).chain(parts);
        parts.collect::<Vec<_>>().join("/")
    };
    let most = repository.split('/').count();
    hosts
        .iter()
        .flat_map(|host| (0..=most).rev().map(move |parts| name_of(host, parts)))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    /// `user:pass` in base64.
    const AUTH: &str = "dXNlcjpwYXNz";

    fn read(text: &str, account: &str) -> Result<Option<Login>> {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("config.json");
        fs::write(&place, text).unwrap();
        Login::read(place, &with_namespaces(&hosts(account), "team/app"))
    }

    fn secret(text: &str, account: &str) -> Option<Secret> {
        read(text, account).unwrap().map(|login| login.secret)
    }

    #[test]
    fn logins_are_found_as_docker_and_podman_keep_them() {
        let password = Secret::Password("user".into(), "pass".into());
        for (key, account) in [
            ("https://index.docker.io/v1/", "docker.io"),
            ("docker.io", "docker.io"),
            ("quay.io", "quay.io"),
            ("https://quay.io/v2/", "quay.io"),
            ("quay.io/team", "quay.io"),
            ("localhost:5000", "localhost:5000"),
        ] {
            let text = format!(r#"{{"auths":{{"{key}":{{"auth":"{AUTH}"}}}}}}"#);
            assert_eq!(secret(&text, account).as_ref(), Some(&password), "{key}");
            assert_eq!(secret(&text, "other.io"), None);
        }
        let token = r#"{"auths":{"q.io":{"auth":"","identitytoken":"t"}}}"#;
        assert_eq!(secret(token, "q.io"), Some(Secret::Identity("t".into())));
        assert_eq!(secret("{}", "q.io"), None);
        let no_helper = r#"{"credsStore":"not-installed-anywhere"}"#;
        assert_eq!(secret(no_helper, "q.io"), None);
    }

    #[test]
    fn what_cannot_be_used_is_refused_and_never_shown() {
        for text in ["{", r#"{"auths":{"q.io":{"auth":"secret!"}}}"#] {
            let error = read(text, "q.io").unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(!error.to_string().contains("secret"), "{error}");
        }
        let login = Login {
            secret: Secret::Identity("hidden".into()),
            place: Path::new("/x").into(),
        };
        assert!(!format!("{login:?}").contains("hidden"));
    }
}
