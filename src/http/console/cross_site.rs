//! Whether a request with the console's cookie comes from the console: browsers add cookies to what any page sends.

use crate::http::origin::is_own;
use hyper::header::{HeaderMap, HeaderName};

/// The console's own header. A page of another origin cannot send it: it would have to ask first (CORS), and nobody agrees.
const OWN: HeaderName = HeaderName::from_static("x-roomcast-console");
/// What browsers say of where a request comes from; pages cannot change it.
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Why a request may come from another page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Foreign {
    /// It has not the header of the console.
    NoHeader,
    /// The browser says that another page has sent it.
    OtherPage,
}

impl Foreign {
    /// What is wrong, and what to do.
    pub(super) fn message(self) -> &'static str {
        match self {
            Self::NoHeader => {
                "a request with the console's cookie needs the header `X-Roomcast-Console: 1`; programs send `Authorization: Bearer <key>` instead"
            }
            Self::OtherPage => {
                "another page than the console sent this request, or a proxy in front does not pass on the `Host` that the browser used"
            }
        }
    }
}

/// Refuses what another page may have sent. Old browsers, and those that reach the node without TLS, say nothing of the
/// site; they say the origin with everything that changes something.
pub(super) fn check(headers: &HeaderMap, changes: bool) -> Result<(), Foreign> {
    if !headers.contains_key(OWN) {
        return Err(Foreign::NoHeader);
    }
    let is_same = match headers.get(FETCH_SITE) {
        Some(site) => site == "same-origin",
        None => is_own(headers) || !(changes || headers.contains_key(hyper::header::ORIGIN)),
    };
    if is_same { Ok(()) } else { Err(Foreign::OtherPage) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::{HOST, HeaderValue, ORIGIN};

    fn judge(changes: bool, given: &[(HeaderName, &'static str)]) -> Result<(), Foreign> {
        let mut headers = HeaderMap::from_iter([(HOST, HeaderValue::from_static("ops.example.com"))]);
        headers.extend(given.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))));
        check(&headers, changes)
    }

    #[test]
    fn only_the_console_itself_passes() {
        let own = || (OWN, "1");
        for changes in [true, false] {
            assert_eq!(judge(changes, &[own(), (FETCH_SITE, "same-origin")]), Ok(()));
            assert_eq!(judge(changes, &[own(), (ORIGIN, "https://ops.example.com")]), Ok(()));
            for site in ["same-site", "cross-site", "none", ""] {
                let with = [own(), (FETCH_SITE, site), (ORIGIN, "https://ops.example.com")];
                assert_eq!(judge(changes, &with), Err(Foreign::OtherPage), "{site}");
            }
            for origin in ["https://app.example.com", "null", "https://ops.example.com.evil.io", ""] {
                assert_eq!(judge(changes, &[own(), (ORIGIN, origin)]), Err(Foreign::OtherPage), "{origin}");
            }
            assert_eq!(judge(changes, &[(FETCH_SITE, "same-origin")]), Err(Foreign::NoHeader));
        }
        assert_eq!((judge(false, &[own()]), judge(true, &[own()])), (Ok(()), Err(Foreign::OtherPage)));
    }
}
