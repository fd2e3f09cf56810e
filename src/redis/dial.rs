//! One TCP or TLS connection to one server.

use crate::redis::bounded;
use crate::redis::bounded::ReplyLimit;
use crate::redis::error::{RedisError, with_timeout};
use crate::redis::reply::text;
use redis::aio::{ConnectionLike as _, MultiplexedConnection};
use redis::{AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, Value};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;

/// Connects and authenticates within the timeout.
pub(super) async fn dial(
    info: ConnectionInfo,
    config: &AsyncConnectionConfig,
    limit: Option<&Arc<ReplyLimit>>,
    timeout: Duration,
) -> Result<MultiplexedConnection, RedisError> {
    let config = config.clone().set_response_timeout(None).set_connection_timeout(None);
    let is_tls = matches!(info.addr(), ConnectionAddr::TcpTls { .. });
    // A connection by TLS has no limit: the client library makes it as a whole.
    if let (ConnectionAddr::Tcp(host, port), Some(limit)) = (info.addr(), limit) {
        return bounded::dial((host, *port), &info, config, limit.clone(), timeout).await;
    }
    let client = Client::open(info).map_err(RedisError::from)?;
    let connect = async move {
        let connection = client.get_multiplexed_async_connection_with_config(&config);
        with_timeout(timeout, connection).await
    };
    if !is_tls {
        return connect.await;
    }
    // The client library reads the CA files for each TLS connection, with blocking reads. On the control thread these
    // would delay the log's tail. The connection's own task still runs on this runtime.
    let runtime = Handle::current();
    let connected = tokio::task::spawn_blocking(move || runtime.block_on(connect)).await;
    connected.unwrap_or_else(|error| Err(RedisError::Disconnected(error.to_string())))
}

/// Refuses a server that is not a master.
pub(super) async fn with_role_check(
    connection: Result<MultiplexedConnection, RedisError>,
    timeout: Duration,
) -> Result<MultiplexedConnection, RedisError> {
    let mut connection = connection?;
    check_role(&mut connection, timeout).await?;
    Ok(connection)
}

/// Asks whether the server is a master. A user without the right to ask (`+role`) is taken to be on one.
pub(super) async fn check_role(connection: &mut MultiplexedConnection, timeout: Duration) -> Result<(), RedisError> {
    let reply = with_timeout(timeout, connection.req_packed_command(&redis::cmd("ROLE"))).await?;
    match reply.extract_error().map_err(RedisError::from) {
        Ok(Value::Array(role)) if role.first().and_then(text) == Some("master") => Ok(()),
        Ok(_) => Err(RedisError::NotServing("it is a replica, which takes no writes; the master is needed".into())),
        Err(RedisError::Reply(_)) => Ok(()),
        Err(error) => Err(error),
    }
}
