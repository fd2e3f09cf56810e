//! Addresses: listen addresses, origins, and the URLs of Redis, key sets and backends.

use crate::config::kind::Kind;
use crate::config::mistake::Faults;
use crate::config::node::Node;
use crate::config::toml_text::{quoted, shown};
use crate::http::config::ListenAddress;
use crate::model::http_url;
use crate::model::network::Network;
use crate::redis::url::RedisUrl;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, PercentEncode, utf8_percent_encode};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

/// Bytes of a path at which a socket can be bound: the system's limit is 107, and for a moment there is a number at its end.
const MAX_SOCKET_PATH: usize = 96;

/// `0.0.0.0:8080`, `[::]:8080`, `localhost:8080`, `:8080`.
pub(super) struct Listen;

impl Kind for Listen {
    type Value = SocketAddr;

    fn read(&self, node: &Node) -> Result<SocketAddr, Faults> {
        let text = node.text("an address like \"0.0.0.0:8080\"")?.trim();
        let full = match text.split_once(':') {
            Some(("", port)) => format!("0.0.0.0:{port}"),
            Some(("localhost", port)) => format!("127.0.0.1:{port}"),
            _ => text.to_owned(),
        };
        full.parse().map_err(|_| {
            node.fault(format!("\"{}\" is not an address; write an IP and a port like \"0.0.0.0:8080\"", shown(text)))
        })
    }

    fn write(&self, value: &SocketAddr) -> Option<String> {
        Some(quoted(&value.to_string()))
    }
}

/// The same, or `unix:/run/roomcast.sock`.
pub(super) struct AdminListen;

impl Kind for AdminListen {
    type Value = ListenAddress;

    fn read(&self, node: &Node) -> Result<ListenAddress, Faults> {
        let text = node.text("an address like \"0.0.0.0:8080\"")?.trim();
        let Some(path) = text.strip_prefix("unix:") else { return Listen.read(node).map(ListenAddress::Tcp) };
        if !path.starts_with('/') || path.contains(":/") || path.len() > MAX_SOCKET_PATH {
            let wants = "must be an absolute path of at most 96 bytes, like \"unix:/run/roomcast.sock\"";
            return Err(node.fault(wants));
        }
        Ok(ListenAddress::Unix(path.into()))
    }

    fn write(&self, value: &ListenAddress) -> Option<String> {
        Some(quoted(&value.to_string()))
    }
}

/// `"0660"`: the rights of a file in octal digits.
pub(super) struct FileMode;

impl Kind for FileMode {
    type Value = u32;

    fn read(&self, node: &Node) -> Result<u32, Faults> {
        let expected = "the rights of a file in octal digits, like \"0660\"";
        let text = node.text(expected)?.trim();
        let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777);
        mode.ok_or_else(|| node.fault(format!("must be {expected}")))
    }

    fn write(&self, value: &u32) -> Option<String> {
        Some(quoted(&format!("{value:04o}")))
    }
}

/// `10.0.0.0/8`, `192.0.2.7`, `2001:db8::/32`.
#[derive(Clone, Copy)]
pub(super) struct Networks;

impl Kind for Networks {
    type Value = Network;

    fn read(&self, node: &Node) -> Result<Network, Faults> {
        let text = node.text("an address or a network like \"10.0.0.0/8\"")?.trim();
        text.parse().map_err(|why| node.fault(format!("\"{}\" is not a network: {why}", shown(text))))
    }

    fn write(&self, value: &Network) -> Option<String> {
        Some(quoted(&value.to_string()))
    }
}

/// Splits `scheme://rest`, the scheme in lower case as RFC 3986 section 3.1 has it.
fn scheme(text: &str) -> Option<(String, &str)> {
    let (scheme, rest) = text.split_once("://")?;
    let good = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
    good.then(|| (scheme.to_ascii_lowercase(), rest))
}

