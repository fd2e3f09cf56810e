//! `redis.url`: one server, Sentinels that name the master, or nodes of a Cluster.

use percent_encoding::percent_decode_str;
use redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};
use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _, RedisConnectionInfo, RedisError};
use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

/// A server that disappears without closing its connections is noticed after this. Calls have shorter timeouts.
pub(super) const KEEPALIVE: Duration = Duration::from_secs(10);
const MAX_HOSTS: usize = 32;
const DEFAULT_PORT: u16 = 6379;
const DEFAULT_SENTINEL_PORT: u16 = 26379;

/// Why a `redis.url` cannot be used. No message shows the URL: it may contain a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`redis.url` {}", self.problem())]
pub enum RedisUrlError {
    /// `redis.url` is not set.
    Missing,
    /// Not a Redis URL; the text says why.
    Invalid(String),
    /// An unknown scheme.
    Scheme,
    /// The URL asks for TLS without certificate checks.
    Insecure,
}

impl RedisUrlError {
    /// A stable name for tests and tools.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Missing => "redis_url_missing",
            Self::Invalid(_) => "redis_url_invalid",
            Self::Scheme => "redis_url_scheme",
            Self::Insecure => "redis_url_insecure",
        }
    }

    /// What is wrong, to be written after the key's name.
    pub fn problem(&self) -> &str {
        match self {
            Self::Missing => "is not set",
            Self::Invalid(reason) => reason,
            Self::Scheme => "must start with redis://, rediss://, redis+sentinel:// or redis+cluster://",
            Self::Insecure => {
                "must not have a `#`: percent-encode it in the password; certificates are always checked, and \
                 SSL_CERT_FILE names the CA that signed them"
            }
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Address {
    pub host: String,
    pub port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// Who knows which server holds the data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Topology {
    Server(Address),
    Sentinel {
        sentinels: Vec<Address>,
        master: String,
    },
    /// Any nodes of a Cluster; they name the others.
    Cluster {
        seeds: Vec<Address>,
    },
}

/// A parsed `redis.url`.
#[derive(Clone, Debug)]
pub(crate) struct RedisUrl {
    pub(super) topology: Topology,
    /// Login and database at the servers that hold data.
    data: RedisConnectionInfo,
    /// Login at the Sentinels.
    sentinel: RedisConnectionInfo,
    tls: bool,
}

impl RedisUrl {
    /// Parses `redis://`, `redis+sentinel://` or `redis+cluster://`, or the same with `rediss` for TLS.
    pub(crate) fn parse(url: &str) -> Result<Self, RedisUrlError> {
        let (scheme, rest) =
            url.split_once("://").ok_or_else(|| invalid("must be a URL like redis://127.0.0.1:6379/0"))?;
        let scheme = scheme.to_ascii_lowercase();
        let (transport, kind) = scheme.split_once('+').unwrap_or((&scheme, ""));
        let tls = match transport {
            "redis" => false,
            "rediss" => true,
            "tls" | "ssl" | "redis-tls" => return Err(invalid("must start with rediss:// for TLS")),
            _ => return Err(RedisUrlError::Scheme),
        };
        if url.contains('#') {
            return Err(RedisUrlError::Insecure);
        }
        let parts = Parts::of(rest);
        parts.check_host_is_no_url()?;
        let topology = match kind {
            "" => Topology::Server(parts.single_host()?),
            "sentinel" => {
                let master = parts.path.split('/').next().filter(|name| !name.is_empty());
                let master = master
                    .ok_or_else(|| invalid("must name the master: redis+sentinel://h1:26379,h2:26379/mymaster"))?;
                Topology::Sentinel { sentinels: parts.hosts(DEFAULT_SENTINEL_PORT)?, master: percent_decoded(master)? }
            }
            "cluster" => Topology::Cluster { seeds: parts.hosts(DEFAULT_PORT)? },
            _ => return Err(RedisUrlError::Scheme),
        };
        let database = match kind {
            "sentinel" => parts.path.split_once('/').map_or("", |(_, database)| database),
            _ => parts.path,
        };
        if kind == "cluster" && !matches!(database, "" | "0") {
            return Err(invalid("must not have a database: a Cluster has only 0"));
        }
        let data = login(parts.login, database)?;
        let sentinel = match kind {
            "sentinel" => login(&sentinel_login(parts.query)?, "")?,
            _ => match parts.query.split('&').find(|pair| !pair.is_empty()) {
                Some(pair) => return Err(misplaced(pair)),
                None => RedisConnectionInfo::default(),
            },
        };
        Ok(Self { topology, data, sentinel, tls })
    }

    /// The servers in the URL, without credentials.
    pub(crate) fn describe(&self) -> String {
        let list = |hosts: &[Address]| hosts.iter().map(Address::to_string).collect::<Vec<_>>().join(",");
        match &self.topology {
            Topology::Server(address) => address.to_string(),
            Topology::Sentinel { sentinels, master } => format!("{master} of the Sentinels at {}", list(sentinels)),
            Topology::Cluster { seeds } => format!("the Cluster at {}", list(seeds)),
        }
    }

    /// How to connect to a server that holds data.
    pub(super) fn data_server(&self, address: &Address) -> ConnectionInfo {
        self.connection_info(address, &self.data)
    }

    /// How to connect to a Sentinel.
    pub(super) fn sentinel(&self, address: &Address) -> ConnectionInfo {
        self.connection_info(address, &self.sentinel)
    }

    fn connection_info(&self, address: &Address, settings: &RedisConnectionInfo) -> ConnectionInfo {
        let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 2);
        let tcp = TcpSettings::default().set_nodelay(true).set_keepalive(keepalive).set_user_timeout(KEEPALIVE);
        let host = address.host.clone();
        let plain = (host.clone(), address.port).into_connection_info().expect("a pair is always an address");
        let plain = plain.set_redis_settings(settings.clone()).set_tcp_settings(tcp);
        match self.tls {
            false => plain,
            true => {
                // Without a default provider rustls panics; another part of the process may have set one already.
                let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
                plain.set_addr(ConnectionAddr::TcpTls { host, port: address.port, insecure: false, tls_params: None })
            }
        }
    }
}

/// The parts after `scheme://`.
struct Parts<'a> {
    /// `user:password@`, or empty.
    login: &'a str,
    hosts: &'a str,
    path: &'a str,
    query: &'a str,
}

