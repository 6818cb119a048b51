//! What a registry wants from who asks: the `WWW-Authenticate` header.

use http_auth::parse_challenges;
use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};

/// A challenge that we can answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// User and password with every request.
    Basic,
    /// A token that another server gives out.
    Bearer {
        /// That server's URL.
        realm: String,
        /// What it calls the registry.
        service: Option<String>,
        /// What may be done with the token.
        scope: Option<String>,
    },
}

impl Challenge {
    /// The first challenge of an answer that we can answer, tokens before passwords.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let values = headers.get_all(WWW_AUTHENTICATE).iter();
        let found: Vec<Self> = values
            .filter_map(|value| value.to_str().ok())
            .flat_map(|text| parse_challenges(text).unwrap_or_default())
            .filter_map(|challenge| {
                let parameter = |name: &str| {
                    let mut pairs = challenge.params.iter();
                    let (_, value) = pairs.find(|(key, _)| key.eq_ignore_ascii_case(name))?;
                    Some(value.to_unescaped())
                };
                match challenge.scheme.to_ascii_lowercase().as_str() {
                    "basic" => Some(Self::Basic),
                    "bearer" => Some(Self::Bearer {
                        realm: parameter("realm")?,
                        service: parameter("service"),
                        scope: parameter("scope"),
                    }),
                    _ => None,
                }
            })
            .collect();
        let token = found.iter().find(|challenge| **challenge != Self::Basic);
        token.or(found.first()).cloned()
    }
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;

    use super::*;

    #[test]
    fn tokens_come_before_passwords() {
        let of = |values: &[&'static str]| {
            let values = values.iter().copied().map(HeaderValue::from_static);
            Challenge::of(&values.map(|value| (WWW_AUTHENTICATE, value)).collect())
        };
        let bearer = Challenge::Bearer {
            realm: "https://auth.docker.io/token".into(),
            service: Some("registry.docker.io".into()),
            scope: Some("repository:a/b:pull,push".into()),
        };
        let header = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#;
        assert_eq!(of(&[header]), Some(bearer.clone()));
        assert_eq!(of(&[r#"Basic realm="x""#]), Some(Challenge::Basic));
        assert_eq!(of(&[r#"Basic realm="x""#, header]), Some(bearer));
        for other in ["Negotiate", "Bearer", "", "\"", "Bearer service=\"x\""] {
            assert_eq!(of(&[other]), None, "{other}");
        }
    }
}