/// Whether it is `host` or `host:port` with a name, an IPv4 or a bracketed IPv6 address.
fn is_authority(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, "")) if host.parse::<Ipv6Addr>().is_ok() => (host, None),
        Some((host, rest)) if host.parse::<Ipv6Addr>().is_ok() && rest.starts_with(':') => (host, Some(&rest[1..])),
        Some(_) => return false,
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let good = |b: u8| b.is_ascii_alphanumeric() || b"-._:".contains(&b);
    !host.is_empty() && host.bytes().all(good) && port.is_none_or(|port| matches!(port.parse::<u16>(), Ok(1..)))
}

/// `*`, `null`, `file://`, `scheme://host[:port]` or `scheme://*.domain[:port]`, as browsers send it: lower case,
/// without a default port. A final slash, which `FRONTEND_URL` often has, is removed.
pub(super) fn origin(text: &str) -> Result<String, String> {
    let text = text.trim();
    // Pages of Electron and Cordova, and of sandboxed frames, have an origin without a host.
    if matches!(text, "*" | "null" | "file://") {
        return Ok(text.into());
    }
    // An origin with a user may contain a password, so it is not shown.
    let name = if text.contains('@') { "the value".to_owned() } else { format!("\"{}\"", shown(text)) };
    let (scheme, rest) = scheme(text).ok_or_else(|| {
        format!("{name} is not an origin; write \"*\" or scheme://host[:port] like \"https://app.example.com\"")
    })?;
    let authority = rest.strip_suffix('/').unwrap_or(rest).to_ascii_lowercase();
    let domain = authority.strip_prefix("*.");
    if domain.unwrap_or(&authority).contains('*') {
        return Err(format!(
            "{name} has a wildcard that does not stand for whole labels; write \"https://*.example.com\""
        ));
    }
    // `*.com` would allow everybody's pages.
    if domain.is_some_and(|domain| !domain.contains('.')) {
        return Err(format!("{name} has a wildcard for a whole top-level domain; write \"https://*.example.com\""));
    }
    if !is_authority(domain.unwrap_or(&authority)) {
        return Err(format!("{name} must be scheme://host[:port], without a path, a query or a user"));
    }
    let default_port = match scheme.as_str() {
        "http" => ":80",
        "https" => ":443",
        _ => "",
    };
    let authority = match default_port {
        "" => authority.as_str(),
        port => authority.strip_suffix(port).unwrap_or(&authority),
    };
    Ok(format!("{scheme}://{authority}"))
}

/// An HTTP URL, as written.
pub(super) fn http_url(text: &str) -> Result<String, String> {
    http_url::parse(text).map(|_| text.trim().to_owned()).map_err(str::to_owned)
}

/// The base URL of an OTLP receiver, to which the paths of the signals are added.
pub(super) fn otlp_endpoint(text: &str) -> Result<String, String> {
    match text.contains(['?', '#']) {
        true => Err("must be a base URL without a query, like \"http://collector:4318\"".into()),
        false => http_url(text),
    }
}

/// An HTTP URL without the values of its query, which may be keys.
pub(super) fn without_query(text: &str) -> String {
    let query = text.split_once('?');
    query.map_or_else(|| text.to_owned(), |(before, _)| format!("{before}?***"))
}

/// A Redis URL. No message shows it, because it may contain a password.
pub(super) fn redis_url(text: &str) -> Result<String, String> {
    let text = text.trim();
    RedisUrl::parse(text).map(|_| text.to_owned()).map_err(|error| error.problem().to_owned())
}

/// A Redis URL with masked passwords. The names of users stay.
pub(super) fn masked_url(text: &str) -> String {
    const SENTINELS: &str = "sentinel_password=";
    if let Some((url, query)) = text.rsplit_once('?')
        && query.contains(SENTINELS)
    {
        let mask = |pair: &str| if pair.starts_with(SENTINELS) { format!("{SENTINELS}***") } else { pair.to_owned() };
        let query: Vec<_> = query.split('&').map(mask).collect();
        return format!("{}?{}", masked_url(url), query.join("&"));
    }
    let Some((scheme, rest)) = text.split_once("://") else { return "***".into() };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    // With a raw `/` in the password, the `@` comes after what looks like the authority; then all of it is masked.
    match (rest[..end].rsplit_once('@'), rest.rsplit_once('@')) {
        (Some((user, host)), _) => {
            let user = user.split_once(':').map_or(user, |(user, _)| user);
            format!("{scheme}://{user}:***@{host}{}", &rest[end..])
        }
        (None, Some((_, host))) => format!("{scheme}://***@{host}"),
        (None, None) => text.to_owned(),
    }
}

