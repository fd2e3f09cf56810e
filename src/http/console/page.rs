//! The files of the page, built into the binary. They are made from `packages/console` by its `build.mjs`.

use crate::http::answer::{Reply, empty, typed};
use aws_lc_rs::digest::{SHA256, digest};
use hyper::StatusCode;
use hyper::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, ETAG, HeaderMap, HeaderName,
    HeaderValue, IF_NONE_MATCH, REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};

/// Nothing but the page's own files and the API of its own host: no inline script, no form that posts, no frame around it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

const HEADERS: [(HeaderName, &str); 7] = [
    (CONTENT_SECURITY_POLICY, POLICY),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (X_FRAME_OPTIONS, "DENY"),
    (REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    // Kept, but asked for again each time: the page must fit the node.
    (CACHE_CONTROL, "no-cache"),
];

/// A file of the page.
struct File {
    path: &'static str,
    content_type: &'static str,
    plain: &'static [u8],
    gzip: &'static [u8],
}

macro_rules! file {
    ($path:literal, $name:literal, $content_type:literal) => {
        File {
            path: $path,
            content_type: $content_type,
            plain: include_bytes!(concat!("page/", $name)),
            gzip: include_bytes!(concat!("page/", $name, ".gz")),
        }
    };
}

static FILES: [File; 4] = [
    file!("/console", "index.html", "text/html; charset=utf-8"),
    file!("/console/app.js", "app.js", "text/javascript; charset=utf-8"),
    file!("/console/app.css", "app.css", "text/css; charset=utf-8"),
    file!("/console/icon.svg", "icon.svg", "image/svg+xml"),
];

/// The file at this path.
pub(super) fn file(path: &str, headers: &HeaderMap) -> Option<Reply> {
    FILES.iter().find(|file| file.path == path).map(|file| file.answer(headers))
}

impl File {
    fn answer(&self, headers: &HeaderMap) -> Reply {
        let tag = format!("W/\"{}\"", &hex::encode(digest(&SHA256, self.plain))[..16]);
        let mut reply = if has_current(headers, &tag) {
            empty(StatusCode::NOT_MODIFIED)
        } else if takes_gzip(headers) {
            let mut reply = typed(StatusCode::OK, self.content_type, self.gzip);
            reply.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            reply
        } else {
            typed(StatusCode::OK, self.content_type, self.plain)
        };
        if let Ok(tag) = HeaderValue::from_str(&tag) {
            reply.headers_mut().insert(ETAG, tag);
        }
        reply.headers_mut().insert(VARY, HeaderValue::from_static("Accept-Encoding"));
        for (name, value) in HEADERS {
            reply.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        reply
    }
}

fn has_current(headers: &HeaderMap, tag: &str) -> bool {
    let opaque = tag.trim_start_matches("W/");
    let given = headers.get(IF_NONE_MATCH).and_then(|tags| tags.to_str().ok());
    given.is_some_and(|tags| tags.split(',').any(|given| given.trim().trim_start_matches("W/") == opaque))
}

fn takes_gzip(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|entry| {
        let (coding, quality) = entry.split_once(';').unwrap_or((entry, ""));
        let is_refused = quality.trim().strip_prefix("q=").is_some_and(|q| q.trim().parse() == Ok(0.0));
        coding.trim().eq_ignore_ascii_case("gzip") && !is_refused
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    }

    #[test]
    fn nothing_is_inline_and_nothing_comes_from_elsewhere() {
        let html = str::from_utf8(FILES[0].plain).unwrap();
        for inline in ["<style", " style=", " onclick=", " onload=", " onerror=", " onsubmit=", "javascript:", "//"] {
            assert!(!html.to_lowercase().replace("<!doctype", "").contains(inline), "{inline}");
        }
        for file in &FILES {
            let text = str::from_utf8(file.plain).unwrap();
            let elsewhere = text.replace("http://www.w3.org/", "").contains("http://");
            assert!(!elsewhere && !text.contains("https://"), "{} names another host", file.path);
        }
    }

    #[test]
    fn it_is_small() {
        let bytes: usize = FILES.iter().map(|file| file.gzip.len()).sum();
        assert!(bytes < 60_000, "{bytes} bytes");
    }

    #[test]
    fn whoever_has_it_does_not_get_it_again() {
        let first = file("/console/app.js", &HeaderMap::new()).unwrap();
        let tag = first.headers()[ETAG].clone();
        let again = file("/console/app.js", &HeaderMap::from_iter([(IF_NONE_MATCH, tag)])).unwrap();
        assert_eq!((first.status(), again.status()), (StatusCode::OK, StatusCode::NOT_MODIFIED));
        let other = file("/console/app.js", &with(IF_NONE_MATCH, "W/\"0\", \"1\"")).unwrap();
        assert_eq!(other.status(), StatusCode::OK);
        assert!(again.headers().contains_key(CONTENT_SECURITY_POLICY));
        assert!(file("/console/other", &HeaderMap::new()).is_none());
    }

    #[test]
    fn it_is_compressed_for_those_who_take_that() {
        let encoded =
            |value| file("/console", &with(ACCEPT_ENCODING, value)).unwrap().headers().contains_key(CONTENT_ENCODING);
        assert!(encoded("br, gzip") && encoded("GZIP;q=0.5"));
        assert!(!encoded("br") && !encoded("gzip;q=0") && !encoded("x-gzip"));
    }
}
