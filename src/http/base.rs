//! Addresses of servers as operators write them.

use reqwest::Url;

/// Reads `host`, `host:port/path` or a URL of http or https; without a scheme it is https. The
/// error is the cause, as the end of a sentence.
pub fn base_url(text: &str) -> Result<Url, &'static str> {
    let full = if text.contains("://") {
        text.to_owned()
    } else {
        format!("https://{text}")
    };
    let Ok(url) = Url::parse(full.trim_end_matches('/')) else {
        return Err("it cannot be read as a URL");
    };
    if !matches!(url.scheme(), "http" | "https") {
        return Err("it is neither http nor https");
    }
    if !url.has_host() || url.query().is_some() || url.fragment().is_some() {
        return Err("it must be a host and perhaps a path");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("it must not hold a password");
    }
    Ok(url)
}

/// A URL below a base; each segment is percent-encoded as a whole, slashes included.
pub fn below<'a>(base: &Url, segments: impl IntoIterator<Item = &'a str>) -> Url {
    let mut url = base.clone();
    // Only URLs like `data:` have no segments, and `base_url` lets none of them through.
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().extend(segments);
    }
    url
}
