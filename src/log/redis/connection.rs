//! Where Redis is, and connections to it that each serve one job (DESIGN 10).
//!
//! The `redis` crate's own response timeout (500 ms) would break `XREAD BLOCK` and is off; every call here has its own.

use redis::aio::{ConnectionLike as _, MultiplexedConnection};
use redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _, Pipeline,
    ProtocolVersion, PushInfo, RedisError, ServerError, Value,
};
use std::fmt;
use std::time::Duration;

/// A peer that is gone without a word is noticed after this; calls in flight have shorter timeouts of their own.
const KEEPALIVE: Duration = Duration::from_secs(10);
/// Reconnections are at most this far apart.
const LONGEST_BACKOFF: Duration = Duration::from_secs(2);
const FIRST_BACKOFF: Duration = Duration::from_millis(50);

/// Why a `redis.url` cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedisUrlError {
    /// No URL was given.
    Missing,
    /// Not a Redis URL; the parser's own words, which never hold the password.
    Invalid(String),
    /// A scheme that is not served.
    Scheme(String),
    /// TLS without checking the certificate.
    Insecure,
}

impl RedisUrlError {
    /// A stable name.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Missing => "redis_url_missing",
            Self::Invalid(_) => "redis_url_invalid",
            Self::Scheme(_) => "redis_url_scheme",
            Self::Insecure => "redis_url_insecure",
        }
    }
}

impl fmt::Display for RedisUrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("`redis.url` is not set"),
            Self::Invalid(why) => {
                write!(f, "`redis.url` is not a Redis URL ({why}); write redis://user:password@host:6379/0")
            }
            Self::Scheme(scheme) => write!(f, "`redis.url`: scheme \"{scheme}\" is not served; use redis or rediss"),
            Self::Insecure => f.write_str(
                "`redis.url`: #insecure is not served; let SSL_CERT_FILE name the CA that signed the server",
            ),
        }
    }
}

impl std::error::Error for RedisUrlError {}

/// Knows where Redis is. One Redis server for now; this is the place that will ask Sentinel or a Cluster.
#[derive(Debug)]
pub(crate) struct Connector {
    info: ConnectionInfo,
}

impl Connector {
    /// Reads a `redis://` or `rediss://` URL.
    pub fn new(url: &str) -> Result<Self, RedisUrlError> {
        let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme);
        if !matches!(scheme, "redis" | "rediss") {
            let plain = scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
            return Err(match plain && !scheme.is_empty() {
                true => RedisUrlError::Scheme(scheme.into()),
                false => RedisUrlError::Invalid("no scheme".into()),
            });
        }
        let invalid = |error: RedisError| RedisUrlError::Invalid(error.to_string());
        let info = url.into_connection_info().map_err(invalid)?;
        if let ConnectionAddr::TcpTls { insecure, .. } = info.addr() {
            if *insecure {
                return Err(RedisUrlError::Insecure);
            }
            // Without a default provider rustls panics; another part of the process may have set one already.
            let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        }
        let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 2);
        let tcp = TcpSettings::default().set_nodelay(true).set_keepalive(keepalive).set_user_timeout(KEEPALIVE);
        Ok(Self { info: info.set_tcp_settings(tcp) })
    }

    /// Host and port, without credentials.
    pub fn address(&self) -> String {
        self.info.addr().to_string()
    }

    async fn connect(
        &self,
        protocol: ProtocolVersion,
        config: AsyncConnectionConfig,
        timeout: Duration,
    ) -> Result<MultiplexedConnection, LinkError> {
        let redis = self.info.redis_settings().clone().set_protocol(protocol);
        let client = Client::open(self.info.clone().set_redis_settings(redis)).map_err(LinkError::from)?;
        let config = config.set_response_timeout(None).set_connection_timeout(None);
        within(timeout, client.get_multiplexed_async_connection_with_config(&config)).await
    }
}

/// One connection for one job; ends when dropped.
pub(crate) struct Link {
    connection: MultiplexedConnection,
    timeout: Duration,
}

impl Link {
    /// Connects and authenticates within the timeout, which each later call keeps too.
    pub async fn open(connector: &Connector, timeout: Duration) -> Result<Self, LinkError> {
        let config = AsyncConnectionConfig::new();
        Ok(Self { connection: connector.connect(ProtocolVersion::RESP2, config, timeout).await?, timeout })
    }

