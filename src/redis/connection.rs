//! Connections to whoever holds the data, each for one job (DESIGN 10), and where to find it.
//!
//! The `redis` crate's own response timeout (500 ms) would break `XREAD BLOCK` and is off; every call here has its own.

use crate::redis::config::RedisConfig;
use crate::redis::discovery;
use crate::redis::reply::text;
use crate::redis::url::{Address, Place, RedisUrl, RedisUrlError};
use redis::aio::{ConnectionLike as _, MultiplexedConnection};
use redis::{AsyncConnectionConfig, Client, Cmd, Pipeline, ProtocolVersion, PushInfo, RedisError, ServerError, Value};
use std::sync::Arc;
use std::time::Duration;

/// What Sentinels said counts for so long.
const SENTINELS_ASKED_EVERY: Duration = Duration::from_secs(1);

/// Error answers that say: not here, or not now. Another connection, placed anew, may serve.
const DISPLACED: [&str; 8] =
    ["MOVED", "ASK", "CLUSTERDOWN", "TRYAGAIN", "READONLY", "MASTERDOWN", "LOADING", "UNBLOCKED"];

/// Finds the Redis that holds a key, each time anew: the one server, the master that Sentinels name, or the owner of
/// the key's slot in a Cluster.
#[derive(Clone, Debug)]
pub(crate) struct Connector {
    url: Arc<RedisUrl>,
    key: Arc<str>,
    slot: u16,
    known: Arc<discovery::Known>,
}

impl Connector {
    /// To whoever holds the stream, and with it all keys that have its tag.
    ///
    /// # Errors
    /// When there is no URL or it cannot be used.
    pub(crate) fn new(config: &RedisConfig) -> Result<Self, RedisUrlError> {
        let url = RedisUrl::parse(config.url.as_ref().ok_or(RedisUrlError::Missing)?.reveal())?;
        let key = config.events_key();
        Ok(Self { url: Arc::new(url), slot: discovery::slot(&key), key: key.into(), known: Arc::default() })
    }

    /// To whoever holds another key; `None` where that is the same server anyway.
    pub(crate) fn elsewhere(&self, key: &str) -> Option<Self> {
        let slot = discovery::slot(key);
        (self.is_cluster() && slot != self.slot).then(|| Self { slot, key: key.into(), ..self.clone() })
    }

    fn is_cluster(&self) -> bool {
        matches!(self.url.place, Place::Cluster { .. })
    }

    /// Who is asked, without credentials.
    pub(crate) fn address(&self) -> String {
        self.url.names()
    }

    async fn connect(
        &self,
        protocol: ProtocolVersion,
        config: &AsyncConnectionConfig,
        timeout: Duration,
    ) -> Result<(MultiplexedConnection, Address), LinkError> {
        let mut problem = LinkError::Lost("no address".into());
        for address in discovery::locate(&self.known, &self.url, self.slot, timeout).await? {
            match self.dial(&address, protocol, config, timeout).await {
                Ok(connection) => return Ok((connection, address)),
                Err(error) => problem = error.at(&address),
            }
        }
        Err(problem)
    }

    async fn dial(
        &self,
        address: &Address,
        protocol: ProtocolVersion,
        config: &AsyncConnectionConfig,
        timeout: Duration,
    ) -> Result<MultiplexedConnection, LinkError> {
        let info = self.url.data_at(address);
        let settings = info.redis_settings().clone().set_protocol(protocol);
        let client = Client::open(info.set_redis_settings(settings)).map_err(LinkError::from)?;
        let config = config.clone().set_response_timeout(None).set_connection_timeout(None);
        let mut connection = within(timeout, client.get_multiplexed_async_connection_with_config(&config)).await?;
        check_role(&mut connection, timeout).await?;
        Ok(connection)
    }

    /// Whether Sentinels name another master than this by now.
    fn has_left(&self, address: &Address, timeout: Duration) -> bool {
        matches!(self.url.place, Place::Sentinel { .. })
            && self.known.named(&self.url, SENTINELS_ASKED_EVERY, timeout).is_some_and(|named| named != *address)
    }
}

