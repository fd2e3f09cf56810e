//! Which web pages may talk to us: `[cors]`, enforced on polling, SSE and WebSocket handshakes.

use crate::http::answer::{Reply, empty};
use hyper::StatusCode;
use hyper::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS, HOST, HeaderMap, HeaderValue,
    ORIGIN, VARY,
};

/// The allowed origins.
#[derive(Clone, Debug)]
pub struct Origins {
    listed: Vec<String>,
    any: bool,
}

/// What a request's `Origin` means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// None: not a browser's cross-site request.
    Absent,
    /// The page came from this very host.
    Same,
    /// Listed in `cors.origins`.
    Listed(HeaderValue),
    /// `*` is listed.
    Any,
    /// Nobody we know.
    Foreign,
}

impl Origins {
    /// From `cors.origins`.
    pub fn new(origins: &[String]) -> Self {
        let listed = origins.iter().filter(|origin| *origin != "*").map(|origin| normal(origin)).collect();
        Self { listed, any: origins.iter().any(|origin| origin == "*") }
    }

    /// Judges a request.
    pub fn judge(&self, headers: &HeaderMap) -> Origin {
        let Some(value) = headers.get(ORIGIN) else { return Origin::Absent };
        let Ok(origin) = value.to_str() else { return Origin::Foreign };
        let same = headers
            .get(HOST)
            .and_then(|host| host.to_str().ok())
            .zip(origin.split_once("://"))
            .is_some_and(|(host, (_, authority))| host.eq_ignore_ascii_case(authority));
        match same {
            true => Origin::Same,
            false if self.listed.contains(&normal(origin)) => Origin::Listed(value.clone()),
            false if self.any => Origin::Any,
            false => Origin::Foreign,
        }
    }
}

/// Scheme and host compare without case; a default port is as none.
fn normal(origin: &str) -> String {
    let origin = origin.trim_end_matches('/').to_ascii_lowercase();
    let port = if origin.starts_with("https:") { ":443" } else { ":80" };
    origin.strip_suffix(port).map(str::to_owned).unwrap_or(origin)
}

impl Origin {
    /// Whether the request is let in.
    pub fn is_allowed(&self) -> bool {
        *self != Self::Foreign
    }

    /// Adds the CORS headers, to errors too: without them the browser hides the body (wire sheet A11).
    pub fn mark(&self, response: &mut Reply) {
        let headers = response.headers_mut();
        match self {
            Self::Listed(origin) => {
                headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
                headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
                headers.append(VARY, HeaderValue::from_static("Origin"));
            }
            Self::Any => {
                headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
            }
            Self::Foreign => {
                headers.append(VARY, HeaderValue::from_static("Origin"));
            }
            Self::Absent | Self::Same => {}
        }
    }

    /// The answer to a preflight (wire sheet A11).
    pub fn preflight(&self, request: &HeaderMap) -> Reply {
        let mut response = empty(StatusCode::NO_CONTENT);
        let headers = response.headers_mut();
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET,HEAD,PUT,PATCH,POST,DELETE"));
        headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
        if let Some(asked) = request.get(ACCESS_CONTROL_REQUEST_HEADERS) {
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, asked.clone());
            headers.append(VARY, HeaderValue::from_static("Access-Control-Request-Headers"));
        }
        self.mark(&mut response);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(origins: &[&str], origin: &str) -> Origin {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_static("chat.example.com:8080"));
        headers.insert(ORIGIN, HeaderValue::from_str(origin).unwrap());
        Origins::new(&origins.iter().map(|origin| (*origin).to_owned()).collect::<Vec<_>>()).judge(&headers)
    }

    #[test]
    fn only_whole_origins_match() {
        let listed = ["https://app.example.com"];
        assert!(matches!(judge(&listed, "https://app.example.com"), Origin::Listed(_)));
        assert!(matches!(judge(&listed, "https://APP.example.com:443"), Origin::Listed(_)));
        for foreign in [
            "https://app.example.com.evil.io",
            "http://app.example.com",
            "https://evil.io/https://app.example.com",
            "https://app.example.com:8443",
            "null",
            "https://xapp.example.com",
        ] {
            assert_eq!(judge(&listed, foreign), Origin::Foreign, "{foreign}");
        }
        assert_eq!(judge(&[], "http://chat.example.com:8080"), Origin::Same);
        assert_eq!(judge(&["*"], "null"), Origin::Any);
        assert_eq!(Origins::new(&[]).judge(&HeaderMap::new()), Origin::Absent);
    }
}
