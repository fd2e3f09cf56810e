//! The web pages that may connect: `[cors]`, enforced on polling, SSE and WebSocket handshakes.

use crate::http::answer::{Reply, empty};
use crate::http::config::CorsConfig;
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
    /// Scheme and what behind the `*`, with its dot and port, of `https://*.example.com`.
    wildcards: Vec<(String, String)>,
    any: bool,
    localhost: bool,
}

/// A request's `Origin`, judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// There is none: not a cross-site request of a browser.
    Absent,
    /// The page came from the same host.
    Same,
    /// Listed in `cors.origins`.
    Listed(HeaderValue),
    /// `*` is listed.
    Any,
    /// It is not allowed.
    Foreign,
}

impl Origins {
    /// From `[cors]`.
    pub fn new(config: &CorsConfig) -> Self {
        let CorsConfig { origins, localhost } = config;
        let (mut listed, mut wildcards) = (Vec::new(), Vec::new());
        for origin in origins.iter().filter(|origin| *origin != "*").map(|origin| normal(origin)) {
            match origin.split_once("://*") {
                Some((scheme, behind)) => wildcards.push((scheme.to_owned(), behind.to_owned())),
                None => listed.push(origin),
            }
        }
        Self { listed, wildcards, any: origins.iter().any(|origin| origin == "*"), localhost: *localhost }
    }

    /// Judges a request.
    pub fn judge(&self, headers: &HeaderMap) -> Origin {
        let Some(value) = headers.get(ORIGIN) else { return Origin::Absent };
        let Ok(origin) = value.to_str() else { return Origin::Foreign };
        let origin = normal(origin);
        match is_same(headers, &origin) {
            true => Origin::Same,
            false if self.lists(&origin) => Origin::Listed(value.clone()),
            false if self.any => Origin::Any,
            false => Origin::Foreign,
        }
    }

    fn lists(&self, origin: &str) -> bool {
        let fits = |scheme: &str, behind: &str| {
            let authority = origin.strip_prefix(scheme).and_then(|rest| rest.strip_prefix("://"));
            let labels = authority.and_then(|authority| authority.strip_suffix(behind));
            // What browsers may send as labels; not the start of another host, a user or a port.
            labels.is_some_and(|labels| {
                let word = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
                !labels.is_empty() && !labels.starts_with('.') && labels.bytes().all(word)
            })
        };
        self.listed.iter().any(|listed| listed == origin)
            || self.wildcards.iter().any(|(scheme, behind)| fits(scheme, behind))
            || (self.localhost && is_of_this_machine(origin))
    }
}

/// Whether a page was served by this machine, on whatever port.
fn is_of_this_machine(origin: &str) -> bool {
    let Some(("http" | "https", authority)) = origin.split_once("://") else { return false };
    ["localhost", "127.0.0.1", "[::1]"].iter().any(|host| {
        authority.strip_prefix(host).is_some_and(|rest| {
            rest.is_empty() || rest.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok())
        })
    })
}

/// Whether the request says that a page of the host that it goes to has sent it.
pub(super) fn is_own(headers: &HeaderMap) -> bool {
    let origin = headers.get(ORIGIN).and_then(|origin| origin.to_str().ok());
    origin.is_some_and(|origin| is_same(headers, &normal(origin)))
}

/// Whether the page came from the host that it sends the request to. Proxies end TLS, so only the page knows the
/// scheme; the default port of that scheme equals no port in `Host`.
fn is_same(headers: &HeaderMap, origin: &str) -> bool {
    let Some((scheme, authority)) = origin.split_once("://") else { return false };
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    host.is_some_and(|host| {
        !authority.is_empty() && authority == without_default_port(scheme, &host.to_ascii_lowercase())
    })
}

/// Compares scheme and host without case; a default port equals none.
fn normal(origin: &str) -> String {
    let origin = origin.to_ascii_lowercase();
    match origin.split_once("://") {
        Some((_, "")) | None => origin,
        Some((scheme, authority)) => {
            format!("{scheme}://{}", without_default_port(scheme, authority.trim_end_matches('/')))
        }
    }
}