    /// A connection for subscriptions; RESP3, where messages and answers can share a connection.
    pub async fn subscriber<E: 'static>(
        connector: &Connector,
        timeout: Duration,
        on_push: impl Fn(PushInfo) -> Result<(), E> + Send + Sync + 'static,
    ) -> Result<Self, LinkError> {
        let config = AsyncConnectionConfig::new().set_push_sender(on_push);
        Ok(Self { connection: connector.connect(ProtocolVersion::RESP3, config, timeout).await?, timeout })
    }

    /// Sends one command; an error answer is an error.
    pub async fn call(&mut self, command: &Cmd) -> Result<Value, LinkError> {
        self.call_blocking(command, Duration::ZERO).await
    }

    /// Sends a command that Redis may sit on for a while.
    pub async fn call_blocking(&mut self, command: &Cmd, block: Duration) -> Result<Value, LinkError> {
        let value = within(self.timeout + block, self.connection.req_packed_command(command)).await?;
        value.extract_error().map_err(LinkError::from)
    }

    /// Sends several commands at once; one answer each, error answers among them as [`Value::ServerError`].
    pub async fn pipeline(&mut self, pipeline: &Pipeline) -> Result<Vec<Value>, LinkError> {
        within(self.timeout, self.connection.req_packed_commands(pipeline, 0, pipeline.len())).await
    }

    /// Subscribes to a channel.
    pub async fn subscribe(&mut self, channel: &str) -> Result<(), LinkError> {
        within(self.timeout, self.connection.subscribe(channel)).await
    }
}

async fn within<T>(timeout: Duration, call: impl Future<Output = Result<T, RedisError>>) -> Result<T, LinkError> {
    match tokio::time::timeout(timeout, call).await {
        Ok(done) => done.map_err(LinkError::from),
        Err(_) => Err(LinkError::Timeout(timeout)),
    }
}

/// Why a call on a connection failed.
#[derive(Debug)]
pub(crate) enum LinkError {
    /// No answer in time.
    Timeout(Duration),
    /// Redis answered with an error.
    Server(String),
    /// The connection could not be made, or is lost.
    Lost(String),
    /// An answer of another shape than the command has.
    Unexpected(&'static str),
}

impl From<RedisError> for LinkError {
    fn from(error: RedisError) -> Self {
        match ServerError::try_from(error) {
            Ok(answer) => Self::Server(server_text(&answer)),
            Err(error) => Self::Lost(error.to_string()),
        }
    }
}

/// An error answer as Redis wrote it.
pub(super) fn server_text(error: &ServerError) -> String {
    match error.details() {
        Some(details) => format!("{} {details}", error.code()),
        None => error.code().to_owned(),
    }
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Timeout(after) => write!(f, "Redis did not answer within {after:?}"),
            Self::Server(text) => write!(f, "Redis answered: {text}"),
            Self::Lost(why) => write!(f, "no connection to Redis: {why}"),
            Self::Unexpected(what) => write!(f, "Redis answered {what} in an unknown form"),
        }
    }
}

/// Pauses between attempts to connect: doubling, with jitter so that nodes do not come all at once.
pub(crate) struct Backoff {
    next: Duration,
    reported: String,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: FIRST_BACKOFF, reported: String::new() }
    }
}

impl Backoff {
    /// After a success.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// Logs why something is interrupted, once for each reason in a row.
    pub fn report(&mut self, what: &str, connector: &Connector, error: &LinkError) {
        let error = error.to_string();
        if error != self.reported {
            tracing::warn!(error, redis = connector.address(), "{what} is interrupted; trying again");
            self.reported = error;
        }
    }

    /// Waits before the next attempt.
    pub async fn wait(&mut self) {
        let pause = self.next.mul_f64(rand::random_range(0.5..1.0));
        self.next = (self.next * 2).min(LONGEST_BACKOFF);
        tokio::time::sleep(pause).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_checked_without_showing_the_password() {
        let connector = Connector::new("redis://user:p%40ss@example.com:7000/3").unwrap();
        assert_eq!(connector.address(), "example.com:7000");
        assert_eq!(connector.info.redis_settings().password(), Some("p@ss"));
        assert!(Connector::new("rediss://:secret@example.com").is_ok());
        for (code, url) in [
            ("redis_url_scheme", "http://:secret@example.com"),
            ("redis_url_scheme", "unix:///tmp/x"),
            ("redis_url_invalid", "secret"),
            ("redis_url_invalid", "secret@x://y"),
            ("redis_url_invalid", "redis://:secret@example.com/x"),
            ("redis_url_invalid", "redis://:secret@example.com:99999"),
            ("redis_url_insecure", "rediss://:secret@example.com/#insecure"),
        ] {
            let error = Connector::new(url).unwrap_err();
            assert_eq!(error.code(), code, "{url}");
            assert!(!format!("{error} {error:?}").contains("secret"), "{error}");
        }
    }
}
