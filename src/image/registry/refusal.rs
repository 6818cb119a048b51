//! A refusing status of a registry as a sentence: what it means and what to do.

use reqwest::StatusCode;

use super::login::Login;
use crate::http::describe;

/// What a status of the registry itself means for an image (`NAME:TAG` or `NAME@DIGEST`).
pub fn sentence(status: StatusCode, image: &str, account: &str, login: Option<&Login>) -> String {
    match (status.as_u16(), login) {
        (401 | 403, None) => format!(
            "it shows {image} to nobody without a login: check the name; if it is private, \
             run `docker login {account}`"
        ),
        (401 | 403, Some(login)) => format!(
            "the login in {} may not read {image}: check the name, or run `docker login {account}` \
             with another account",
            login.place.display()
        ),
        (404, _) => format!("it has no {image}: check name and tag"),
        _ => format!("it answered {}", describe(status)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::login::Secret;
    use super::*;

    #[test]
    fn each_refusal_says_what_to_do() {
        let login = Login {
            secret: Secret::Identity("hidden".into()),
            place: "/root/.docker/config.json".into(),
        };
        let cases = [
            (401, None, "run `docker login q.io`"),
            (
                403,
                Some(&login),
                "the login in /root/.docker/config.json may not read a/b:1",
            ),
            (404, None, "it has no a/b:1: check name and tag"),
            (418, None, "418"),
        ];
        for (status, login, part) in cases {
            let status = StatusCode::from_u16(status).unwrap();
            let text = sentence(status, "a/b:1", "q.io", login);
            assert!(text.contains(part), "{text}");
            assert!(!text.contains("hidden"));
        }
    }
}
