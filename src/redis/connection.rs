//! Connections to the server that holds a key, each used for one job (docs/decisions/13-one-redis-connection-per-job.md),
//! and how to find that server.
//!
//! The `redis` crate's own response timeout (500 ms) would break `XREAD BLOCK` and is off; every call here has its own.

use crate::redis::config::RedisConfig;
use crate::redis::dial::{check_role, dial};
use crate::redis::direct::{DirectConnection, Replies};
use crate::redis::discovery;
use crate::redis::error::{RedisError, with_timeout};
use crate::redis::socket::RedisSocket;
use crate::redis::url::{Address, RedisUrl, RedisUrlError, Topology};
use redis::aio::{ConnectionLike as _, MultiplexedConnection};
use redis::{AsyncConnectionConfig, Cmd, ConnectionInfo, Pipeline, ProtocolVersion, PushInfo, Value};
use std::sync::Arc;
use std::time::Duration;

/// Sentinels are asked again for the master after this.
const SENTINEL_INTERVAL: Duration = Duration::from_secs(1);

/// Finds the server that holds a key: the one server, the master that Sentinels name, or the owner of the key's slot
/// in a Cluster. It looks again for each connection.
#[derive(Clone, Debug)]
pub(crate) struct Connector {
    url: Arc<RedisUrl>,
    key: Arc<str>,
    slot: u16,
    discovered: Arc<discovery::Discovered>,
}

impl Connector {
    /// For the log's stream, and all keys that share its hash tag.
    ///
    /// # Errors
    /// When there is no URL or it cannot be used.
    pub(crate) fn new(config: &RedisConfig) -> Result<Self, RedisUrlError> {
        Self::for_stream(config, &config.events_key())
    }

    /// For another stream, and all keys that share its hash tag.
    ///
    /// # Errors
    /// When there is no URL or it cannot be used.
    pub(crate) fn for_stream(config: &RedisConfig, key: &str) -> Result<Self, RedisUrlError> {
        let url = RedisUrl::parse(config.url.as_ref().ok_or(RedisUrlError::Missing)?.reveal())?;
        Ok(Self { url: Arc::new(url), slot: discovery::slot(key), key: key.into(), discovered: Arc::default() })
    }

    /// For another key; `None` where the same server holds it.
    pub(crate) fn for_key(&self, key: &str) -> Option<Self> {
        let slot = discovery::slot(key);
        (self.is_cluster() && slot != self.slot).then(|| Self { slot, key: key.into(), ..self.clone() })
    }

    fn is_cluster(&self) -> bool {
        matches!(self.url.topology, Topology::Cluster { .. })
    }

    /// The configured servers, without credentials.
    pub(crate) fn describe(&self) -> String {
        self.url.describe()
    }

    /// Opens a connection to the server that holds the key, and checks that it is a master.
    async fn connect(&self, kind: Kind<'_>, timeout: Duration) -> Result<RedisConnection, RedisError> {
        let mut last_error = RedisError::Disconnected("no address".into());
        for address in discovery::locate(&self.discovered, &self.url, self.slot, timeout).await? {
            let opened = async {
                let mut link = kind.open(self.url.data_server(&address), timeout).await?;
                check_role(link.call(&redis::cmd("ROLE"), timeout).await)?;
                Ok(link)
            };
            match opened.await {
                Ok(link) => return Ok(RedisConnection { link, connector: self.clone(), address, timeout }),
                Err(error) => last_error = RedisError::at(error, &address),
            }
        }
        Err(last_error)
    }

    /// A connection to a server that was found for the same key, whose bytes the caller reads and writes.
    pub(crate) async fn open_socket(&self, address: &Address, timeout: Duration) -> Result<RedisSocket, RedisError> {
        let opened = RedisSocket::open(&self.url.data_server(address), timeout).await;
        opened.map_err(|error| error.at(address))
    }

    /// Whether Sentinels name another master by now.
    fn was_replaced(&self, address: &Address, timeout: Duration) -> bool {
        matches!(self.url.topology, Topology::Sentinel { .. })
            && self.discovered.master(&self.url, SENTINEL_INTERVAL, timeout).is_some_and(|master| master != *address)
    }
}

/// What connection to open.
#[derive(Clone, Copy)]
enum Kind<'a> {
    Library(ProtocolVersion, &'a AsyncConnectionConfig),
    Direct { max_reply: usize },
}

impl Kind<'_> {
    async fn open(self, info: ConnectionInfo, timeout: Duration) -> Result<Link, RedisError> {
        match self {
            Self::Library(protocol, config) => {
                let settings = info.redis_settings().clone().set_protocol(protocol);
                dial(info.set_redis_settings(settings), config, timeout).await.map(Link::Library)
            }
            Self::Direct { max_reply } => {
                DirectConnection::open(&info, timeout, max_reply).await.map(|direct| Link::Direct(Box::new(direct)))
            }
        }
    }
}

