//! `roomcast token`.

use crate::auth::claims::insert;
use crate::auth::sign;
use crate::cli::{Common, Failure, say};
use crate::config::{Config, Purpose};
use serde_json::{Map, Value};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A hundred years. Every library must be able to read `exp`.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The user, a string in the configured claim; `--claim sub=7` makes it a number
    #[arg(long)]
    user: String,
    /// A room that it may join whatever the rules say (`a:*` is allowed); may be given several times
    #[arg(long)]
    room: Vec<String>,
    /// Another claim; a value that is not JSON is a string: plan=pro, level=3, org.id='"7"'
    #[arg(long, value_name = "NAME=VALUE", value_parser = claim)]
    claim: Vec<(String, Value)>,
    /// How long it is valid: 30s, 1h, 7d
    #[arg(long, default_value = "1h", value_parser = ttl)]
    ttl: Duration,
}

fn claim(text: &str) -> Result<(String, Value), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => {
            let json = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value));
            Ok((name.to_owned(), json))
        }
        _ => Err("must be NAME=VALUE".into()),
    }
}

fn ttl(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(span) if span <= LONGEST => Ok(span),
        Ok(_) => Err("must be at most 100 years".into()),
        Err(error) => Err(error.to_string()),
    }
}

pub(super) fn run(common: Common, arguments: Arguments) -> Result<(), Failure> {
    let config = common.load(Purpose::Other)?;
    let token = sign(&config.auth, &claims(&config, arguments)).map_err(Failure::configuration)?;
    say(&token);
    Ok(())
}

/// The arguments win over what the configuration requires.
fn claims(config: &Config, arguments: Arguments) -> Map<String, Value> {
    let now = unix_seconds();
    let mut claims = Map::new();
    for (path, value) in &config.auth.require {
        insert(&mut claims, path, value.clone());
    }
    insert(&mut claims, &config.auth.user_claim, arguments.user.into());
    if !arguments.room.is_empty() {
        insert(&mut claims, &config.auth.rooms_claim, arguments.room.into());
    }
    claims.insert("iat".into(), now.into());
    claims.insert("exp".into(), (now + arguments.ttl.as_secs()).into());
    for (name, value) in arguments.claim {
        insert(&mut claims, &name, value);
    }
    claims
}

pub(super) fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
