//! `roomcast dev`: the configured node on a developer's machine. What is missing is filled in with throw-away values,
//! pages of this machine may connect, and every refusal is explained on the terminal.

pub mod narrator;

use crate::auth::sign;
use crate::config::{Config, url_of};
use crate::model::secret::{Secret, random_text};
use crate::rules::config::{JoinPolicy, RoomRuleConfig};
use crate::shutdown::ShutdownConfig;
use serde_json::Map;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The default address: local only, since pages of this machine need no configured origin.
const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);

/// The user of the printed token, and how long it is valid.
const USER: &str = "1";
const TOKEN_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);

/// A developer's machine has no load balancer that must notice the stop.
const SHUTDOWN: ShutdownConfig =
    ShutdownConfig { pause: Duration::ZERO, drain: Duration::from_millis(100), timeout: Duration::from_secs(5) };

/// A node to run, and what was filled in.
#[derive(Debug)]
pub struct Dev {
    /// The configuration of the node.
    pub config: Config,
    /// Whether another port may be used: none was configured.
    pub any_port: bool,
    /// A secret that lasts as long as the process, because no key for tokens is configured.
    own_secret: Option<String>,
    /// A publish key that lasts as long as the process, because none is configured.
    own_key: Option<String>,
    /// Whether everybody may join every room, because there is no rule.
    is_open: bool,
}

/// Secrets that last as long as the process.
#[derive(Debug)]
pub struct ThrowAway {
    secret: String,
    key: String,
}

impl ThrowAway {
    /// Fresh ones.
    pub fn random() -> Self {
        Self { secret: random_text(), key: random_text() }
    }
}

/// Fills in what a first try needs and the configuration leaves out.
pub fn prepare(mut config: Config, throw_away: &ThrowAway) -> Dev {
    let any_port = !config.is_given("listen");
    if any_port {
        config.listen.listen = LISTEN;
    }
    config.cors.localhost = true;
    config.shutdown = SHUTDOWN;
    let auth = &config.auth;
    let has_key = auth.secret.is_some() || auth.public_key.is_some() || auth.jwks_url.is_some();
    let own_secret = (!has_key && !auth.anonymous).then(|| throw_away.secret.clone());
    if let Some(secret) = &own_secret {
        config.auth.secret = Some(Secret::new(secret.as_str()));
    }
    let own_key = config.publish.keys.is_empty().then(|| throw_away.key.clone());
    config.publish.keys.extend(own_key.as_deref().map(Secret::new));
    let is_open = config.rooms.is_empty();
    if is_open {
        let rule = |pattern: &str, join| RoomRuleConfig {
            pattern: pattern.to_owned(),
            join,
            presence: false,
            joined: None,
            left: None,
        };
        config.rooms = vec![rule("user:{user}", JoinPolicy::Auto), rule("*", JoinPolicy::Allow)];
    }
    Dev { config, any_port, own_secret, own_key, is_open }
}

