//! The configuration: which source wins, and which mistakes are reported.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use roomcast::config::{Change, Config, Environment, Flags, Mistake, Purpose};
use roomcast::rules::config::JoinPolicy;
use std::path::{Path, PathBuf};
use std::time::Duration;

const SECRET: &str = "0123456789abcdef0123456789abcdef-hunter2";

/// A directory for one test, removed at its end.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("roomcast-config-{}", roomcast::model::id::Id::random()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn load(file: &str, environment: &[(&str, &str)], flags: Flags) -> Result<Config, Vec<Mistake>> {
    let directory = Directory::new();
    let config = Some(directory.write("roomcast.toml", file));
    Config::load(&Flags { config, ..flags }, &environment.iter().copied().collect(), Purpose::Other)
}

fn file(text: &str) -> Result<Config, Vec<Mistake>> {
    load(text, &[], Flags::default())
}

fn environment(pairs: &[(&str, &str)]) -> Result<Config, Vec<Mistake>> {
    load("", pairs, Flags::default())
}

/// The mistakes as lines, without the test's directory.
fn lines(result: Result<Config, Vec<Mistake>>) -> Vec<String> {
    let mistakes = result.expect_err("mistakes");
    let short = |mistake: &Mistake| match mistake.to_string() {
        line if line.starts_with('/') => line[line.find("roomcast.toml").unwrap()..].to_owned(),
        line => line,
    };
    mistakes.iter().map(short).collect()
}

fn redis(config: &Config) -> &str {
    config.redis.url.as_ref().map_or("", |url| url.reveal())
}

#[test]
fn a_flag_overrides_the_environment_which_overrides_the_file() {
    let text = "listen = '127.0.0.1:1'\n[redis]\nurl = 'redis://file'";
    let conventional = ("REDIS_URL", "redis://conventional");
    let own = ("ROOMCAST_REDIS__URL", "redis://own");
    let flags =
        Flags { redis_url: Some("redis://flag".into()), listen: Some("127.0.0.1:4".into()), ..Flags::default() };

    assert_eq!(redis(&file("").unwrap()), "");
    assert_eq!(redis(&file(text).unwrap()), "redis://file");
    assert_eq!(redis(&load(text, &[conventional], Flags::default()).unwrap()), "redis://conventional");
    assert_eq!(redis(&load(text, &[conventional, own], Flags::default()).unwrap()), "redis://own");
    assert_eq!(redis(&load(text, &[conventional, own], flags.clone()).unwrap()), "redis://flag");

    let listen =
        |environment: &[(&str, &str)], flags| load(text, environment, flags).unwrap().listen.listen.to_string();
    assert_eq!(file("").unwrap().listen.listen.to_string(), "0.0.0.0:8080");
    assert_eq!(listen(&[], Flags::default()), "127.0.0.1:1");
    assert_eq!(listen(&[("PORT", "2")], Flags::default()), "127.0.0.1:2");
    assert_eq!(listen(&[("PORT", "2"), ("ROOMCAST_LISTEN", ":3")], Flags::default()), "0.0.0.0:3");
    assert_eq!(listen(&[("PORT", "2"), ("ROOMCAST_LISTEN", ":3")], flags), "127.0.0.1:4");
}

#[test]
fn an_empty_variable_unsets_the_key_of_the_file() {
    let text = format!("[redis]\nurl = 'redis://file'\n[auth]\nsecret = '{SECRET}'\nissuer = 'x'");
    let config = load(&text, &[("ROOMCAST_REDIS__URL", ""), ("ROOMCAST_AUTH__ISSUER", "")], Flags::default()).unwrap();
    assert_eq!((redis(&config), config.auth.issuer.len()), ("", 0));
    let config = load(&text, &[("REDIS_URL", ""), ("JWT_SECRET", "")], Flags::default()).unwrap();
    assert_eq!((redis(&config), config.auth.secret.as_ref().unwrap().reveal()), ("redis://file", SECRET));
}

#[test]
fn the_variables_of_opentelemetry_are_read() {
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318"),
        ("OTEL_SERVICE_NAME", "edge"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Basic%20YTpi==, x-tenant=a"),
        ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
    ];
    let telemetry = environment(&variables).unwrap().telemetry;
    assert_eq!(telemetry.otlp_endpoint.as_deref(), Some("http://collector:4318"));
    assert_eq!((&*telemetry.service_name, telemetry.traces_sample_ratio), ("edge", 0.25));
    let headers: Vec<_> = telemetry.headers.iter().map(|header| header.reveal()).collect();
    assert_eq!(headers, ["authorization=Basic YTpi==", "x-tenant=a"]);
    let own = [&variables[..], &[("ROOMCAST_TELEMETRY__OTLP_ENDPOINT", "")]].concat();
    assert_eq!(environment(&own).unwrap().telemetry.otlp_endpoint, None, "roomcast's own variable wins");
    for (name, value) in [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"),
        ("ROOMCAST_TELEMETRY__OTLP_ENDPOINT", "http://collector:4318?x=1"),
        ("OTEL_TRACES_SAMPLER_ARG", "1.5"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "hunter2"),
    ] {
        let lines = lines(environment(&[(name, value)]));
        assert!(lines.len() == 1 && lines[0].contains(name) && !lines[0].contains("hunter2"), "{lines:?}");
    }
}