/// How commands go to the server.
enum Link {
    /// By the client library, in a task of its own. A call may be given up before it ends.
    Library(MultiplexedConnection),
    Direct(Box<DirectConnection>),
}

impl Link {
    async fn call(&mut self, command: &Cmd, timeout: Duration) -> Result<Value, RedisError> {
        let value = match self {
            Self::Library(connection) => with_timeout(timeout, connection.req_packed_command(command)).await?,
            Self::Direct(connection) => {
                let mut values = connection.values(&command.get_packed_command(), 1, timeout).await?;
                values.pop().unwrap_or_default()
            }
        };
        value.extract_error().map_err(RedisError::from)
    }

    async fn pipeline(&mut self, pipeline: &Pipeline, timeout: Duration) -> Result<Vec<Value>, RedisError> {
        match self {
            Self::Library(connection) => {
                with_timeout(timeout, connection.req_packed_commands(pipeline, 0, pipeline.len())).await
            }
            Self::Direct(connection) => {
                connection.values(&pipeline.get_packed_pipeline(), pipeline.len(), timeout).await
            }
        }
    }

    fn subscriber(&mut self) -> Result<&mut MultiplexedConnection, RedisError> {
        match self {
            Self::Library(connection) => Ok(connection),
            Self::Direct(_) => Err(RedisError::UnexpectedReply("a subscription on a connection for calls")),
        }
    }
}

/// One connection for one job; closed when dropped.
pub(crate) struct RedisConnection {
    link: Link,
    connector: Connector,
    address: Address,
    timeout: Duration,
}

impl RedisConnection {
    /// Finds the server, connects and authenticates. Each of these steps, and each later call, has this timeout.
    pub(crate) async fn open(connector: &Connector, timeout: Duration) -> Result<Self, RedisError> {
        connector.connect(Kind::Library(ProtocolVersion::RESP2, &AsyncConnectionConfig::new()), timeout).await
    }

    /// The same for what is read at a high rate, with [`RedisConnection::exchange`]. A call whose reply has more than
    /// `max_reply` bytes fails and breaks the connection, and so does one that is dropped before it ends.
    pub(crate) async fn open_direct(
        connector: &Connector,
        timeout: Duration,
        max_reply: usize,
    ) -> Result<Self, RedisError> {
        connector.connect(Kind::Direct { max_reply }, timeout).await
    }