impl<'a> Parts<'a> {
    fn of(rest: &'a str) -> Self {
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let at = rest.rfind('@').map_or(0, |at| at + 1);
        let (login, rest) = rest.split_at(at);
        let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
        Self { login, hosts, path: path.trim_end_matches('/'), query }
    }

    /// `redis://tls://h`: what `REDIS_HOST=tls://h` or a copied URL makes.
    fn check_host_is_no_url(&self) -> Result<(), RedisUrlError> {
        match self.hosts.ends_with(':') && self.path.starts_with('/') {
            true => Err(invalid("has a second scheme where its host should be; for TLS write rediss://host:6379")),
            false => Ok(()),
        }
    }

    fn single_host(&self) -> Result<Address, RedisUrlError> {
        match self.hosts.contains(',') {
            true => Err(invalid("must name one host; several are for redis+sentinel:// and redis+cluster://")),
            false => address(self.hosts, DEFAULT_PORT),
        }
    }

    fn hosts(&self, default_port: u16) -> Result<Vec<Address>, RedisUrlError> {
        let hosts: Vec<Address> =
            self.hosts.split(',').map(|host| address(host, default_port)).collect::<Result<_, _>>()?;
        match hosts.len() <= MAX_HOSTS {
            true => Ok(hosts),
            false => Err(RedisUrlError::Invalid(format!("must not name more than {MAX_HOSTS} hosts"))),
        }
    }
}

fn invalid(reason: &str) -> RedisUrlError {
    RedisUrlError::Invalid(reason.into())
}

const NOT_A_URL: &str =
    "must be a URL like redis://user:password@127.0.0.1:6379/0 (percent-encode / @ : ? # in the password)";

/// Lets the client library parse a URL. The part of its errors before " - " is a fixed text; the rest may quote the URL.
fn parse_with_client(url: &str) -> Result<ConnectionInfo, RedisUrlError> {
    let without_url = |error: RedisError| {
        let error = error.to_string();
        RedisUrlError::Invalid(format!("{NOT_A_URL}: {}", error.split(" - ").next().unwrap_or("refused")))
    };
    url.into_connection_info().map_err(without_url)
}