/// Asks whether it is a master; a user without the right to ask is believed.
async fn check_role(connection: &mut MultiplexedConnection, timeout: Duration) -> Result<(), LinkError> {
    let answer = within(timeout, connection.req_packed_command(&redis::cmd("ROLE"))).await?;
    match answer.extract_error().map_err(LinkError::from) {
        Ok(Value::Array(role)) if role.first().and_then(text) == Some("master") => Ok(()),
        Ok(_) => Err(LinkError::Displaced("it is a replica, which takes no events; the master is needed".into())),
        Err(LinkError::Server(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

/// One connection for one job; ends when dropped.
pub(crate) struct Link {
    connection: MultiplexedConnection,
    connector: Connector,
    address: Address,
    timeout: Duration,
}

impl Link {
    /// Finds the place, connects and authenticates, each step within the timeout, which each later call keeps too.
    pub(crate) async fn open(connector: &Connector, timeout: Duration) -> Result<Self, LinkError> {
        Self::connect(connector, ProtocolVersion::RESP2, &AsyncConnectionConfig::new(), timeout).await
    }

    /// A connection for subscriptions; RESP3, where messages and answers can share a connection.
    pub(crate) async fn subscriber<E: 'static>(
        connector: &Connector,
        timeout: Duration,
        on_push: impl Fn(PushInfo) -> Result<(), E> + Send + Sync + 'static,
    ) -> Result<Self, LinkError> {
        let config = AsyncConnectionConfig::new().set_push_sender(on_push);
        Self::connect(connector, ProtocolVersion::RESP3, &config, timeout).await
    }

    async fn connect(
        connector: &Connector,
        protocol: ProtocolVersion,
        config: &AsyncConnectionConfig,
        timeout: Duration,
    ) -> Result<Self, LinkError> {
        let (connection, address) = connector.connect(protocol, config, timeout).await?;
        Ok(Self { connection, connector: connector.clone(), address, timeout })
    }

    /// The server at the other end: host and port.
    pub(crate) fn peer(&self) -> String {
        self.address.to_string()
    }

    /// Asks whether the peer lives and still is the one to talk to. To be called about once a second: nothing else
    /// shows an idle connection that its master was replaced.
    pub(crate) async fn check(&mut self) -> Result<(), LinkError> {
        if self.connector.has_left(&self.address, self.timeout) {
            return Err(LinkError::Displaced(format!("Sentinels name another master than {}", self.address)));
        }
        check_role(&mut self.connection, self.timeout).await?;
        if self.connector.is_cluster() {
            // The slot may have moved, and its former owner be in good health.
            self.call(redis::cmd("EXISTS").arg(&*self.connector.key)).await?;
        }
        Ok(())
    }

    /// Sends one command; an error answer is an error.
    pub(crate) async fn call(&mut self, command: &Cmd) -> Result<Value, LinkError> {
        self.call_blocking(command, Duration::ZERO).await
    }

    /// Sends a command that Redis may sit on for a while.
    pub(crate) async fn call_blocking(&mut self, command: &Cmd, block: Duration) -> Result<Value, LinkError> {
        let value = within(self.timeout + block, self.connection.req_packed_command(command)).await?;
        value.extract_error().map_err(LinkError::from)
    }

    /// Sends several commands at once; one answer each, error answers among them as [`Value::ServerError`]. An answer
    /// that says "not here" is an error of the whole.
    pub(crate) async fn pipeline(&mut self, pipeline: &Pipeline) -> Result<Vec<Value>, LinkError> {
        let answers = self.pipeline_each(pipeline).await?;
        displaced(&answers).map_or(Ok(answers), Err)
    }

    /// Like [`Link::pipeline`], but leaves it to the caller to ask [`displaced`].
    pub(crate) async fn pipeline_each(&mut self, pipeline: &Pipeline) -> Result<Vec<Value>, LinkError> {
        let answers = within(self.timeout, self.connection.req_packed_commands(pipeline, 0, pipeline.len())).await?;
        match answers.len() == pipeline.len() {
            true => Ok(answers),
            false => Err(LinkError::Unexpected("a pipeline")),
        }
    }

    /// Subscribes to the channels that match a pattern. Unlike [`Link::subscribe`] it does not count as a subscriber of
    /// any of them (`PUBSUB NUMSUB`).
    pub(crate) async fn psubscribe(&mut self, pattern: &str) -> Result<(), LinkError> {
        within(self.timeout, self.connection.psubscribe(pattern)).await
    }

    /// Subscribes to a channel.
    pub(crate) async fn subscribe(&mut self, channel: &str) -> Result<(), LinkError> {
        within(self.timeout, self.connection.subscribe(channel)).await
    }
}

/// The first answer that says "not here" or "not now", inside arrays too: the connection is of no use any more.
pub(crate) fn displaced(answers: &[Value]) -> Option<LinkError> {
    answers.iter().find_map(|answer| match answer {
        Value::ServerError(error) => match LinkError::from(error.clone()) {
            error @ LinkError::Displaced(_) => Some(error),
            _ => None,
        },
        Value::Array(items) => displaced(items),
        _ => None,
    })
}

pub(super) async fn within<T>(
    timeout: Duration,
    call: impl Future<Output = Result<T, RedisError>>,
) -> Result<T, LinkError> {
    match tokio::time::timeout(timeout, call).await {
        Ok(done) => done.map_err(LinkError::from),
        Err(_) => Err(LinkError::Timeout(timeout)),
    }
}

/// Why a call on a connection failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    /// No answer in time.
    #[error("Redis did not answer within {0:?}")]
    Timeout(Duration),
    /// Redis answered with an error.
    #[error("Redis answered: {0}")]
    Server(String),
    /// The data is not here (any more), or not now: the connection is to be made anew.
    #[error("the data is not here, or not now: {0}")]
    Displaced(String),
    /// The connection could not be made, or is lost.
    #[error("no connection to Redis: {0}")]
    Lost(String),
    /// An answer of another shape than the command has.
    #[error("Redis answered {0} in an unknown form")]
    Unexpected(&'static str),
}

impl LinkError {
    /// Says of whom it is told.
    fn at(self, address: &Address) -> Self {
        match self {
            Self::Lost(why) => Self::Lost(format!("{address}: {why}")),
            Self::Displaced(why) => Self::Displaced(format!("{address}: {why}")),
            other => other,
        }
    }
}

impl From<RedisError> for LinkError {
    fn from(error: RedisError) -> Self {
        match ServerError::try_from(error) {
            Ok(answer) => answer.into(),
            Err(error) => Self::Lost(error.to_string()),
        }
    }
}

impl From<ServerError> for LinkError {
    fn from(error: ServerError) -> Self {
        let text = match error.details() {
            Some(details) => format!("{} {details}", error.code()),
            None => error.code().to_owned(),
        };
        match DISPLACED.contains(&error.code()) {
            true => Self::Displaced(text),
            false => Self::Server(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::secret::Secret;

    fn connector(url: &str) -> Connector {
        let config = RedisConfig { url: Some(Secret::new(url)), ..RedisConfig::default() };
        Connector::new(&config).unwrap()
    }

    #[test]
    fn only_in_a_cluster_other_keys_are_elsewhere() {
        assert!(connector("redis://h").elsewhere("roomcast:dead").is_none());
        let cluster = connector("redis+cluster://h");
        assert!(cluster.elsewhere("roomcast:dead").is_some());
        assert!(cluster.elsewhere("roomcast:{roomcast:events}:epoch").is_none());
        assert_eq!(Connector::new(&RedisConfig::default()).unwrap_err(), RedisUrlError::Missing);
    }

    #[test]
    fn answers_that_displace_are_found_in_scripts_too() {
        let error = |text: &str| match redis::parse_redis_value(text.as_bytes()).unwrap() {
            error @ Value::ServerError(_) => error,
            other => panic!("{other:?}"),
        };
        let refused = error("-OOM command not allowed\r\n");
        assert!(displaced(&[Value::Okay, Value::Array(vec![refused.clone()])]).is_none());
        for code in DISPLACED {
            let answer = error(&format!("-{code} 3999 127.0.0.1:6381\r\n"));
            let found = displaced(&[Value::Okay, Value::Array(vec![refused.clone(), answer])]);
            assert!(matches!(found, Some(LinkError::Displaced(text)) if text.starts_with(code)), "{code}");
        }
    }
}
