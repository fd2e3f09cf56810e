//! `roomcast demo`: a chat in the browser, with secrets that last as long as the process. Three nodes on a Redis of the demo's
//! own where `redis-server` is installed, else one node on the embedded log.

mod balancer;
pub mod cluster;
pub mod cluster_error;
mod control;
mod node_process;
mod page;
mod redis_server;
mod rules;
pub mod shared;

use crate::auth::config::AuthConfig;
use crate::auth::sign;
use crate::config::{Config, url_of};
use crate::demo::shared::Shared;
use crate::http::Page;
use crate::http::config::{CorsConfig, ListenConfig, PublishConfig};
use crate::model::secret::Secret;
use crate::redis::config::RedisConfig;
use crate::session::config::SocketIoConfig;
use crate::shutdown::ShutdownConfig;
use crate::tls::config::TlsConfig;
use serde_json::{Map, Value, json};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The user of the printed token, and the two of the page.
const VISITOR: Person = Person { user: "visitor", name: "Visitor" };
const ADA: Person = Person { user: "ada", name: "Ada" };
const GRACE: Person = Person { user: "grace", name: "Grace" };

/// How long the tokens are valid: longer than a demo is left open.
const TOKEN_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);

/// The names by which a browser on this machine reaches it.
const HOSTS: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

/// The default address: local only, because the page gives a token to every visitor.
const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);

/// A demo has no load balancer that must notice the stop.
const SHUTDOWN: ShutdownConfig =
    ShutdownConfig { pause: Duration::ZERO, drain: Duration::from_millis(100), timeout: Duration::from_secs(5) };

struct Person {
    user: &'static str,
    name: &'static str,
}

/// A node to run, and what to print about it.
#[derive(Debug)]
pub struct Demo {
    /// The configuration of the node.
    pub config: Config,
    /// The chat page and its files.
    pub pages: Vec<Page>,
    /// Whether another port may be used: no port was configured.
    pub any_port: bool,
    /// For the visitor's own clients. Throw-away, and meant to be printed.
    pub token: String,
    /// For `/publish`. Throw-away, and meant to be printed.
    pub key: String,
    nodes_are_three: bool,
}

/// The address for visitors, and whether another port may be used because none was configured.
fn listen_address(config: &Config) -> (SocketAddr, bool) {
    match config.is_given("listen") {
        true => (config.listen.listen, false),
        false => (LISTEN, true),
    }
}

/// Makes a demo from a configuration. Its address, limits and timings stay; the log, keys, rooms and rules are the
/// demo's own, so that nothing real is changed or shown.
pub fn prepare(mut config: Config, shared: &Shared) -> Demo {
    let (configured, any_port) = listen_address(&config);
    let listen = shared.public.unwrap_or(configured);
    config.listen = ListenConfig { listen: shared.listen.unwrap_or(configured), ..ListenConfig::default() };
    config.redis = RedisConfig { url: shared.redis_url.as_deref().map(Secret::new), ..RedisConfig::default() };
    config.tls = TlsConfig::default();
    config.backend = None;
    config.auth = AuthConfig { secret: Some(Secret::new(shared.secret.as_str())), ..AuthConfig::default() };
    config.publish = PublishConfig { keys: vec![Secret::new(shared.key.as_str())], ..config.publish };
    config.cors = CorsConfig::default();
    if !config.is_given("http.allowed_hosts") {
        // The page holds tokens: a website must not read it through a domain that leads to this machine.
        config.http.allowed_hosts = HOSTS.map(String::from).to_vec();
        if !listen.ip().is_unspecified() && !listen.ip().is_loopback() {
            config.http.allowed_hosts.push(listen.to_string());
        }
    }
    config.socketio.namespaces = SocketIoConfig::default().namespaces;
    config.shutdown = SHUTDOWN;
    config.rooms = rules::rooms();
    config.on = rules::on();

    let expires = (SystemTime::now() + TOKEN_LIFE).duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let token = |person: &Person| token(&config.auth, person, expires);
    let people =
        [&ADA, &GRACE].map(|person| json!({ "user": person.user, "name": person.name, "token": token(person) }));
    let pages = page::pages(&facts(&config, &people, shared));
    let token = token(&VISITOR);
    Demo { config, pages, any_port, token, key: shared.key.clone(), nodes_are_three: shared.control.is_some() }
}

/// `expires` in Unix seconds.
fn token(auth: &AuthConfig, person: &Person, expires: u64) -> String {
    let mut claims = Map::new();
    claims.insert("sub".into(), person.user.into());
    claims.insert("name".into(), person.name.into());
    claims.insert("exp".into(), expires.into());
    sign(auth, &claims).expect("the demo's own secret is long enough, and HS256 is its algorithm")
}