/// `host`, `host:port`, `[::1]:port`.
fn address(text: &str, default_port: u16) -> Result<Address, RedisUrlError> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
    if text.is_empty() || !text.bytes().all(good) {
        return Err(invalid("must name its hosts like redis://h, redis+sentinel://h1:26379,h2:26379/mymaster"));
    }
    let has_port = text.rsplit_once(':').is_some_and(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()));
    let has_port = has_port && !text.ends_with(']');
    match parse_with_client(&format!("redis://{text}"))?.addr() {
        ConnectionAddr::Tcp(_, 0) => Err(invalid("must not have port 0")),
        ConnectionAddr::Tcp(host, port) => {
            Ok(Address { host: host.clone(), port: if has_port { *port } else { default_port } })
        }
        _ => Err(invalid(NOT_A_URL)),
    }
}

/// Settings for `user:password@` and a database.
fn login(login: &str, database: &str) -> Result<RedisConnectionInfo, RedisUrlError> {
    Ok(parse_with_client(&format!("redis://{login}h/{database}"))?.redis_settings().clone())
}

fn percent_decoded(text: &str) -> Result<String, RedisUrlError> {
    percent_decode_str(text).decode_utf8().map(Cow::into_owned).map_err(|_| invalid(NOT_A_URL))
}

/// What to write instead of a parameter of the query (`db=3`). One that is not known is not shown: it may be the rest of a
/// password with a raw `?`.
fn misplaced(pair: &str) -> RedisUrlError {
    let name = pair.split_once('=').map_or(pair, |(name, _)| name).to_ascii_lowercase();
    invalid(match name.as_str() {
        "db" | "database" => "must not have ?db=: write the database behind the host, as in redis://host:6379/3",
        "tls" | "ssl" => "must not have ?tls= or ?ssl=: start it with rediss:// for TLS",
        "user" | "username" | "password" | "pass" | "auth" => {
            "must not have a user or password as query: write them before the host, as in redis://user:password@host"
        }
        "master" | "mastername" | "master_name" | "sentinelmasterid" | "service_name" => {
            "must not name the master as query: write it behind the hosts, as in redis+sentinel://h1:26379/mymaster"
        }
        "family" => "must not have ?family=: IPv4 and IPv6 are both tried; take it out",
        "ssl_cert_reqs" | "insecure" | "skipverify" | "rejectunauthorized" => {
            "must not turn the check of certificates off; SSL_CERT_FILE names the CA that signed them"
        }
        _ => {
            "has a query parameter (`?…`) that is not known; only redis+sentinel:// takes some, ?sentinel_username= and \
             &sentinel_password= (percent-encode a `?` in the password as %3F)"
        }
    })
}

