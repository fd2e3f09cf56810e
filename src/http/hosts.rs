//! Which names this node answers to: `http.allowed_hosts`. A page whose domain its owner points to this machine (DNS
//! rebinding) is of the same origin as the node, for the browser; only the name in `Host` gives it away.

use crate::http::answer::{Reply, error, refused};
use crate::model::refusal::Refusal;
use crate::refusals::shown;
use hyper::header::{HOST, HeaderMap, HeaderValue};
use hyper::{StatusCode, Uri, Version};

/// The allowed hosts.
#[derive(Clone, Debug, Default)]
pub struct Hosts {
    /// In lower case; without any, every host is allowed.
    allowed: Vec<String>,
}

/// Why a request is refused for its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Problem {
    /// There is no `Host`, which HTTP/1.1 demands.
    Missing,
    /// There are several: this node and a proxy in front might each read another one.
    Several,
    /// It is not in `http.allowed_hosts`.
    Foreign,
}

impl Hosts {
    /// From `http.allowed_hosts`.
    pub fn new(allowed: &[String]) -> Self {
        Self { allowed: allowed.iter().map(|host| host.to_ascii_lowercase()).collect() }
    }

    /// The answer to a request that is refused for its host. Readiness is not secret, and load balancers ask for it by an
    /// address.
    pub fn refuse(&self, uri: &Uri, version: Version, headers: &HeaderMap) -> Option<Reply> {
        let (status, code, message) = match self.judge(uri, version, headers).err()? {
            Problem::Missing => (StatusCode::BAD_REQUEST, "bad_host", "the request has no Host header"),
            Problem::Several => (StatusCode::BAD_REQUEST, "bad_host", "the request has more than one Host header"),
            Problem::Foreign if matches!(uri.path(), "/health" | "/health/live") => return None,
            Problem::Foreign => {
                (StatusCode::MISDIRECTED_REQUEST, "host_not_allowed", "this Host is not in `http.allowed_hosts`")
            }
        };
        let reply = error(status, code, message);
        if code != "host_not_allowed" {
            return Some(reply);
        }
        let given = uri.authority().map(|host| host.as_str().as_bytes());
        let given = given.or_else(|| headers.get(HOST).map(HeaderValue::as_bytes)).unwrap_or_default();
        let why = format!("host {} is not in http.allowed_hosts", shown(&String::from_utf8_lossy(given)));
        Some(refused(reply, Refusal::Host, why))
    }

    fn judge(&self, uri: &Uri, version: Version, headers: &HeaderMap) -> Result<(), Problem> {
        let mut given = headers.get_all(HOST).iter();
        let host = match (given.next(), given.next()) {
            (Some(host), None) => host.to_str().map_err(|_| Problem::Foreign)?,
            (None, _) if version >= Version::HTTP_11 => return Err(Problem::Missing),
            (None, _) => "",
            (Some(_), Some(_)) => return Err(Problem::Several),
        };
        let in_target = uri.authority().map_or(host, |authority| authority.as_str());
        match self.allowed.is_empty() || (self.allows(host) && self.allows(in_target)) {
            true => Ok(()),
            false => Err(Problem::Foreign),
        }
    }

    /// Whether this is the `Host` of a request that is answered.
    pub(super) fn admits(&self, host: &str) -> bool {
        self.allowed.is_empty() || self.allows(host)
    }

    fn allows(&self, given: &str) -> bool {
        let given = given.to_ascii_lowercase();
        let (name, port) = split(&given);
        let name = name.strip_suffix('.').unwrap_or(name);
        self.allowed.iter().any(|allowed| {
            let (wanted, wanted_port) = split(allowed);
            let fits = match wanted.strip_prefix('*') {
                Some(behind) => name.strip_suffix(behind).is_some_and(|label| !label.is_empty()),
                None => name == wanted,
            };
            fits && (wanted_port.is_none() || wanted_port == port)
        })
    }
}

/// A host and its port. An IPv6 address is in brackets.
fn split(host: &str) -> (&str, Option<&str>) {
    let end = host.rfind(']').unwrap_or(0);
    match host[end..].rfind(':') {
        Some(at) => (&host[..end + at], Some(&host[end + at + 1..])),
        None => (host, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(allowed: &[&str], uri: &str, version: Version, hosts: &[&str]) -> Result<(), Problem> {
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(HOST, host.parse().unwrap());
        }
        let allowed: Vec<String> = allowed.iter().map(|&host| host.into()).collect();
        Hosts::new(&allowed).judge(&uri.parse().unwrap(), version, &headers)
    }

    #[test]
    fn one_host_is_needed() {
        let judge = |version, hosts: &[&str]| judge(&[], "/", version, hosts);
        assert_eq!(judge(Version::HTTP_11, &["anything"]), Ok(()));
        assert_eq!(judge(Version::HTTP_11, &[]), Err(Problem::Missing));
        assert_eq!(judge(Version::HTTP_10, &[]), Ok(()), "health checks of old load balancers have none");
        assert_eq!(judge(Version::HTTP_11, &["a", "a"]), Err(Problem::Several));
    }

    #[test]
    fn names_ports_and_addresses_are_compared() {
        let allowed = ["localhost", "127.0.0.1", "[::1]", "app.example.com:8443", "*.example.org"];
        let allows = |host: &str| judge(&allowed, "/", Version::HTTP_11, &[host]) == Ok(());
        for host in ["localhost", "LOCALHOST:8080", "localhost.:80", "127.0.0.1:1", "[::1]", "[::1]:8080"] {
            assert!(allows(host), "{host}");
        }
        assert!(allows("app.example.com:8443") && allows("a.b.example.org"));
        for host in
            ["", "evil.example", "localhost.evil.example", "app.example.com", "example.org", "[::2]", "1.localhost"]
        {
            assert!(!allows(host), "{host}");
        }
        assert_eq!(judge(&allowed, "http://evil.example/", Version::HTTP_11, &["localhost"]), Err(Problem::Foreign));
        assert_eq!(judge(&allowed, "/", Version::HTTP_10, &[]), Err(Problem::Foreign));
    }

    #[test]
    fn readiness_is_no_secret() {
        let hosts = Hosts::new(&["app.example.com".into()]);
        let refuse = |path: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, "10.0.0.7:8080".parse().unwrap());
            hosts.refuse(&path.parse().unwrap(), Version::HTTP_11, &headers).map(|reply| reply.status().as_u16())
        };
        assert_eq!((refuse("/health"), refuse("/metrics")), (None, Some(421)));
    }
}
