//! One TCP or TLS connection to one server.

use crate::redis::error::{RedisError, with_timeout};
use crate::redis::reply::text;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, Value};
use std::time::Duration;
use tokio::runtime::Handle;

/// Connects and authenticates within the timeout.
pub(super) async fn dial(
    info: ConnectionInfo,
    config: &AsyncConnectionConfig,
    timeout: Duration,
) -> Result<MultiplexedConnection, RedisError> {
    let config = config.clone().set_response_timeout(None).set_connection_timeout(None);
    let is_tls = matches!(info.addr(), ConnectionAddr::TcpTls { .. });
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

/// Whether the reply to `ROLE` is that of a master. A user without the right to ask (`+role`) is taken to be on one.
pub(super) fn check_role(reply: Result<Value, RedisError>) -> Result<(), RedisError> {
    match reply {
        Ok(Value::Array(role)) if role.first().and_then(text) == Some("master") => Ok(()),
        Ok(_) => Err(RedisError::NotServing("it is a replica, which takes no writes; the master is needed".into())),
        Err(RedisError::Reply(_)) => Ok(()),
        Err(error) => Err(error),
    }
}
