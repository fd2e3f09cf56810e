//! `roomcast check`.

use super::{Common, Failure, block_on, say, warn};
use crate::auth::Authenticator;
use crate::config::{Config, Purpose};
use redis::{AsyncConnectionConfig, Client, InfoDict};
use std::time::Duration;

pub(super) fn run(common: Common) -> Result<(), Failure> {
    let config = common.load(Purpose::Serve)?;
    say(config.effective_toml().trim_end());
    for warning in config.warnings() {
        warn(&format!("warning: {warning}"));
    }
    let results = block_on(async { [redis(&config).await, jwks(&config).await] })?;
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
    let url = config.redis.url.as_ref()?.reveal();
    // Without a default provider rustls panics; only the first call counts.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let trial = match tokio::time::timeout(config.redis.timeout, describe_redis(url, config.redis.timeout)).await {
        Ok(result) => result,
        Err(_) => Err(format!("no answer within {:?}", config.redis.timeout)),
    };
    Some(trial.map_err(|why| format!("redis: {why}")))
}

async fn describe_redis(url: &str, timeout: Duration) -> Result<String, String> {
    let settings = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(Some(timeout));
    let client = Client::open(url).map_err(|error| error.to_string())?;
    let address = client.get_connection_info().addr().to_string();
    let at = |error: redis::RedisError| format!("{address}: {error}");
    let mut connection = client.get_multiplexed_async_connection_with_config(&settings).await.map_err(at)?;
    let _: String = redis::cmd("PING").query_async(&mut connection).await.map_err(at)?;
    // A user without the right to INFO can still be right.
    let info: Option<InfoDict> = redis::cmd("INFO").query_async(&mut connection).await.ok();
    let of = |name: &str| info.as_ref().and_then(|info| info.get::<String>(name));
    match of("role").as_deref() {
        Some("slave") => Err(format!("{address}: is a replica, which cannot take events; give its master's address")),
        _ => Ok(format!("redis: ready at {address}, version {}", of("redis_version").unwrap_or("unknown".into()))),
    }
}

/// Fetches the key set as a node would.
async fn jwks(config: &Config) -> Trial {
    config.auth.jwks_url.as_ref()?;
    let authenticator = match Authenticator::new(&config.auth) {
        Ok(authenticator) => authenticator,
        Err(error) => return Some(Err(error.to_string())),
    };
    Some(match authenticator.check_jwks().await {
        Ok(0) => Err("auth.jwks_url: has no key that `auth.algorithms` can use".into()),
        Ok(keys) => Ok(format!("jwks: {keys} usable")),
        Err(why) => Err(format!("auth.jwks_url: {why}")),
    })
}
