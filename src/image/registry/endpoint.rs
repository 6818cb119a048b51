//! Where a registry is, and the URLs below it.

use std::fmt;
use std::net::IpAddr;

use reqwest::Url;

use super::name::Name;
use crate::error::{Error, Result};
use crate::http::{base_url, below, host_of};

/// Where docker.io answers.
const DOCKER_HUB: &str = "registry-1.docker.io";

/// A registry, or a mirror of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    base: Url,
    /// Goes in front of the names of repositories: a proxy project of Harbor, for example.
    prefix: Vec<String>,
    /// What logins call it.
    account: String,
}

impl Endpoint {
    /// The registry that an image's name means.
    pub fn of(name: &Name) -> Result<Self> {
        let (host, account) = match name.registry() {
            "docker.io" => (DOCKER_HUB, "docker.io"),
            host => (host, host),
        };
        let text = match name.scheme() {
            Some(scheme) => format!("{scheme}://{host}"),
            None => host.to_owned(),
        };
        let endpoint = Self::parse(&text)?;
        Ok(Self {
            account: account.to_owned(),
            ..endpoint
        })
    }

    /// `mirror.example.com`, `http://10.0.0.5:5000`, `harbor.example.com/dockerhub`. Without a
    /// scheme it is https, except on this machine.
    pub fn parse(text: &str) -> Result<Self> {
        let mut base = base_url(text).map_err(|cause| {
            Error::Usage(format!(
                "{text:?} is no address of a registry: {cause}; write HOST, HOST/PREFIX or a URL"
            ))
        })?;
        if !text.contains("://") && is_loopback(&base) {
            // Both are schemes that a URL with a host can have.
            let _ = base.set_scheme("http");
        }
        let prefix = base.path_segments().into_iter().flatten();
        let prefix = prefix.filter(|part| !part.is_empty()).map(str::to_owned);
        let prefix: Vec<String> = prefix.collect();
        base.set_path("");
        Ok(Self {
            account: host_of(&base),
            prefix,
            base,
        })
    }

    /// The URL of a manifest or blob; `kind` is `manifests` or `blobs`.
    pub fn url(&self, repository: &str, kind: &str, reference: &str) -> Url {
        let prefix = self.prefix.iter().map(String::as_str);
        let parts = ["v2"].into_iter().chain(prefix);
        below(
            &self.base,
            parts.chain(repository.split('/')).chain([kind, reference]),
        )
    }

    /// The repository as this registry calls it.
    pub fn repository(&self, name: &str) -> String {
        let parts = self.prefix.iter().map(String::as_str).chain([name]);
        parts.collect::<Vec<_>>().join("/")
    }

    /// What logins call it.
    pub fn account(&self) -> &str {
        &self.account
    }

    /// Whether a URL is on the registry's own origin (scheme, host and port), the only one that
    /// may see a token.
    pub fn owns(&self, url: &Url) -> bool {
        self.base.origin() == url.origin()
    }

    /// Whether passwords may go to a URL that this registry names: never from https to http.
    pub fn may_send_login_to(&self, url: &Url) -> bool {
        url.scheme() == "https" || (url.scheme() == "http" && self.base.scheme() == "http")
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&host_of(&self.base))?;
        self.prefix.iter().try_for_each(|part| write!(f, "/{part}"))
    }
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || address.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_asked_without_tls_unless_told() {
        let url = |text: &str| {
            Endpoint::parse(text)
                .unwrap()
                .url("a/b", "manifests", "1")
                .to_string()
        };
        let cases = [
            ("m.example.com", "https://m.example.com/v2/a/b/manifests/1"),
            (
                "http://m.example.com/",
                "http://m.example.com/v2/a/b/manifests/1",
            ),
            ("localhost:5000", "http://localhost:5000/v2/a/b/manifests/1"),
            ("127.0.0.2:5000", "http://127.0.0.2:5000/v2/a/b/manifests/1"),
            ("[::1]:5000", "http://[::1]:5000/v2/a/b/manifests/1"),
            (
                "https://localhost:5000",
                "https://localhost:5000/v2/a/b/manifests/1",
            ),
            ("10.0.0.5:5000", "https://10.0.0.5:5000/v2/a/b/manifests/1"),
            (
                "harbor.example.com/hub/x",
                "https://harbor.example.com/v2/hub/x/a/b/manifests/1",
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(url(text), expected, "{text}");
        }
        for bad in ["", "ftp://x", "u:p@x", "x?y"] {
            assert_eq!(Endpoint::parse(bad).unwrap_err().exit_code(), 2, "{bad}");
        }
    }

    #[test]
    fn images_say_where_they_are() {
        let of = |text: &str| Endpoint::of(&text.parse().unwrap()).unwrap();
        assert_eq!(of("busybox").to_string(), "registry-1.docker.io");
        assert_eq!(of("busybox").account(), "docker.io");
        assert_eq!(of("quay.io/a/b:1").account(), "quay.io");
        let plain = of("http://10.0.0.5:5000/a:1");
        assert!(plain.owns(&Url::parse("http://10.0.0.5:5000/x").unwrap()));
        assert!(!plain.owns(&Url::parse("https://10.0.0.5:5000/x").unwrap()));
        assert!(!plain.owns(&Url::parse("http://10.0.0.5:5001/x").unwrap()));
    }

    #[test]
    fn a_login_never_goes_from_https_to_http() {
        let realm = Url::parse("http://auth.example.com/token").unwrap();
        assert!(
            !Endpoint::parse("quay.io")
                .unwrap()
                .may_send_login_to(&realm)
        );
        assert!(
            Endpoint::parse("localhost:5000")
                .unwrap()
                .may_send_login_to(&realm)
        );
    }
}