fn without_default_port<'a>(scheme: &str, authority: &'a str) -> &'a str {
    let port = match scheme {
        "https" | "wss" => ":443",
        "http" | "ws" => ":80",
        _ => return authority,
    };
    authority.strip_suffix(port).unwrap_or(authority)
}

impl Origin {
    /// Whether the request is allowed.
    pub fn is_allowed(&self) -> bool {
        *self != Self::Foreign
    }

    /// Adds the CORS headers, also to errors: without them the browser hides the body (docs/protocol/socketio.md
    /// section 2.11).
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

    /// The answer to a preflight (docs/protocol/socketio.md section 2.11).
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
        let origins = origins.iter().map(|origin| (*origin).to_owned()).collect();
        Origins::new(&CorsConfig { origins, localhost: false }).judge(&headers)
    }

    #[test]
    fn a_default_port_is_as_none_on_either_side() {
        let judge = |host: &'static str, origin: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, HeaderValue::from_static(host));
            headers.insert(ORIGIN, HeaderValue::from_static(origin));
            Origins::new(&CorsConfig::default()).judge(&headers)
        };
        for (host, origin) in [
            ("app.test:443", "https://app.test"),
            ("app.test", "https://app.test:443"),
            ("App.test:80", "http://app.test"),
            ("app.test", "http://app.test:80"),
            ("app.test:443", "https://app.test:443"),
            ("[::1]:443", "https://[::1]"),
        ] {
            assert_eq!(judge(host, origin), Origin::Same, "{host} {origin}");
        }
        for (host, origin) in [
            ("app.test:80", "https://app.test"),
            ("app.test:443", "http://app.test"),
            ("app.test:8443", "https://app.test"),
            ("app.test", "https://app.test:8443"),
            ("app.test:443", "capacitor://app.test"),
        ] {
            assert_eq!(judge(host, origin), Origin::Foreign, "{host} {origin}");
        }
    }

    #[test]
    fn subdomains_devices_and_files_can_be_listed() {
        let listed = ["https://*.example.com", "http://*.dev.test:5173", "null", "file://"];
        for origin in
            ["https://a.example.com", "https://A.b.Example.com:443", "http://x.dev.test:5173", "null", "file://"]
        {
            assert!(matches!(judge(&listed, origin), Origin::Listed(_)), "{origin}");
        }
        for foreign in [
            "https://example.com",
            "http://a.example.com",
            "https://a.example.com:8443",
            "https://evilexample.com",
            "https://.example.com",
            "https://evil.io/.example.com",
            "https://evil.io?.example.com",
            "https://evil.io#.example.com",
            "https://evil.io:1.example.com",
            "https://evil.io@a.example.com",
            "https://a.example.com.evil.io",
            "http://x.dev.test",
            "file:///etc",
            "NULL.example.com",
        ] {
            assert_eq!(judge(&listed, foreign), Origin::Foreign, "{foreign}");
        }
        assert_eq!(judge(&["https://app.example.com"], "null"), Origin::Foreign);
        assert_eq!(judge(&[], "file://"), Origin::Foreign);
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
        assert_eq!(judge(&[], "http://chat.example.com"), Origin::Foreign);
        assert_eq!(judge(&["*"], "null"), Origin::Any);
        assert_eq!(Origins::new(&CorsConfig::default()).judge(&HeaderMap::new()), Origin::Absent);
    }

    #[test]
    fn pages_of_this_machine_are_let_in_only_if_told_so() {
        for (origin, of_this_machine) in [
            ("http://localhost:5173", true),
            ("https://localhost", true),
            ("http://127.0.0.1:3000", true),
            ("http://[::1]:3000", true),
            ("http://localhost.evil.io", false),
            ("http://localhost:1@evil.io", false),
            ("http://127.0.0.11", false),
            ("ftp://localhost", false),
        ] {
            let headers = HeaderMap::from_iter([(ORIGIN, HeaderValue::from_static(origin))]);
            let judged = |localhost| {
                Origins::new(&CorsConfig { localhost, ..CorsConfig::default() }).judge(&headers).is_allowed()
            };
            assert_eq!((judged(true), judged(false)), (of_this_machine, false), "{origin}");
        }
    }
}
