//! Publish keys, compared in constant time by their digests, so that neither a common prefix nor the length of a key shows.

use crate::http::answer::{Reply, error};
use crate::model::secret::Secret;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{Digest, SHA256, digest};
use hyper::StatusCode;
use hyper::header::{AUTHORIZATION, HeaderMap, HeaderValue, WWW_AUTHENTICATE};

/// The bearer token of an `Authorization` header; an empty one counts as none.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    bearer_in(headers.get(AUTHORIZATION)?.to_str().ok()?)
}

/// The same of the header's value.
pub(super) fn bearer_in(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim()).filter(|token| !token.is_empty())
}

/// The digests of the keys, which every request is compared with.
#[derive(Default)]
pub struct KeyDigests(Vec<Digest>);

impl KeyDigests {
    /// Of these keys.
    pub fn new(keys: &[Secret]) -> Self {
        Self(keys.iter().map(|key| digest(&SHA256, key.reveal().as_bytes())).collect())
    }

    /// Whether there is no key that anybody could have.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this is one of the keys. All keys are compared, whichever matches.
    pub fn contain(&self, given: &str) -> bool {
        let given = digest(&SHA256, given.as_bytes());
        self.0.iter().fold(false, |found, key| found | is_same(key, &given))
    }
}

/// Whether the request has one of the keys.
pub fn has(headers: &HeaderMap, keys: &KeyDigests) -> bool {
    keys.contain(bearer(headers).unwrap_or_default())
}

/// The key that is given, if any. All are compared, whichever matches.
pub(super) fn matching<'a>(given: &str, keys: &'a [Secret]) -> Option<&'a Secret> {
    // A comparison of slices ends at once where their lengths differ; digests have one length.
    let given = digest(&SHA256, given.as_bytes());
    let is_given = |key: &Secret| is_same(&digest(&SHA256, key.reveal().as_bytes()), &given);
    keys.iter().fold(None, |found, key| if is_given(key) { Some(key) } else { found })
}

fn is_same(one: &Digest, other: &Digest) -> bool {
    verify_slices_are_equal(one.as_ref(), other.as_ref()).is_ok()
}

/// 403: there is no key that anybody could have.
pub(super) fn none_configured() -> Reply {
    error(StatusCode::FORBIDDEN, "publishing_disabled", "no publish key is configured: set `publish.keys`")
}

/// Checks that the request has one of the keys.
///
/// # Errors
/// The response: 403 if no key is configured, 401 if the key is missing or wrong.
pub fn check(headers: &HeaderMap, keys: &KeyDigests) -> Result<(), Box<Reply>> {
    if keys.is_empty() {
        return Err(Box::new(none_configured()));
    }
    if has(headers, keys) {
        return Ok(());
    }
    let message = "send `Authorization: Bearer <key>` with one of `publish.keys`";
    let mut response = error(StatusCode::UNAUTHORIZED, "unauthorized", message);
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    Err(Box::new(response))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_key_matches() {
        let keys = [Secret::new("first-key"), Secret::new("second-key")];
        let status = |value: &str, keys: &[Secret]| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
            check(&headers, &KeyDigests::new(keys)).map_err(|response| response.status().as_u16())
        };
        assert_eq!(status("Bearer second-key", &keys), Ok(()));
        assert_eq!(status("bearer first-key", &keys), Ok(()));
        for wrong in [
            "Bearer second-kez",
            "Bearer xecond-key",
            "Bearer second-ke",
            "Bearer second-key2",
            "Bearer s",
            "Bearer ",
            "Basic first-key",
        ] {
            assert_eq!(status(wrong, &keys), Err(401), "{wrong}");
        }
        assert_eq!(status("Bearer x", &[]), Err(403));
        assert!(check(&HeaderMap::new(), &KeyDigests::new(&keys)).is_err());
    }
}
