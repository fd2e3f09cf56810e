//! `roomcast check`.

use crate::auth::Authenticator;
use crate::backend::BackendStream;
use crate::cli::{Common, Failure, block_on, say, warn};
use crate::config::{Config, Purpose};
use crate::log::redis::rights;
use crate::redis::connection::{Connector, RedisConnection};
use crate::redis::error::RedisError;
use crate::tls::KeyPair;
use redis::InfoDict;
use std::io::IsTerminal as _;

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Treat warnings as mistakes: exit code 2
    #[arg(long)]
    strict: bool,
}

pub(super) fn run(common: Common, arguments: &Arguments) -> Result<(), Failure> {
    let config = common
        .load(Purpose::Serve)
        .map_err(|Failure { code, message }| Failure { code, message: format!("{message}\nroomcast: not OK") })?;
    say(config.effective_toml().trim_end());
    let result = check(&config, arguments.strict);
    // On a terminal it would be there twice.
    if !std::io::stdout().is_terminal() {
        say(if result.is_ok() { "# OK" } else { "# not OK" });
    }
    result.map(|verdict| warn(&verdict))
}

/// The last line, where all is well.
fn check(config: &Config, strict: bool) -> Result<String, Failure> {
    let warnings = warnings(config);
    for warning in &warnings {
        warn(&format!("warning: {warning}"));
    }
    let results = block_on(async { [tls(config), redis(config).await, inbox(config).await, jwks(config).await] })?;
    let mut problems = Vec::new();
    for result in results.into_iter().flatten() {
        match result {
            Ok(line) => warn(&line),
            Err(problem) => problems.push(problem),
        }
    }
    if !problems.is_empty() {
        return Err(Failure::configuration(format!("{}\nroomcast: not OK", problems.join("\nroomcast: "))));
    }
    match warnings.len() {
        0 => Ok("roomcast: OK".into()),
        count if strict => Err(Failure::configuration(format!("not OK: {}", counted(count)))),
        count => Ok(format!("roomcast: OK, with {}", counted(count))),
    }
}

fn counted(warnings: usize) -> String {
    match warnings {
        1 => "a warning".into(),
        more => format!("{more} warnings"),
    }
}

/// Those of the configuration, and one that only newcomers need: whoever publishes through Redis alone has no key.
fn warnings(config: &Config) -> Vec<String> {
    let mut warnings: Vec<String> = config.warnings().iter().map(ToString::to_string).collect();
    if config.publish.keys.is_empty() {
        let missing = "[publish] keys: there is none, so /publish, /join and the other paths of backends answer 403; set \
                       ROOMCAST_PUBLISH__KEYS, unless you publish through Redis alone";
        warnings.push(missing.into());
    }
    warnings
}

/// The result of a trial: a line to show, or the problem. `None`: there is nothing to try.
type Trial = Option<Result<String, String>>;

/// That the two files fit together is known by then; the time is not.
fn tls(config: &Config) -> Trial {
    let pair = KeyPair::read(&config.tls).transpose()?;
    let valid = pair.and_then(|pair| pair.check_time().map(|()| format!("tls: {}", pair.describe())));
    Some(valid.map_err(|error| format!("tls.{}: {error}", error.key())))
}

/// Connects to Redis as a node would.
async fn redis(config: &Config) -> Trial {
    config.redis.url.as_ref()?;
    Some(describe_redis(config).await.map_err(|why| format!("redis: {why}")))
}

async fn describe_redis(config: &Config) -> Result<String, String> {
    let connector = Connector::new(&config.redis).map_err(|error| error.to_string())?;
    let at = |error: RedisError| format!("{}: {error}", connector.describe());
    let mut connection = RedisConnection::open(&connector, config.redis.timeout).await.map_err(at)?;
    // A server with a password accepts any connection, and refuses the first command.
    connection.call(&redis::cmd("PING")).await.map_err(at)?;
    let missing =
        rights::missing_of_all(&config.redis).await.map_err(|why| format!("{}: {why}", connector.describe()))?;
    if !missing.is_empty() {
        let server = connection.server();
        return Err(format!("{server} does not let a node work (docs/redis.md): {}", missing.join("; ")));
    }
    // A user without the right to INFO may still be sufficient.
    let info = connection.call(redis::cmd("INFO").arg("server")).await.ok();
    let info = info.and_then(|info| redis::from_redis_value::<InfoDict>(info).ok());
    let version = info.and_then(|info| info.get::<String>("redis_version"));
    let of = if connection.server() == connector.describe() {
        String::new()
    } else {
        format!(" ({})", connector.describe())
    };
    let optional = match rights::missing_optional(&mut connection, &config.redis).await.map_err(at)? {
        missing if missing.is_empty() => String::new(),
        missing => format!("; better with the rights {} (docs/redis.md)", missing.join(", ")),
    };
    let version = version.unwrap_or("unknown".into());
    Ok(format!("redis: ready at {}{of}, version {version}{optional}", connection.server()))
}

/// Counts the entries of the backend's stream.
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