    /// A connection for subscriptions. It speaks RESP3, where messages and replies can share a connection.
    pub(crate) async fn open_subscriber<E: 'static>(
        connector: &Connector,
        timeout: Duration,
        on_push: impl Fn(PushInfo) -> Result<(), E> + Send + Sync + 'static,
    ) -> Result<Self, RedisError> {
        let config = AsyncConnectionConfig::new().set_push_sender(on_push);
        connector.connect(Kind::Library(ProtocolVersion::RESP3, &config), timeout).await
    }

    /// The server.
    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    /// Host and port of the server.
    pub(crate) fn server(&self) -> String {
        self.address.to_string()
    }

    /// Asks whether the server answers and still is the right one. To be called about once a second: nothing else tells
    /// an idle connection that its master was replaced.
    pub(crate) async fn check(&mut self) -> Result<(), RedisError> {
        if self.connector.was_replaced(&self.address, self.timeout) {
            return Err(RedisError::NotServing(format!("Sentinels name another master than {}", self.address)));
        }
        check_role(self.call(&redis::cmd("ROLE")).await)?;
        if self.connector.is_cluster() {
            // The slot may have moved while its former owner is healthy.
            self.call(redis::cmd("EXISTS").arg(&*self.connector.key)).await?;
        }
        Ok(())
    }

    /// From now on each call has this timeout.
    pub(crate) fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    /// Sends one command; an error reply is an error.
    pub(crate) async fn call(&mut self, command: &Cmd) -> Result<Value, RedisError> {
        self.call_blocking(command, Duration::ZERO).await
    }

    /// Sends a command for which Redis may wait up to `block` before it answers.
    pub(crate) async fn call_blocking(&mut self, command: &Cmd, block: Duration) -> Result<Value, RedisError> {
        self.link.call(command, self.timeout + block).await
    }

    /// Sends `count` commands as they are, for which Redis may wait up to `block` in all, and leaves their replies where
    /// they arrived. Only on a connection of [`RedisConnection::open_direct`].
    pub(crate) async fn exchange(
        &mut self,
        commands: &[u8],
        count: usize,
        block: Duration,
        replies: &mut Replies,
    ) -> Result<(), RedisError> {
        match &mut self.link {
            Link::Direct(connection) => connection.exchange(commands, count, self.timeout + block, replies).await,
            Link::Library(_) => Err(RedisError::UnexpectedReply("an exchange on a shared connection")),
        }
    }

    /// From now on [`RedisConnection::take_changed`] says whether a key was changed that was read right after
    /// `CLIENT CACHING YES`; `false` where Redis does not let it. Only on a connection of
    /// [`RedisConnection::open_direct`].
    pub(crate) async fn track(&mut self) -> Result<bool, RedisError> {
        for words in [&["HELLO", "3"][..], &["CLIENT", "TRACKING", "ON", "OPTIN"]] {
            match self.call(redis::cmd(words[0]).arg(&words[1..])).await {
                Ok(_) => {}
                // An old server, one that only speaks like Redis, or a user without the right.
                Err(RedisError::Reply(_)) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Whether a tracked key was changed before the last reply arrived, and after the call before.
    pub(crate) fn take_changed(&mut self) -> bool {
        match &mut self.link {
            Link::Direct(connection) => connection.take_changed(),
            Link::Library(_) => true,
        }
    }

    /// Sends several commands at once. There is one reply for each; error replies are [`Value::ServerError`]s among
    /// them, but one that asks for another connection is an error of the whole.
    pub(crate) async fn pipeline(&mut self, pipeline: &Pipeline) -> Result<Vec<Value>, RedisError> {
        let replies = self.pipeline_raw(pipeline).await?;
        find_not_serving(&replies).map_or(Ok(replies), Err)
    }

    /// Like [`RedisConnection::pipeline`], but leaves [`find_not_serving`] to the caller.
    pub(crate) async fn pipeline_raw(&mut self, pipeline: &Pipeline) -> Result<Vec<Value>, RedisError> {
        self.pipeline_blocking(pipeline, Duration::ZERO).await
    }

    /// Like [`RedisConnection::pipeline_raw`], for commands for which Redis may wait up to `block` in all.
    pub(crate) async fn pipeline_blocking(
        &mut self,
        pipeline: &Pipeline,
        block: Duration,
    ) -> Result<Vec<Value>, RedisError> {
        let replies = self.link.pipeline(pipeline, self.timeout + block).await?;
        match replies.len() == pipeline.len() {
            true => Ok(replies),
            false => Err(RedisError::UnexpectedReply("a pipeline")),
        }
    }

    /// Subscribes to the channels that match a pattern. Unlike [`RedisConnection::subscribe`] this does not count as a
    /// subscriber of any of them (`PUBSUB NUMSUB`).
    pub(crate) async fn psubscribe(&mut self, pattern: &str) -> Result<(), RedisError> {
        with_timeout(self.timeout, self.link.subscriber()?.psubscribe(pattern)).await
    }

    pub(crate) async fn subscribe(&mut self, channel: &str) -> Result<(), RedisError> {
        with_timeout(self.timeout, self.link.subscriber()?.subscribe(channel)).await
    }
}

/// The first error reply that asks for another connection, also inside the replies of a script or a transaction.
pub(crate) fn find_not_serving(replies: &[Value]) -> Option<RedisError> {
    replies.iter().find_map(|reply| match reply {
        Value::ServerError(error) => match RedisError::from(error.clone()) {
            error @ RedisError::NotServing(_) => Some(error),
            _ => None,
        },
        Value::Array(items) => find_not_serving(items),
        _ => None,
    })
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
    fn only_in_a_cluster_other_keys_have_other_servers() {
        assert!(connector("redis://h").for_key("roomcast:dead").is_none());
        let cluster = connector("redis+cluster://h");
        assert!(cluster.for_key("roomcast:dead").is_some());
        assert!(cluster.for_key("roomcast:{roomcast:events}:epoch").is_none());
        assert_eq!(Connector::new(&RedisConfig::default()).unwrap_err(), RedisUrlError::Missing);
    }

    #[test]
    fn error_replies_are_found_inside_the_replies_of_scripts() {
        let error = |text: &str| redis::parse_redis_value(text.as_bytes()).unwrap();
        let refused = error("-OOM command not allowed\r\n");
        assert!(find_not_serving(&[Value::Okay, Value::Array(vec![refused.clone()])]).is_none());
        let moved = error("-MOVED 3999 127.0.0.1:6381\r\n");
        let found = find_not_serving(&[Value::Okay, Value::Array(vec![refused, moved])]);
        assert!(matches!(found, Some(RedisError::NotServing(text)) if text.starts_with("MOVED")));
    }
}
