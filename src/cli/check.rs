//! `roomcast check`.

use crate::auth::Authenticator;
use crate::backend::BackendStream;
use crate::cli::{Common, Failure, block_on, say, warn};
use crate::config::{Config, Purpose};
use crate::log::redis::rights;
use crate::redis::connection::{Connector, RedisConnection};
use crate::redis::error::RedisError;
use redis::InfoDict;

pub(super) fn run(common: Common) -> Result<(), Failure> {
    let config = common.load(Purpose::Serve)?;
    say(config.effective_toml().trim_end());
    for warning in config.warnings() {
        warn(&format!("warning: {warning}"));
    }
    let results = block_on(async { [redis(&config).await, inbox(&config).await, jwks(&config).await] })?;
    let mut problems = Vec::new();
    for result in results.into_iter().flatten() {
        match result {
            Ok(line) => warn(&line),
            Err(problem) => problems.push(problem),
        }
    }
    match problems.is_empty() {
        true => Ok(()),
        false => Err(Failure::configuration(problems.join("\nroomcast: "))),
    }
}

/// What came out of a trial: a line to be shown, or the problem. `None`: there is nothing to try.
type Trial = Option<Result<String, String>>;

/// Connects to Redis as a node would.
async fn redis(config: &Config) -> Trial {
    config.redis.url.as_ref()?;
    Some(describe_redis(config).await.map_err(|why| format!("redis: {why}")))
}

async fn describe_redis(config: &Config) -> Result<String, String> {
    let connector = Connector::new(&config.redis).map_err(|error| error.to_string())?;
    let at = |error: RedisError| format!("{}: {error}", connector.describe());
    let mut connection = RedisConnection::open(&connector, config.redis.timeout).await.map_err(at)?;
    // A server that wants a password lets anybody connect, and refuses the first command.
    connection.call(&redis::cmd("PING")).await.map_err(at)?;
    let missing = rights::missing(&config.redis).await.map_err(|why| format!("{}: {why}", connector.describe()))?;
    if !missing.is_empty() {
        let server = connection.server();
        return Err(format!("{server} does not let a node work (docs/redis.md): {}", missing.join("; ")));
    }
    // A user without the right to INFO can still be right.
    let info = connection.call(redis::cmd("INFO").arg("server")).await.ok();
    let info = info.and_then(|info| redis::from_redis_value::<InfoDict>(info).ok());
    let version = info.and_then(|info| info.get::<String>("redis_version"));
    let of = if connection.server() == connector.describe() {
        String::new()
    } else {
        format!(" ({})", connector.describe())
    };
    Ok(format!("redis: ready at {}{of}, version {}", connection.server(), version.unwrap_or("unknown".into())))
}

/// Looks into the backend's inbox.
async fn inbox(config: &Config) -> Trial {
    let backend = config.backend.as_ref()?;
    let stream = backend.stream.as_ref()?;
    let entries = match BackendStream::new(&config.redis, stream, backend.stream_limit) {
        Ok(inbox) => inbox.entries().await,
        Err(error) => Err(error.to_string()),
    };
    Some(match entries {
        Ok((entries, max)) => Ok(format!("inbox: {stream} holds {entries} of {max} entries")),
        Err(why) => Err(format!("backend.stream: {why}")),
    })
}

/// Fetches the key set as a node would.
async fn jwks(config: &Config) -> Trial {
    config.auth.jwks_url.as_ref()?;
    let authenticator = match Authenticator::new(&config.auth) {
        Ok(authenticator) => authenticator,
        Err(error) => return Some(Err(format!("[auth]: {error}"))),
    };
    Some(match authenticator.check_jwks().await {
        Ok(0) => Err("auth.jwks_url: has no key that `auth.algorithms` can use".into()),
        Ok(keys) => Ok(format!("jwks: {keys} usable")),
        Err(why) => Err(format!("auth.jwks_url: {why}")),
    })
}