/// A URL made of the parts that `REDIS_HOST` and its companions give.
pub(super) fn redis_url_of_parts(
    host: &str,
    port: u16,
    user: &str,
    password: &str,
    tls: bool,
    database: u32,
) -> String {
    let scheme = if tls { "rediss" } else { "redis" };
    let host = match host.parse::<Ipv6Addr>() {
        Ok(address) => format!("[{address}]"),
        Err(_) => host.to_owned(),
    };
    match (user, password) {
        ("", "") => format!("{scheme}://{host}:{port}/{database}"),
        ("", password) => format!("{scheme}://:{}@{host}:{port}/{database}", percent_encoded(password)),
        (user, password) => {
            format!("{scheme}://{}:{}@{host}:{port}/{database}", percent_encoded(user), percent_encoded(password))
        }
    }
}

/// Adds a database to a Redis URL without one (`REDIS_DB` beside `REDIS_URL`). What is not a URL is returned unchanged,
/// and reported when it is read.
pub(super) fn with_redis_database(url: &str, database: u32) -> String {
    let (address, query) = url.split_once('?').map_or((url, ""), |(address, query)| (address, query));
    let Some((scheme, rest)) = address.split_once("://") else { return url.to_owned() };
    // A raw `/` in a password comes before the `@`.
    let hosts = rest.rfind('@').map_or(0, |at| at + 1);
    let path: Vec<_> = rest[hosts..].split('/').skip(1).filter(|part| !part.is_empty()).collect();
    let named = usize::from(scheme.to_ascii_lowercase().ends_with("+sentinel"));
    if path.len() != named {
        return url.to_owned();
    }
    let query = if query.is_empty() { String::new() } else { format!("?{query}") };
    format!("{}/{database}{query}", address.trim_end_matches('/'))
}

/// `REDIS_HOST`: a name or an address, and nothing else.
pub(super) fn redis_host(text: &str) -> Result<(), String> {
    let text = text.trim();
    if text.contains("://") {
        let shown = text.split_once("://").map_or("", |(scheme, _)| scheme);
        let tls = if shown.ends_with('s') { "; for TLS set REDIS_TLS=true" } else { "" };
        return Err(format!("is a host, without \"{}://\"{tls}; put a whole URL into REDIS_URL", self::shown(shown)));
    }
    match text.split_once(':') {
        Some((_, port)) if port.parse::<u16>().is_ok() => Err("is a host without a port; set REDIS_PORT".into()),
        _ => Ok(()),
    }
}

/// Everything but the unreserved characters of RFC 3986 section 2.3.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

fn percent_encoded(text: &str) -> PercentEncode<'_> {
    utf8_percent_encode(text, RESERVED)
}