impl Dev {
    /// What to print once the node listens on `address`. Shows only secrets that end with the process.
    pub fn banner(&self, address: SocketAddr) -> String {
        let url = url_of(address, self.config.tls.files().is_some());
        let mut text = format!(
            "roomcast dev: {url}, {log}. Pages of this machine may connect from any port. Ctrl-C ends it.\n",
            log = if self.config.redis.url.is_some() { "the log in Redis" } else { "a log in memory" },
        );
        if let Some(secret) = &self.own_secret {
            let _ = write!(
                text,
                "\nNo key for tokens is configured. Until this process ends, sign with HS256 and this secret:\n  \
                 JWT_SECRET={secret}\n"
            );
        }
        if let Some(token) = self.token() {
            let _ = write!(text, "\nA token of user {USER}: io(\"{url}\", {{ auth: {{ token }} }}) with\n  {token}\n");
        }
        let key = self.own_key.as_deref();
        if let Some(key) = key {
            let _ = write!(
                text,
                "\nNo publish key is configured. Until this process ends:\n  ROOMCAST_PUBLISH__KEYS={key}\n"
            );
        }
        let shown = key.unwrap_or("$ROOMCAST_PUBLISH__KEYS");
        let body = format!(r#"{{"room":"user:{USER}","event":"hello","data":{{"text":"hi"}}}}"#);
        let quote = if key.is_some() { '\'' } else { '"' };
        let _ = write!(
            text,
            "\nPublish as your backend would:\n  curl -sS -w '\\n' -H {quote}Authorization: Bearer {shown}{quote} \
             -H 'Content-Type: application/json' -d '{body}' {url}/publish\n"
        );
        let _ = write!(text, "\nSee into it, with the same key: {url}/console\n");
        if self.is_open {
            text.push_str(
                "\nNo [[rooms]] rule is configured, so everybody may join every room. `roomcast serve` would refuse \
                 them all.\n",
            );
        }
        text.push_str("\nWhat is refused is explained here:\n");
        text
    }

    /// `None` where tokens are signed elsewhere, or nobody needs one.
    fn token(&self) -> Option<String> {
        let expires = (SystemTime::now() + TOKEN_LIFE).duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let mut claims = Map::new();
        for (path, value) in &self.config.auth.require {
            crate::auth::claims::insert(&mut claims, path, value.clone());
        }
        crate::auth::claims::insert(&mut claims, &self.config.auth.user_claim, USER.into());
        claims.insert("exp".into(), expires.into());
        sign(&self.config.auth, &claims).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Authenticator;
    use crate::config::{Environment, Flags, Purpose};

    fn dev(environment: &[(&str, &str)]) -> Dev {
        let environment = Environment::from_iter(environment.iter().copied());
        prepare(Config::load(&Flags::default(), &environment, Purpose::Other).unwrap(), &ThrowAway::random())
    }

    #[test]
    fn an_empty_folder_gets_what_is_missing_for_as_long_as_the_process_lives() {
        let dev = dev(&[]);
        assert_eq!((dev.config.listen.listen.to_string().as_str(), dev.any_port), ("127.0.0.1:8080", true));
        let banner = dev.banner(LISTEN);
        for part in ["JWT_SECRET=", "ROOMCAST_PUBLISH__KEYS=", "A token of user 1", "everybody may join every room"] {
            assert!(banner.contains(part), "{part} in {banner}");
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let auth = Authenticator::new(&dev.config.auth).unwrap();
        assert_eq!(auth.verify(&dev.token().unwrap(), now).unwrap().user.as_ref().unwrap().as_str(), "1");
    }

    #[test]
    fn what_is_configured_stays_and_its_secrets_are_not_printed() {
        let secret = "a configured secret of at least 32 bytes";
        let dev = dev(&[
            ("JWT_SECRET", secret),
            ("ROOMCAST_PUBLISH__KEYS", "a-configured-key"),
            ("ROOMCAST_LISTEN", "0.0.0.0:9000"),
        ]);
        assert_eq!((dev.config.listen.listen.to_string().as_str(), dev.any_port), ("0.0.0.0:9000", false));
        assert_eq!(dev.config.publish.keys, [Secret::new("a-configured-key")]);
        let banner = dev.banner(dev.config.listen.listen);
        assert!(!banner.contains(secret) && !banner.contains("a-configured-key"), "{banner}");
        assert!(
            banner.contains("A token of user 1")
                && banner.contains("\"Authorization: Bearer $ROOMCAST_PUBLISH__KEYS\"")
        );
    }

    #[test]
    fn nobody_needs_a_token_where_clients_may_be_anonymous() {
        let dev = dev(&[("ROOMCAST_AUTH__ANONYMOUS", "true")]);
        assert!(dev.own_secret.is_none() && !dev.banner(LISTEN).contains("A token of"));
    }
}
