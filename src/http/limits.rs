//! How long a server asks its clients to wait: `Retry-After` (RFC 9110) and `RateLimit`
//! (draft-ietf-httpapi-ratelimit-headers, which the Hugging Face hub sends:
//! `RateLimit: "resolvers";r=0;t=55`).

use std::time::Duration;

use jiff::Timestamp;
use reqwest::header::{HeaderMap, RETRY_AFTER};

/// How long an answer asks to wait before the next request, if it does. `refused` is true for an
/// answer like 429 that did not serve the request.
pub fn pause_asked(refused: bool, headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = |name: &str| headers.get(name)?.to_str().ok();
    let rate_limit = text("ratelimit").and_then(|value| exhausted_for(value, refused));
    if !refused {
        return rate_limit;
    }
    text(RETRY_AFTER.as_str())
        .and_then(|value| retry_after(value, now))
        .or(rate_limit)
}

/// `Retry-After`: seconds, or a date.
fn retry_after(value: &str, now: Timestamp) -> Option<Duration> {
    if let Ok(seconds) = value.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::parse(value.trim()).ok()?.timestamp();
    Some(Duration::try_from(date.duration_since(now)).unwrap_or_default())
}

/// The longest `t` of the limits that have nothing remaining (or of all, if one must be).
fn exhausted_for(value: &str, any: bool) -> Option<Duration> {
    let reset = |item: &str| {
        let parameter = |name: &str| {
            item.split(';')
                .find_map(|part| part.trim().strip_prefix(name)?.parse::<u64>().ok())
        };
        let seconds = parameter("t=")?;
        (any || parameter("r=") == Some(0)).then(|| Duration::from_secs(seconds))
    };
    value.split(',').filter_map(reset).max()
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;

    use super::*;

    #[test]
    fn waits_as_long_as_the_server_asks() {
        let cases = [
            (true, "retry-after", "7", Some(7)),
            (
                true,
                "retry-after",
                "Wed, 21 Oct 2015 07:28:30 GMT",
                Some(30),
            ),
            (
                true,
                "retry-after",
                "Wed, 21 Oct 2015 07:27:00 GMT",
                Some(0),
            ),
            (true, "retry-after", "soon", None),
            (true, "ratelimit", r#""api";r=0;t=55"#, Some(55)),
            (true, "ratelimit", r#""api";r=3;t=55"#, Some(55)),
            (false, "ratelimit", r#""api";r=3;t=55"#, None),
            (
                false,
                "ratelimit",
                r#""api";r=0;t=5, "resolvers";r=0;t=9"#,
                Some(9),
            ),
            (
                false,
                "ratelimit",
                r#""api";r=0;t=5, "resolvers";r=1;t=9"#,
                Some(5),
            ),
            (false, "retry-after", "7", None),
        ];
        let now: Timestamp = "2015-10-21T07:28:00Z".parse().unwrap();
        for (refused, name, value, seconds) in cases {
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::from_static(value));
            let expected = seconds.map(Duration::from_secs);
            assert_eq!(
                pause_asked(refused, &headers, now),
                expected,
                "{name}: {value}"
            );
        }
    }
}
