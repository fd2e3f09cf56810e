//! HTTP URLs in the configuration.

use hyper::Uri;

/// Reads a URL without user and password: credentials do not belong in a URL that is logged.
///
/// # Errors
/// What the URL must be.
pub fn parse(text: &str) -> Result<Uri, &'static str> {
    const EXPECTED: &str = "must be a URL that starts with http:// or https://";
    let uri: Uri = text.trim().parse().map_err(|_| EXPECTED)?;
    match (uri.scheme_str(), uri.authority()) {
        (Some("http" | "https"), Some(authority)) if authority.as_str().contains('@') => {
            Err("must not contain a user or a password")
        }
        (Some("http" | "https"), Some(_)) => Ok(uri),
        _ => Err(EXPECTED),
    }
}