#[test]
fn conventional_names_are_read() {
    let parts = [
        ("REDIS_HOST", "r.example.com"),
        ("REDIS_PORT", "6380"),
        ("REDIS_USERNAME", "app"),
        ("REDIS_PASSWORD", "p@ss/w:rd"),
        ("REDIS_TLS", "true"),
    ];
    assert_eq!(redis(&environment(&parts).unwrap()), "rediss://app:p%40ss%2Fw%3Ard@r.example.com:6380/0");
    assert_eq!(redis(&environment(&parts[..1]).unwrap()), "redis://r.example.com:6379/0");
    let with_database = [&parts[..], &[("REDIS_DB", "3")]].concat();
    assert_eq!(redis(&environment(&with_database).unwrap()), "rediss://app:p%40ss%2Fw%3Ard@r.example.com:6380/3");
    let beside_url = |url| redis(&environment(&[("REDIS_URL", url), ("REDIS_DB", "3")]).unwrap()).to_owned();
    assert_eq!(beside_url("redis://a"), "redis://a/3");
    assert_eq!(beside_url("redis://a/1"), "redis://a/1", "what the URL names wins");
    assert_eq!(
        lines(environment(&[("REDIS_HOST", "tls://h"), ("REDIS_DB", "x")])),
        [
            "environment REDIS_DB: must be a whole number from 0 to 1000000",
            "environment REDIS_HOST: is a host, without \"tls://\"; for TLS set REDIS_TLS=true; put a whole URL into REDIS_URL",
        ]
    );
    let both = [("REDIS_URL", "redis://a"), ("REDIS_HOST", "b"), ("REDIS_PORT", "not read")];
    assert_eq!(redis(&environment(&both).unwrap()), "redis://a");
    let kubernetes =
        [("REDIS_HOST", "h"), ("REDIS_PORT", "tcp://10.0.0.1:6379"), ("ROOMCAST_PORT", "tcp://10.0.0.1:80")];
    assert_eq!(redis(&environment(&kubernetes).unwrap()), "redis://h:6379/0");

    let config = environment(&[
        ("JWT_SECRET", SECRET),
        ("FRONTEND_URL", "https://a.example.com/, http://localhost:5173"),
        ("SOCKET_CORS_ORIGIN", "https://b.example.com"),
    ])
    .unwrap();
    assert_eq!(config.auth.secret.unwrap().reveal(), SECRET);
    assert_eq!(config.cors.origins, ["https://a.example.com", "http://localhost:5173", "https://b.example.com"]);

    assert_eq!(
        lines(environment(&[("REDIS_PASSWORD", "hunter2")])),
        ["environment REDIS_PASSWORD: needs REDIS_HOST (or use REDIS_URL); without it, Redis is not used"]
    );
}