/// The settings of the page's script.
fn facts(config: &Config, people: &[Value], shared: &Shared) -> Value {
    let transports = [("websocket", config.socketio.websocket), ("polling", config.socketio.polling)];
    let transports: Vec<_> = transports.iter().filter(|(_, on)| *on).map(|(name, _)| *name).collect();
    json!({ "path": config.socketio.path, "transports": transports, "room": rules::ROOM, "fullRoom": rules::room(), "people": people,
            "key": shared.key, "control": shared.control })
}

impl Demo {
    /// What to print once the node listens on `address`.
    pub fn banner(&self, address: SocketAddr) -> String {
        let url = url_of(address, false);
        let body = format!(
            r#"{{"room":"{}","event":"message","data":{{"name":"your backend","text":"Hello from the terminal"}}}}"#,
            rules::room()
        );
        let (token, key) = (&self.token, &self.key);
        let what = match self.nodes_are_three {
            true => "a chat of two on three nodes, any of which you can kill",
            false => "a chat of two on one node (with redis-server installed: on three, any of which you can kill)",
        };
        format!(
            "\
roomcast demo: {what}. Ctrl-C ends it, and nothing is kept.

  Open {url}/

  Publish as a backend would:
    curl -sS -w '\\n' -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' -d '{body}' {url}/publish

  See into it, with the same key: {url}/console

  Connect a client of your own: io(\"{url}\", {{ auth: {{ token }} }}) with this token:
    {token}
"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Authenticator;
    use crate::config::{Environment, Flags, Purpose};
    use crate::rules::Rules;
    use std::process::Command;

    fn demo(listen: Option<&str>) -> Demo {
        let flags = Flags { listen: listen.map(Into::into), ..Flags::default() };
        prepare(Config::load(&flags, &Environment::default(), Purpose::Other).unwrap(), &Shared::new())
    }

    #[test]
    fn it_listens_here_alone_unless_told_otherwise() {
        let demo = demo(None);
        assert_eq!((demo.config.listen.listen.to_string().as_str(), demo.any_port), ("127.0.0.1:8080", true));
        let demo = self::demo(Some("0.0.0.0:8080"));
        assert_eq!((demo.config.listen.listen.to_string().as_str(), demo.any_port), ("0.0.0.0:8080", false));
        assert!(demo.banner("0.0.0.0:8080".parse().unwrap()).contains("http://127.0.0.1:8080/\n"));
        assert!(demo.banner("[::]:8080".parse().unwrap()).contains("http://127.0.0.1:8080/\n"));
    }

    #[test]
    fn nothing_of_the_real_configuration_is_used_or_shown() {
        let mut config = Config::default();
        config.redis.url = Some(Secret::new("redis://:real-password@db/0"));
        config.auth.secret = Some(Secret::new("the real secret of at least 32 bytes"));
        config.auth.issuer = vec!["real".into()];
        config.publish.keys = vec![Secret::new("real-key")];
        let demo = prepare(config, &Shared::new());
        assert!(demo.config.redis.url.is_none() && demo.config.auth.issuer.is_empty());
        assert_ne!(demo.config.auth.secret, Some(Secret::new("the real secret of at least 32 bytes")));
        assert_eq!(demo.config.publish.keys, [Secret::new(demo.key.as_str())]);
        assert_ne!(demo.key, self::demo(None).key);
    }

    #[test]
    fn its_tokens_are_accepted_and_carry_a_name() {
        let demo = demo(None);
        assert!(Rules::compile(&demo.config.rooms, &demo.config.on).is_ok());
        let auth = Authenticator::new(&demo.config.auth).unwrap();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let identity = auth.verify(&demo.token, now).unwrap();
        assert_eq!(identity.user.as_ref().unwrap().as_str(), "visitor");
        assert_eq!(identity.claim("name"), Some(json!("Visitor")));
        let facts = page::facts_of(&demo.pages[0]);
        let people = facts["people"].as_array().unwrap();
        let names =
            people.iter().map(|person| auth.verify(person["token"].as_str().unwrap(), now).unwrap().claim("name"));
        assert_eq!(names.collect::<Vec<_>>(), [Some(json!("Ada")), Some(json!("Grace"))]);
    }

    /// A shell reads the printed line as intended: `curl` is replaced by a program that prints its arguments.
    #[test]
    fn the_curl_line_survives_a_shell() {
        let demo = demo(None);
        let banner = demo.banner(LISTEN);
        let line = banner.lines().find(|line| line.trim_start().starts_with("curl ")).unwrap();
        let line = line.trim_start().replacen("curl ", "printf '%s\\n' ", 1);
        let output = Command::new("sh").args(["-c", &line]).output().unwrap();
        let printed = String::from_utf8(output.stdout).unwrap();
        let words: Vec<_> = printed.lines().collect();
        assert_eq!(words[4], format!("Authorization: Bearer {}", demo.key));
        let body: Value = serde_json::from_str(words[8]).unwrap();
        assert_eq!((&body["room"], &body["event"]), (&json!("room:lobby"), &json!("message")));
        assert_eq!((words[9], words.len()), ("http://127.0.0.1:8080/publish", 10));
    }
}