/// The URL by which a client on the same machine reaches a listening address. A socket for all IPv6 addresses takes IPv4 too.
pub fn url_of(address: SocketAddr, has_tls: bool) -> String {
    let scheme = if has_tls { "https" } else { "http" };
    match address.ip().is_unspecified() {
        true => format!("{scheme}://{}:{}", Ipv4Addr::LOCALHOST, address.port()),
        false => format!("{scheme}://{address}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_kept_as_browsers_send_them() {
        for (text, kept) in [
            ("*", "*"),
            ("https://App.Example.com/", "https://app.example.com"),
            ("https://app.example.com:443", "https://app.example.com"),
            ("http://localhost:5173", "http://localhost:5173"),
            ("capacitor://localhost", "capacitor://localhost"),
            ("http://[::1]:80", "http://[::1]"),
            ("null", "null"),
            ("file://", "file://"),
            ("https://*.Example.com:443", "https://*.example.com"),
        ] {
            assert_eq!(origin(text).as_deref(), Ok(kept), "{text}");
        }
        for bad in [
            "",
            "app.example.com",
            "https://",
            "https://a/b",
            "https://a?b",
            "https://*.com",
            "https://a.*.com",
            "https://*a.com",
            "https://*.*.a.com",
            "https://*",
            "file:///",
            "https://u:p@a",
            "https://a:0",
            "https://a:b",
            "https://a b",
        ] {
            assert!(origin(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn redis_urls_are_checked_and_never_shown() {
        for good in [
            "redis://127.0.0.1:6379/0",
            "rediss://user:p%40ss@redis.example.com:6380",
            "redis+sentinel://h1:26379,h2:26379/mymaster",
            "redis+cluster://:secret@h1:7000,h2:7001",
        ] {
            assert_eq!(redis_url(good).as_deref(), Ok(good));
        }
        for bad in [
            "127.0.0.1:6379",
            "http://h-secret",
            "redis://",
            "redis://h/db-secret",
            "redis://u:p/secret@h:1",
            "redis+sentinel://secret-h1:1",
            "redis+cluster://,secret",
            "redis://h:port-secret",
            "rediss://:secret@h#insecure",
        ] {
            let message = redis_url(bad).unwrap_err();
            assert!(!message.contains("secret"), "{bad}: {message}");
        }
    }

    #[test]
    fn passwords_are_masked() {
        assert_eq!(without_query("https://h/p?key=secret#x"), "https://h/p?***");
        assert_eq!(without_query("https://h/p"), "https://h/p");
        assert_eq!(masked_url("redis://u:p@h:1/0"), "redis://u:***@h:1/0");
        assert_eq!(masked_url("redis://:p@h"), "redis://:***@h");
        assert_eq!(masked_url("redis://h:6379/0"), "redis://h:6379/0");
        assert_eq!(masked_url("redis://u:p/q@h:1/0"), "redis://***@h:1/0");
        assert_eq!(masked_url("redis+sentinel://u:p@h1:1,h2:2/m"), "redis+sentinel://u:***@h1:1,h2:2/m");
        let both = masked_url("redis+sentinel://u:p@h/m?sentinel_username=a&sentinel_password=p");
        assert_eq!(both, "redis+sentinel://u:***@h/m?sentinel_username=a&sentinel_password=***");
    }

    #[test]
    fn parts_make_a_url_that_the_library_reads_back() {
        let url = redis_url_of_parts("h", 1, "ü:s", "p/@:?#%", false, 0);
        let client = redis::Client::open(url.as_str()).unwrap();
        assert_eq!(client.get_connection_info().redis_settings().password(), Some("p/@:?#%"));
        assert_eq!(redis_url_of_parts("::1", 1, "", "", true, 3), "rediss://[::1]:1/3");
    }

    #[test]
    fn a_database_is_added_where_none_is_named() {
        for (url, expected) in [
            ("redis://h:1", "redis://h:1/3"),
            ("redis://h:1/", "redis://h:1/3"),
            ("redis://h:1/0", "redis://h:1/0"),
            ("rediss://u:p%2F@h", "rediss://u:p%2F@h/3"),
            ("redis+sentinel://h1,h2/m", "redis+sentinel://h1,h2/m/3"),
            ("redis+sentinel://h1/m?sentinel_password=x", "redis+sentinel://h1/m/3?sentinel_password=x"),
            ("redis+sentinel://h1/m/2", "redis+sentinel://h1/m/2"),
            ("no url", "no url"),
        ] {
            assert_eq!(with_redis_database(url, 3), expected);
        }
    }

    #[test]
    fn a_host_is_not_a_url() {
        for good in ["h", "redis.example.com", "10.0.0.1", "::1", "fe80::1"] {
            assert_eq!(redis_host(good), Ok(()), "{good}");
        }
        assert!(redis_host("tls://h").unwrap_err().contains("REDIS_TLS=true"));
        assert!(redis_host("redis://h:6379").unwrap_err().contains("REDIS_URL"));
        assert!(redis_host("h:6379").unwrap_err().contains("REDIS_PORT"));
    }
}