/// `sentinel_username` and `sentinel_password` of a query, as `user:password@`.
fn sentinel_login(query: &str) -> Result<String, RedisUrlError> {
    let (mut user, mut password) = ("", "");
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some(("sentinel_username", value)) => user = value,
            Some(("sentinel_password", value)) => password = value,
            _ => return Err(misplaced(pair)),
        }
    }
    Ok(if password.is_empty() { String::new() } else { format!("{user}:{password}@") })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(url: &str) -> ConnectionInfo {
        let url = RedisUrl::parse(url).unwrap();
        let Topology::Server(address) = &url.topology else { panic!("{url:?}") };
        url.data_server(address)
    }

    #[test]
    fn a_server_has_a_user_a_password_and_a_database() {
        let info = server("redis://user:p%40ss@example.com:7000/3");
        assert_eq!(info.addr().to_string(), "example.com:7000");
        let settings = info.redis_settings();
        assert_eq!((settings.username(), settings.password(), settings.db()), (Some("user"), Some("p@ss"), 3));
        assert_eq!(server("redis://h").addr().to_string(), "h:6379");
        assert!(matches!(server("rediss://:x@[::1]").addr(), ConnectionAddr::TcpTls { host, .. } if host == "::1"));
    }

    #[test]
    fn sentinels_have_their_own_credentials_or_none() {
        let url = "redis+sentinel://u:p@h1:1,h2/my%20master/2";
        let read = RedisUrl::parse(url).unwrap();
        let Topology::Sentinel { sentinels, master } = &read.topology else { panic!("{read:?}") };
        assert_eq!(master, "my master");
        assert_eq!(sentinels.iter().map(Address::to_string).collect::<Vec<_>>(), ["h1:1", "h2:26379"]);
        assert_eq!(read.sentinel(&sentinels[0]).redis_settings().password(), None);
        let data = read.data_server(&sentinels[0]);
        assert_eq!((data.redis_settings().password(), data.redis_settings().db()), (Some("p"), 2));
        let with = RedisUrl::parse(&format!("{url}?sentinel_username=a&sentinel_password=%26b")).unwrap();
        let at = with.sentinel(&sentinels[0]);
        assert_eq!((at.redis_settings().username(), at.redis_settings().password()), (Some("a"), Some("&b")));
    }

    #[test]
    fn a_cluster_has_seeds() {
        let read = RedisUrl::parse("rediss+cluster://:p@h1:7000,[::1]:7001,h3").unwrap();
        let Topology::Cluster { seeds } = &read.topology else { panic!("{read:?}") };
        assert_eq!(seeds.iter().map(Address::to_string).collect::<Vec<_>>(), ["h1:7000", "[::1]:7001", "h3:6379"]);
        assert_eq!(read.describe(), "the Cluster at h1:7000,[::1]:7001,h3:6379");
        assert!(matches!(read.data_server(&seeds[0]).addr(), ConnectionAddr::TcpTls { .. }));
    }

    #[test]
    fn a_query_is_never_ignored_and_the_right_place_is_named() {
        for (url, hint) in [
            ("redis://h?db=3", "redis://host:6379/3"),
            ("redis://h:1/0?database=3", "redis://host:6379/3"),
            ("rediss://h?DB=3", "redis://host:6379/3"),
            ("redis://h?tls=true", "rediss://"),
            ("redis://h?ssl=true", "rediss://"),
            ("redis://h?password=secret", "user:password@host"),
            ("redis://h?username=secret", "user:password@host"),
            ("redis+cluster://h?password=secret", "user:password@host"),
            ("redis+sentinel://h/m?db=3", "redis://host:6379/3"),
            ("redis+sentinel://h?master=m", "must name the master"),
            ("redis://h?ssl_cert_reqs=none", "SSL_CERT_FILE"),
            ("redis://h?family=0", "take it out"),
            ("redis://h?secret=1", "not known"),
            ("redis://h?&secret", "not known"),
            ("redis://tls://h:6379", "rediss://host:6379"),
            ("redis://tls://h:6379/0", "rediss://host:6379"),
            ("tls://h:6379", "rediss://"),
        ] {
            let problem = RedisUrl::parse(url).unwrap_err().problem().to_owned();
            assert!(problem.contains(hint) && !problem.contains("secret"), "{url}: {problem}");
        }
        assert!(RedisUrl::parse("redis://h?").is_ok() && RedisUrl::parse("redis://h/3?&").is_ok());
    }

    #[test]
    fn errors_do_not_show_the_password() {
        for (code, url) in [
            ("redis_url_scheme", "http://:secret@example.com"),
            ("redis_url_scheme", "unix:///tmp/x"),
            ("redis_url_scheme", "redis+secret://h"),
            ("redis_url_scheme", "secret@x://y"),
            ("redis_url_invalid", "secret"),
            ("redis_url_invalid", "redis://"),
            ("redis_url_invalid", "redis://h:0"),
            ("redis_url_invalid", "redis://a,b-secret"),
            ("redis_url_invalid", "redis://u:p/secret@h:1/x"),
            ("redis_url_invalid", "redis://:secret@example.com/x"),
            ("redis_url_invalid", "redis://:secret@example.com:99999"),
            ("redis_url_invalid", "redis+sentinel://:secret@h1:1,h2:2"),
            ("redis_url_invalid", "redis+sentinel://:secret@h1:1,,h2:2/m"),
            ("redis_url_invalid", "redis+sentinel://h1/m?sentinel_secret=secret"),
            ("redis_url_invalid", "redis+sentinel://h1/m/secret"),
            ("redis_url_invalid", "redis+cluster://:secret@h1/1"),
            ("redis_url_invalid", "redis+cluster://h1?secret"),
            ("redis_url_insecure", "rediss://:secret@example.com/#insecure"),
        ] {
            let error = RedisUrl::parse(url).unwrap_err();
            assert_eq!(error.code(), code, "{url}");
            assert!(!format!("{error} {error:?}").contains("secret"), "{error}");
        }
    }
}