#[test]
fn every_kind_of_value_can_be_set_by_a_variable() {
    let config = environment(&[
        ("ROOMCAST_PUBLISH__KEYS", "one, two"),
        ("ROOMCAST_PUBLISH__MAX_BODY", "7MB"),
        ("ROOMCAST_AUTH__REQUIRE", r#"{"email_verified": true, "level": 3}"#),
        ("ROOMCAST_AUTH__ANONYMOUS", "yes"),
        ("ROOMCAST_SOCKETIO__TRANSPORTS", "websocket"),
        ("ROOMCAST_SOCKETIO__PING_INTERVAL", "1m30s"),
        ("ROOMCAST_LIMITS__CONNECTIONS", "10"),
        ("ROOMCAST_CORS__ORIGINS", r#"["https://a.example.com"]"#),
        ("ROOMCAST_ROOMS", r#"[{"match":"user:{user}","join":"auto"}]"#),
        ("ROOMCAST_ON", "[{ event = 'typing', emit = [{ room = 'r:{0}', event = 'typing', args = [1, 2.5] }] }]"),
    ])
    .unwrap();
    let keys: Vec<_> = config.publish.keys.iter().map(|key| key.reveal()).collect();
    assert_eq!((keys, config.publish.max_body), (vec!["one", "two"], 7_000_000));
    assert_eq!(config.auth.require["level"], 3);
    assert!(config.auth.anonymous && config.socketio.websocket && !config.socketio.polling);
    assert_eq!(config.socketio.ping_interval, Duration::from_secs(90));
    assert_eq!(config.limits.connections, 10);
    assert_eq!(config.cors.origins, ["https://a.example.com"]);
    assert_eq!((config.rooms[0].pattern.as_str(), config.rooms[0].join), ("user:{user}", JoinPolicy::Auto));
    assert_eq!(serde_json::to_string(&config.on[0].emit[0].message.args).unwrap(), "[1,2.5]");
    assert_eq!(
        lines(environment(&[("ROOMCAST_ON", r#"[{"event":"a"},{"evnt":"a"}]"#)])),
        [
            "environment ROOMCAST_ON[1]: `event` is missing",
            "environment ROOMCAST_ON[1].evnt: unknown key; did you mean `event`?",
        ]
    );
}

#[test]
fn rules_are_read_in_every_documented_form() {
    let config = file(
        r#"
[[rooms]]
match = "user:{user}"
join = "auto"
[[on]]
namespace = "/chat"
event = "join_chat"
join = "chat:{0.chatId}"
leave = ["a", "b"]
reply = { event = "joined_chat", args = [{ chatId = "{0.chatId}", message = "Joined" }] }
ack = [{ success = true }]
on_error = { event = "error", args = [{ message = "{error}" }] }
ack_error = [{ success = false, error = "{error}" }]
[[on]]
event = "typing"
emit = [{ room = "chat:{0}", event = "user_typing", volatile = true, include_caller = true }]
"#,
    )
    .unwrap();
    let rule = &config.on[0];
    assert_eq!((rule.namespace.as_str(), rule.join.len(), rule.leave.len()), ("/chat", 1, 2));
    assert_eq!(rule.reply.as_ref().unwrap().args[0]["message"], "Joined");
    assert_eq!(rule.ack_error.as_ref().unwrap()[0]["success"], false);
    let emit = &config.on[1].emit[0];
    assert!(emit.volatile && emit.include_caller && config.on[1].namespace == "/");
    assert!(config.warnings()[0].to_string().ends_with("never runs: `socketio.namespaces` does not have \"/chat\""));
    // The printed configuration can be read again and is the same.
    let again = file(&config.effective_toml()).unwrap();
    assert_eq!((&again.on, &again.rooms), (&config.on, &config.rooms));
}

const AWFUL: &str = r#"listen = "8080"
secret = "hunter2"
colour = "blue"
admin_listen = 9090
[redis]
url = "http://user:hunter2@h"
timout = "5s"
timeout = 5
prefix = "a*"
min_replicas = 17
[auth]
secret = "hunter2-too-short"
algorithms = ["HS256", "HS257"]
user_claim = ["sub"]
leeway = "soon"
require = { n = nan }
[publish]
keys = ["ok", 7]
max_body = "5 apples"
max_event = "2GB"
[cors]
origins = ["https://a.example.com/path", "app.example.com"]
[socketio]
path = "socket.io"
ping_interval = "50ms"
transports = []
namespaces = ["chat"]
[limits]
connections = 0
outbox_bytes = -1
[presence]
grace = "5s"
[recvery]
window = "2m"
[log]
level = "inof"
format = "jsn"
[[rooms]]
match = "a"
join = "alow"
[[rooms]]
matsch = "a"
join = "deny"
presence = true
[[on]]
event = "connect"
[[on]]
event = "disconnect"
ack = []
[[on]]
event = "say"
reply = { event = "said", arg = [] }
emit = [{ event = "x", volatile = "yes" }]
forward = true
"#;

#[test]
fn every_mistake_is_reported_at_once_with_its_place() {
    let expected = r#"roomcast.toml:1:10 listen: "8080" is not an address; write an IP and a port like "0.0.0.0:8080"
roomcast.toml:2:1 secret: unknown key; `secret` belongs to [auth]
roomcast.toml:3:1 colour: unknown key
roomcast.toml:4:16 admin_listen: must be an address like "0.0.0.0:8080", not a number
roomcast.toml:6:7 [redis] url: must start with redis://, rediss://, redis+sentinel:// or redis+cluster://
roomcast.toml:7:1 [redis] timout: unknown key; did you mean `timeout`?
roomcast.toml:8:11 [redis] timeout: a duration needs its unit: "5s" for seconds
roomcast.toml:9:10 [redis] prefix: "a*" must have 1 to 100 bytes, without spaces and without * ? [ ] { } \ ^
roomcast.toml:10:16 [redis] min_replicas: must be a whole number from 0 to 16
roomcast.toml:12:10 [auth] secret: must have at least 32 bytes; make one with `openssl rand -base64 48`
roomcast.toml:13:24 [auth] algorithms[1]: must be one of "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", not "HS257"; did you mean `HS256`?
roomcast.toml:14:14 [auth] user_claim: must be a string, not a list
roomcast.toml:15:10 [auth] leeway: "soon" is not a duration; write it like "25s", "2m", "1h30m" or "500ms"
roomcast.toml:16:17 [auth] require.n: must be a JSON value, not a number that is not finite
roomcast.toml:18:15 [publish] keys[1]: must be a string, not a number
roomcast.toml:19:12 [publish] max_body: must be a size like "5MB", "64KiB" or a number of bytes
roomcast.toml:20:13 [publish] max_event: must be a size from 100B to 1GB, not 2GB
roomcast.toml:22:12 [cors] origins[0]: "https://a.example.com/path" must be scheme://host[:port], without a path, a query or a user
roomcast.toml:22:42 [cors] origins[1]: "app.example.com" is not an origin; write "*" or scheme://host[:port] like "https://app.example.com"
roomcast.toml:24:8 [socketio] path: "socket.io" must be a path that starts and ends with "/", like "/socket.io/"
roomcast.toml:25:17 [socketio] ping_interval: must be a duration from 100ms to 1h, not 50ms
roomcast.toml:26:14 [socketio] transports: must not be empty
roomcast.toml:27:15 [socketio] namespaces[0]: namespace "chat" must start with "/" and not contain spaces, commas or question marks
roomcast.toml:29:15 [limits] connections: must be a whole number from 1 to 10000000
roomcast.toml:30:16 [limits] outbox_bytes: must be a size like "5MB", "64KiB" or a number of bytes
roomcast.toml:33:2 [recvery]: unknown key; did you mean `recovery`?
roomcast.toml:36:9 [log] level: "inof" must be off, error, warn, info, debug or trace, or a list like "info,roomcast=debug"
roomcast.toml:37:10 [log] format: must be one of "text", "json", not "jsn"; did you mean `json`?
roomcast.toml:40:8 [[rooms]] 1 join: must be one of "auto", "allow", "ask", "deny", not "alow"; did you mean `allow`?
roomcast.toml:41:1 [[rooms]] 2: `match` is missing
roomcast.toml:42:1 [[rooms]] 2 matsch: unknown key; did you mean `match`?
roomcast.toml:46:9 [[on]] 1 event: the event of a connecting client is called `connection`
roomcast.toml:49:7 [[on]] 2 ack: does nothing at `disconnect`: nobody waits for it
roomcast.toml:52:27 [[on]] 3 reply.arg: unknown key; did you mean `args`?
roomcast.toml:53:9 [[on]] 3 emit[0]: `room` is missing
roomcast.toml:53:35 [[on]] 3 emit[0].volatile: must be true or false, not a string
environment JWT_SECRET: must have at least 32 bytes; make one with `openssl rand -base64 48`
environment ROOMCAST_REDIS_URL: no key of roomcast has this name; did you mean `ROOMCAST_REDIS__URL`?
flag --listen: "nowhere" is not an address; write an IP and a port like "0.0.0.0:8080""#;
    let environment = [("ROOMCAST_REDIS_URL", "hunter2"), ("JWT_SECRET", "hunter2")];
    let mistakes = lines(load(AWFUL, &environment, Flags { listen: Some("nowhere".into()), ..Flags::default() }));
    assert_eq!(mistakes.join("\n"), expected);
    assert!(!mistakes.join("\n").contains("hunter2"), "a secret was printed");
}

#[test]
fn invalid_toml_is_reported_with_the_other_mistakes() {
    let text = "listen = \n[redis]\ntimeout = \"x\nprefix = \"a*\"\nprefix = \"b\"\n";
    let mistakes = lines(file(text));
    let at = |place: &str| mistakes.iter().any(|line| line.starts_with(place));
    assert!(at("roomcast.toml:1:"), "{mistakes:?}");
    assert!(at("roomcast.toml:3:") && at("roomcast.toml:4:10 [redis] prefix: "), "{mistakes:?}");
    assert!(at("roomcast.toml:5:1: not TOML: duplicate key"), "{mistakes:?}");
    assert_eq!(mistakes.iter().filter(|line| line.starts_with("roomcast.toml:3:")).count(), 1, "{mistakes:?}");
}

#[test]
fn secrets_are_read_from_files_without_the_last_newline() {
    let directory = Directory::new();
    directory.write("secret", &format!("{SECRET}\n"));
    directory.write("keys", "hunter2-one\n\nhunter2-two\n");
    let url = directory.write("url", "redis://:hunter2@h\r\n");
    directory.write("key.pem", include_str!("keys/p256.public.pem"));
    let text = "[auth]\nsecret_file = 'secret'\npublic_key_file = 'key.pem'\nalgorithms = ['HS256', 'ES256']\n\
                [publish]\nkeys_file = 'keys'";
    let config = Flags { config: Some(directory.write("roomcast.toml", text)), ..Flags::default() };
    let environment: Environment = [("ROOMCAST_REDIS__URL_FILE", url.to_str().unwrap())].into_iter().collect();
    let config = Config::load(&config, &environment, Purpose::Serve).unwrap();
    assert_eq!(config.auth.secret.as_ref().unwrap().reveal(), SECRET);
    assert_eq!(config.publish.keys.iter().map(|key| key.reveal()).collect::<Vec<_>>(), ["hunter2-one", "hunter2-two"]);
    assert_eq!(redis(&config), "redis://:hunter2@h");
    assert!(config.auth.public_key.as_ref().unwrap().starts_with("-----BEGIN"));
    for text in [config.effective_toml(), format!("{config:?}")] {
        assert!(!text.contains("hunter2"), "{text}");
    }
}

#[test]
fn a_value_and_its_file_are_a_mistake_but_a_stronger_source_wins() {
    let text = format!("[auth]\nsecret = '{SECRET}'\nsecret_file = '/nowhere'");
    let mistakes = lines(file(&text));
    assert_eq!(mistakes.len(), 2, "{mistakes:?}");
    assert_eq!(mistakes[0][..44], *"roomcast.toml:3:15 [auth] secret_file: `secr");
    assert!(mistakes[0].ends_with("`secret` and `secret_file` are both given; keep one of them"));
    assert!(mistakes[1].contains("cannot read the file /nowhere: No such file"));
    let config = load("[auth]\nsecret_file = '/nowhere'", &[("JWT_SECRET", SECRET)], Flags::default()).unwrap();
    assert_eq!(config.auth.secret.unwrap().reveal(), SECRET);
    let overridden = [("JWT_SECRET", "short"), ("ROOMCAST_AUTH__SECRET", SECRET)];
    assert!(environment(&overridden).is_ok(), "a conventional name may be meant for others");
}

#[test]
fn keys_and_algorithms_must_match() {
    let jwks = "jwks_url = 'https://a.example.com/jwks'";
    let secret = format!("secret = '{SECRET}'");
    for (auth, place) in [
        (format!("{jwks}\n"), "[auth] algorithms: HS256 needs `secret`"),
        (format!("{secret}\nalgorithms = ['RS256']"), "roomcast.toml:2:10 [auth] secret: no HS algorithm"),
        (format!("{secret}\nalgorithms = ['HS256', 'RS256']"), "roomcast.toml:3:14 [auth] algorithms: RS256 needs"),
        (format!("{secret}\n{jwks}"), "roomcast.toml:3:12 [auth] jwks_url: no algorithm"),
        (
            "jwks_url = 'file:///etc/passwd'\nalgorithms = ['RS256']".into(),
            "roomcast.toml:2:12 [auth] jwks_url: must be",
        ),
    ] {
        let mistakes = lines(file(&format!("[auth]\n{auth}")));
        assert!(mistakes.iter().any(|line| line.starts_with(place)), "{auth}: {mistakes:?}");
    }
    assert!(file(&format!("[auth]\n{secret}\n{jwks}\nalgorithms = ['HS256', 'RS256']")).is_ok());
    let conventional = [("JWT_SECRET", SECRET)];
    assert!(load(&format!("[auth]\n{jwks}\nalgorithms = ['RS256']"), &conventional, Flags::default()).is_ok());
}

#[test]
fn serve_requires_a_key_or_anonymous() {
    let serve = |pairs: &[(&str, &str)]| {
        let flags = Flags { config: Some(Path::new("/dev/null").into()), ..Flags::default() };
        Config::load(&flags, &pairs.iter().copied().collect(), Purpose::Serve)
    };
    let mistakes = lines(serve(&[]));
    assert!(mistakes.len() == 1 && mistakes[0].contains("JWT_SECRET"), "{mistakes:?}");
    assert!(serve(&[("JWT_SECRET", SECRET)]).is_ok());
    assert!(serve(&[("ROOMCAST_AUTH__ANONYMOUS", "true")]).is_ok());
    // A wrong key is one mistake, not two.
    assert_eq!(lines(serve(&[("JWT_SECRET", "short")])).len(), 1);
}

#[test]
fn addresses_that_cannot_both_be_bound_are_refused() {
    let mistakes = lines(file("admin_listen = '127.0.0.1:8080'"));
    assert_eq!(mistakes, ["roomcast.toml:1:16 admin_listen: is the same address as `listen`; leave it out"]);
    assert!(file("listen = '127.0.0.1:0'\nadmin_listen = '127.0.0.1:0'").is_ok());
}

#[test]
fn emitter_keys_require_redis() {
    for name in ["emitter_key", "streams_key"] {
        let mistakes = lines(file(&format!("[redis]\n{name} = 'socket.io'")));
        let column = name.len() + 4;
        let expected = format!("roomcast.toml:2:{column} [redis] {name}: needs `redis.url`: emitters publish on Redis");
        assert_eq!(mistakes, [expected]);
        assert!(file(&format!("[redis]\nurl = 'redis://h'\n{name} = 'socket.io'")).is_ok());
    }
}

#[test]
fn mistakes_in_rules_are_reported_with_their_place() {
    let mistakes = lines(file(
        "[[rooms]]\nmatch = 'user:{'\njoin = 'auto'\n[[rooms]]\nmatch = 'a:*'\njoin = 'auto'\n\
         [[on]]\nevent = 'a'\njoin = 'x:{nobody}'\n",
    ));
    let places: Vec<_> = mistakes.iter().map(|line| line.split(": ").next().unwrap()).collect();
    let expected = [
        "roomcast.toml:2:9 [[rooms]] 1 match",
        "roomcast.toml:5:9 [[rooms]] 2 match",
        "roomcast.toml:9:8 [[on]] 1 join",
    ];
    assert_eq!(places, expected, "{mistakes:?}");
    let mistakes = lines(file("[[on]]\nevent = 'a'\n[[on]]\nevent = 'a'\n"));
    assert_eq!(mistakes, ["roomcast.toml:4:9 [[on]] 2 event: \"a\" in / has a rule already; put both into one"]);
}

#[test]
fn tables_and_lists_of_tables_are_distinguished() {
    assert_eq!(
        lines(file("redis = 'redis://hunter2'\n[rooms]\nmatch = 'a'\n[[socketio]]\npath = '/x'")),
        [
            "roomcast.toml:1:1 redis: is a table: write [redis] and its keys below",
            "roomcast.toml:2:2 [rooms]: is a list of tables: write [[rooms]], with two brackets",
            "roomcast.toml:4:3 [[socketio]]: is a table: write [socketio] and its keys below",
        ]
    );
}

#[test]
fn a_public_key_is_read_at_start() {
    let broken = "-----BEGIN PUBLIC KEY-----\nAA==\n-----END PUBLIC KEY-----";
    let directory = Directory::new();
    directory.write("key.pem", broken);
    let text = "[auth]\npublic_key_file = 'key.pem'\nalgorithms = ['RS256']";
    let config = Some(directory.write("roomcast.toml", text));
    let mistakes = lines(Config::load(&Flags { config, ..Flags::default() }, &Environment::default(), Purpose::Serve));
    assert!(
        mistakes.len() == 1 && mistakes[0].starts_with("roomcast.toml:2:19 [auth] public_key_file: "),
        "{mistakes:?}"
    );
}

#[test]
fn a_backend_stream_requires_redis_and_cannot_answer_calls() {
    let redis = "[redis]\nurl = 'redis://h'\nstreams_key = 'socket.io'\n";
    let inbox = |stream: &str| format!("{redis}[backend]\nstream = '{stream}'");
    let ask = "\n[[rooms]]\nmatch = 'a'\njoin = 'allow'\n[[rooms]]\nmatch = 'b'\njoin = 'ask'";
    let forward = "\n[[on]]\nevent = 'e'\nforward = true";
    for (text, mistake) in [
        ("[backend]\nstream = 'roomcast:inbox'", "roomcast.toml:2:10 [backend] stream: needs `redis.url`"),
        (&(inbox("i") + ask), "roomcast.toml:11:8 [[rooms]] 2 join: \"ask\" needs `backend.url`"),
        (
            &(inbox("i") + "\nurl = 'http://h/'"),
            "roomcast.toml:5:10 [backend] stream: give `url` or `stream`, not both",
        ),
        (&inbox("roomcast:events"), "is a key that roomcast uses itself"),
        (&inbox("roomcast:{roomcast:events}:epoch"), "is a key that roomcast uses itself"),
        (&inbox("socket.io"), "is `redis.streams_key`"),
        (&inbox(""), "must have 1 to 200 bytes"),
        (&(inbox("i") + "\nstream_limit = 0"), "stream_limit"),
    ] {
        let mistakes = lines(file(text));
        assert!(mistakes.len() == 1 && mistakes[0].contains(mistake), "{text}: {mistakes:?}");
    }
    let config = file(&(inbox("roomcast:inbox") + "\nsecret = 'unused'" + forward)).unwrap();
    assert!(config.effective_toml().contains("stream = \"roomcast:inbox\"\nstream_limit = 100000\n"));
    assert!(config.warnings()[0].to_string().contains("[backend] secret: signs what is posted"));
    let unsigned = "[backend]\nurl = 'http://h/'";
    assert!(file(unsigned).unwrap().warnings()[0].to_string().contains("[backend] url: goes without a signature"));
    assert!(file(&format!("{unsigned}\nsecret = 'a secret that signs what is posted'")).unwrap().warnings().is_empty());
}

#[test]
fn secrets_issuers_and_audiences_may_be_lists() {
    let old = "an old secret of at least thirty-two bytes";
    let all = |config: Config| -> Vec<String> {
        config.auth.secret.iter().chain(&config.auth.other_secrets).map(|secret| secret.reveal().to_owned()).collect()
    };
    let list = format!("[auth]\nsecrets = ['{SECRET}', '{old}']\n");
    assert_eq!(all(file(&list).unwrap()), [SECRET, old]);
    assert_eq!(all(environment(&[("ROOMCAST_AUTH__SECRETS", &format!("{SECRET},{old}"))]).unwrap()), [SECRET, old]);
    // One is stronger than the other like any other key, and in one place both are a mistake.
    assert_eq!(all(load(&list, &[("JWT_SECRET", old)], Flags::default()).unwrap()), [old]);
    let both = lines(file(&format!("{list}secret = '{old}'")));
    assert!(both[0].ends_with("`secret` are both given; keep one of them"), "{both:?}");
    let short = lines(file(&format!("[auth]\nsecrets = ['{SECRET}', 'hunter2']")));
    assert!(short[0].contains("[auth] secrets[1]: must have at least 32 bytes"), "{short:?}");
    assert!(!short[0].contains("hunter2"));
    let directory = Directory::new();
    let lines_of = directory.write("secrets", &format!("{SECRET}\n\n{old}\n"));
    let from_file = [("ROOMCAST_AUTH__SECRETS_FILE", lines_of.to_str().unwrap())];
    assert_eq!(all(environment(&from_file).unwrap()), [SECRET, old]);
    let shown = file(&list).unwrap().effective_toml();
    assert!(shown.contains("secrets = [\"***\", \"***\"]\n") && shown.contains("# secret is not set\n"), "{shown}");

    let config = file(&format!("[auth]\nsecret = '{SECRET}'\nissuer = 'https://a'\naudience = ['x', 'y']")).unwrap();
    assert_eq!(
        (config.auth.issuer, config.auth.audience),
        (vec!["https://a".to_owned()], vec!["x".to_owned(), "y".into()])
    );
    let config = environment(&[("ROOMCAST_AUTH__ISSUER", "https://a, https://b")]).unwrap();
    assert_eq!(config.auth.issuer, ["https://a", "https://b"]);
    assert!(config.effective_toml().contains("issuer = [\"https://a\", \"https://b\"]\n"));
}

#[test]
fn a_named_file_must_exist() {
    let flags = Flags { config: Some("/nowhere/roomcast.toml".into()), ..Flags::default() };
    let mistakes = lines(Config::load(&flags, &Environment::default(), Purpose::Other));
    assert!(mistakes[0].starts_with("flag --config: cannot read the file /nowhere/roomcast.toml: "), "{mistakes:?}");
    let environment = [("ROOMCAST_CONFIG", "/nowhere/roomcast.toml")].into_iter().collect();
    let mistakes = lines(Config::load(&Flags::default(), &environment, Purpose::Other));
    assert!(mistakes[0].starts_with("environment ROOMCAST_CONFIG: cannot read"), "{mistakes:?}");
    assert!(Config::load(&Flags::default(), &Environment::default(), Purpose::Other).is_ok());
}

#[test]
fn the_example_shows_the_defaults_and_its_comments_are_right() {
    let example = include_str!("../config.example.toml");
    let config = file(example).expect("the example is right");
    assert_eq!(config.effective_toml(), Config::default().effective_toml());

    // With every key uncommented, only keys that exclude each other are refused.
    let uncommented: Vec<_> = example.lines().map(uncomment).collect();
    for mistake in lines(file(&uncommented.join("\n"))) {
        let excused = ["both given", "cannot read the file", "not both", "no algorithm is in"];
        assert!(excused.iter().any(|why| mistake.contains(why)), "{mistake}");
    }
    for key in roomcast::config::key_names() {
        let (section, name) = key.rsplit_once('.').unwrap_or(("", &key));
        let header = format!("[{section}]");
        let start = if section.is_empty() { Some(0) } else { uncommented.iter().position(|l| l.starts_with(&header)) };
        let found = uncommented[start.unwrap_or_else(|| panic!("{header} is missing"))..]
            .iter()
            .skip(1)
            .take_while(|line| section.is_empty() || !line.starts_with('['))
            .any(|line| line.starts_with(&format!("{name} = ")) || line.starts_with(&format!("[[{name}]]")));
        assert!(found, "config.example.toml does not show {key}");
    }
}

/// `#key = …` without the `#`; prose has a space after it.
fn uncomment(line: &str) -> &str {
    line.strip_prefix('#').filter(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '[')).unwrap_or(line)
}

#[test]
fn the_admin_ui_has_its_namespace_for_itself_and_needs_a_key() {
    let own = "socketio.namespaces = [\"/\", \"/admin\"]\n";
    assert!(file(own).is_ok());
    assert_eq!(
        lines(file(&format!("{own}console.admin_ui = true"))),
        [
            "roomcast.toml:1:23 [socketio] namespaces: has \"/admin\", which `console.admin_ui` takes; rename yours or switch that off"
        ]
    );
    let config = file("console = { admin_ui = true }").unwrap();
    assert!(config.warnings().iter().any(|warning| warning.to_string().contains("`publish.keys`")));
    assert!(file("[console]\nadmin_ui = true\n[publish]\nkeys = [\"k\"]").unwrap().warnings().is_empty());
}

#[test]
fn a_running_node_takes_over_what_needs_no_restart() {
    let before =
        file("listen = ':1'\n[publish]\nkeys = ['a']\n[limits]\nheaders = 100\n[redis]\nprefix = 'x'").unwrap();
    let after =
        file("listen = ':2'\n[publish]\nkeys = ['a', 'b']\n[limits]\nheaders = 50\n[redis]\nprefix = 'y'").unwrap();
    let names = |changes: &[Change]| changes.iter().map(|change| change.key.clone()).collect::<Vec<_>>();
    let successor = before.successor(after, Purpose::Other).unwrap();
    assert_eq!(names(&successor.applied), ["publish.keys", "limits.headers"]);
    assert_eq!(names(&successor.needs_restart), ["listen", "redis.prefix"]);
    let change = &successor.applied[1];
    assert_eq!((change.from.as_deref(), change.to.as_deref()), (Some("100"), Some("50")));
    let config = successor.config;
    assert_eq!((config.publish.keys.len(), config.limits.headers), (2, 50));
    assert_eq!((config.listen.listen.port(), config.redis.prefix.as_str()), (1, "x"));
    // The same file again: what waits for a restart is still named.
    let again =
        file("listen = ':2'\n[publish]\nkeys = ['a', 'b']\n[limits]\nheaders = 50\n[redis]\nprefix = 'y'").unwrap();
    let successor = config.successor(again, Purpose::Other).unwrap();
    assert_eq!((names(&successor.applied).len(), names(&successor.needs_restart).len()), (0, 2));
}

#[test]
fn new_values_must_fit_the_old_ones_that_stay() {
    let rules = "[[rooms]]\nmatch = 'chat:<x>'\njoin = 'ask'";
    let (without, with) = (file("").unwrap(), file(&format!("[backend]\nurl = 'http://b/'\n{rules}")).unwrap());
    let mistakes = without.successor(with.clone(), Purpose::Other).unwrap_err();
    assert_eq!(mistakes.len(), 1);
    assert!(mistakes[0].place.ends_with("[[rooms]] 1 join"), "{}", mistakes[0]);
    assert!(mistakes[0].message.ends_with("(until a restart, when backend.url changes too)"), "{}", mistakes[0]);
    // A backend that goes waits too, and with it the rules that ask it may go or stay.
    let successor = with.successor(without, Purpose::Other).unwrap();
    assert!(successor.config.backend.is_some() && successor.config.rooms.is_empty());
}

#[test]
fn fingerprints_tell_shared_settings_apart_and_show_no_secret() {
    let print = |text: &str| file(text).unwrap().fingerprint();
    assert_eq!(print("listen = ':1'\n[limits]\nheaders = 100"), print("listen = ':2'\nadmin_listen = ':3'"));
    let mut prints: Vec<String> = [
        "",
        "[limits]\nheaders = 50",
        "[publish]\nkeys = ['a']",
        "[publish]\nkeys = ['b']",
        "[redis]\nurl = 'redis://:one@h'",
        "[redis]\nurl = 'redis://:two@h'",
        "[[rooms]]\nmatch = 'a'\njoin = 'deny'",
    ]
    .map(print)
    .into();
    assert!(prints.iter().all(|print| print.len() == 10));
    prints.sort_unstable();
    prints.dedup();
    assert_eq!(prints.len(), 7);
}
