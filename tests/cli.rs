//! The command line: exit codes, standard output, and that secrets are never printed.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "common/redis.rs"]
mod redis_server;

use redis_server::RedisServer;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const SECRET: &str = "0123456789abcdef0123456789abcdef-hunter2";
const DEADLINE: Duration = Duration::from_secs(60);

/// A directory for one test: the working directory of its commands.
struct Directory(PathBuf);

impl Directory {
    fn new(config: &str) -> Self {
        let path = std::env::temp_dir().join(format!("roomcast-cli-{}", roomcast::model::id::Id::random()));
        std::fs::create_dir_all(&path).unwrap();
        std::fs::write(path.join("roomcast.toml"), config).unwrap();
        Self(path)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_roomcast"));
        command.args(arguments).env_clear().current_dir(&self.0).stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        Ran::from(self.command(arguments).output().unwrap())
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[derive(Debug)]
struct Ran {
    code: i32,
    stdout: String,
    stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        let [stdout, stderr] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
        Self { code: output.status.code().expect("it ended by itself"), stdout, stderr }
    }
}

/// A process that is killed at the end of the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A node on a free port, and its address.
fn serve(directory: &Directory) -> (Running, String) {
    let mut command = directory.command(&["serve", "--listen", "127.0.0.1:0"]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let stderr = BufReader::new(child.stderr.take().unwrap());
    let running = Running(child);
    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || {
        // Reads to the end, so that the pipe never fills up.
        for line in stderr.lines().map_while(Result::ok) {
            if let Some((_, rest)) = line.split_once("address=") {
                let _ = send.send(rest.split_whitespace().next().unwrap_or("").to_owned());
            }
        }
    });
    let address = receive.recv_timeout(DEADLINE).expect("the node says where it listens");
    (running, address)
}

fn claims(token: &str) -> roomcast::auth::Identity {
    let config = roomcast::auth::config::AuthConfig {
        secret: Some(roomcast::model::secret::Secret::new(SECRET)),
        ..Default::default()
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    (*roomcast::auth::Authenticator::new(&config).unwrap().verify(token.trim(), now).unwrap()).clone()
}

#[test]
fn wrong_usage_and_wrong_configuration_exit_with_2() {
    let directory = Directory::new("colour = 'red'\n[auth]\nsecret = 'hunter2'\n[socketio]\nping_intervall = '1s'\n");
    for arguments in [&["--no-such-flag"][..], &["nonsense"], &["serve", "--listen"], &["token"], &["publish"]] {
        assert_eq!(directory.run(arguments).code, 2, "{arguments:?}");
    }
    for arguments in [&[][..], &["serve"], &["check"], &["demo"], &["health"], &["token", "--user", "7"]] {
        let ran = directory.run(arguments);
        assert_eq!((ran.code, ran.stdout.as_str()), (2, ""), "{arguments:?}: {}", ran.stderr);
        for place in ["roomcast.toml:1:1 colour", "roomcast.toml:3:10 [auth] secret", "roomcast.toml:5:1 [socketio]"] {
            assert!(ran.stderr.contains(place), "{arguments:?}: {place} in {}", ran.stderr);
        }
        assert!(!ran.stderr.contains("hunter2"), "{}", ran.stderr);
    }
    let ran = directory.run(&["check", "--config", "/no/such.toml"]);
    assert!(
        ran.code == 2 && ran.stderr.contains("flag --config: cannot read the file /no/such.toml"),
        "{}",
        ran.stderr
    );
    assert_eq!(directory.run(&["--help"]).code, 0);
    // Such as `roomcast 0.1.0 (1a2b3c4d5e6f 2026-11-26)`; the tests of the packages compare the commit.
    let version = directory.run(&["--version"]).stdout;
    assert!(
        version.starts_with(concat!("roomcast ", env!("CARGO_PKG_VERSION"), " (")) && version.ends_with(")\n"),
        "{version}"
    );
}

#[test]
fn serve_needs_a_key_and_a_free_port() {
    let directory = Directory::new("");
    let ran = directory.run(&["serve"]);
    assert!(ran.code == 2 && ran.stderr.contains("JWT_SECRET"), "{}", ran.stderr);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let ran =
        Ran::from(directory.command(&["serve", "--listen", &address]).env("JWT_SECRET", SECRET).output().unwrap());
    assert!(ran.code == 1 && ran.stderr.contains(&format!("cannot listen on {address}")), "{}", ran.stderr);
}

#[test]
fn check_prints_the_effective_configuration_with_masked_secrets() {
    let text =
        format!("[auth]\nsecret = '{SECRET}'\n[publish]\nkeys = ['hunter2']\n[socketio]\nping_interval = '7s'\n");
    let directory = Directory::new(&text);
    let ran = directory.run(&["check"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, "roomcast: OK\n"));
    assert!(ran.stdout.ends_with("\n# OK\n"), "{}", ran.stdout);
    assert!(ran.stdout.contains("secret = \"***\"") && ran.stdout.contains("keys = [\"***\"]"), "{}", ran.stdout);
    assert!(ran.stdout.contains("ping_interval = \"7s\"") && !ran.stdout.contains("hunter2"), "{}", ran.stdout);
    // The output is itself a valid configuration, except for the masks.
    let again = ran.stdout.replace("\"***\"", &format!("\"{SECRET}\""));
    assert_eq!(Directory::new(&again).run(&["check"]).stdout, ran.stdout);
}

#[test]
fn check_warns_of_rules_that_do_nothing_and_strictly_refuses_them() {
    let rules = "[[rooms]]\nmatch = 'chat:*'\njoin = 'allow'\n[[rooms]]\nmatch = 'chat:<id>'\njoin = 'deny'\n\
                 [[on]]\nevent = 'join'\njoin = 'chats:{0}'\n[[on]]\nevent = 'typing'\n";
    let directory = Directory::new(&format!("[auth]\nsecret = '{SECRET}'\n{rules}"));
    let ran = directory.run(&["check"]);
    assert_eq!(ran.code, 0);
    let expected = [
        "roomcast.toml:7:9 [[rooms]] 2 match: never decides: number 1, \"chat:*\", matches all of it",
        "roomcast.toml:11:8 [[on]] 1 join: \"chats:{0}\" matches no [[rooms]] rule, so it is refused",
        "roomcast.toml:13:9 [[on]] 2 event: \"typing\" does nothing",
        "[publish] keys: there is none",
        "roomcast: OK, with 4 warnings",
    ];
    let lines: Vec<_> = ran.stderr.lines().collect();
    assert_eq!(lines.len(), expected.len(), "{}", ran.stderr);
    for (line, expected) in lines.iter().zip(expected) {
        assert!(line.contains(expected), "{line}\n{expected}");
    }
    let strict = directory.run(&["check", "--strict"]);
    assert!(strict.code == 2 && strict.stderr.ends_with("roomcast: not OK: 4 warnings\n"), "{}", strict.stderr);
    assert!(strict.stdout.ends_with("\n# not OK\n"), "{}", strict.stdout);
}

#[test]
fn a_secret_that_is_missing_beside_an_unread_env_file_says_how_to_read_it() {
    let directory = Directory::new("");
    let hint = "set -a; . ./.env; set +a";
    assert!(!directory.run(&["check"]).stderr.contains(hint));
    assert_eq!(directory.run(&["init", "--dir", "sub"]).code, 0);
    let ran = Ran::from(directory.command(&["check"]).current_dir(directory.0.join("sub")).output().unwrap());
    assert!(ran.code == 2 && ran.stderr.contains(hint) && ran.stderr.ends_with("roomcast: not OK\n"), "{}", ran.stderr);
}

#[test]
fn check_ends_with_its_verdict_after_mistakes_as_well() {
    let ran = Directory::new("[auth]\nsecrt = 'x'\n").run(&["check"]);
    assert!(ran.code == 2 && ran.stderr.ends_with("\nroomcast: not OK\n"), "{}", ran.stderr);
    assert_eq!(ran.stdout, "");
}

#[test]
fn a_publish_key_under_another_name_is_a_mistake_that_names_the_right_one() {
    let directory = Directory::new(&format!("[auth]\nsecret = '{SECRET}'\n"));
    for name in ["ROOMCAST_PUBLISH_KEY", "ROOMCAST_PUBLISH_KEYS", "ROOMCAST_PUBLISH__KEY"] {
        let ran = Ran::from(directory.command(&["check"]).env(name, "hunter2").output().unwrap());
        assert!(
            ran.code == 2 && ran.stderr.contains("did you mean `ROOMCAST_PUBLISH__KEYS`?"),
            "{name}: {}",
            ran.stderr
        );
    }
}

#[test]
fn check_reports_an_unreachable_redis_and_key_set() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let jwks = format!("[auth]\njwks_url = 'http://127.0.0.1:{port}/jwks'\nalgorithms = ['RS256']\n");
    let directory = Directory::new(&jwks);
    let url = format!("redis://app:hunter2@127.0.0.1:{port}/0");
    let ran = directory.run(&["check", "--redis-url", &url]);
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains(&format!("redis: 127.0.0.1:{port}: ")), "{}", ran.stderr);
    assert!(ran.stderr.contains("auth.jwks_url: "), "{}", ran.stderr);
    let shown = format!("url = \"redis://app:***@127.0.0.1:{port}/0\"");
    assert!(ran.stdout.contains(&shown) && !(ran.stdout + &ran.stderr).contains("hunter2"));
}

#[test]
fn check_reports_a_reachable_redis_and_a_wrong_password() {
    let directory = Directory::new(&format!("[auth]\nsecret = '{SECRET}'\n"));
    let server = RedisServer::with(&["--requirepass", "hunter2"]);
    let port = server.port();
    let url = format!("redis://:hunter2@127.0.0.1:{port}");
    let deadline = Instant::now() + DEADLINE;
    let ran = loop {
        let ran = directory.run(&["check", "--redis-url", &url]);
        if ran.code == 0 || Instant::now() > deadline {
            break ran;
        }
    };
    assert!(ran.stderr.contains(&format!("redis: ready at 127.0.0.1:{port}, version ")), "{}", ran.stderr);
    for login in [":wrong@", ""] {
        let ran = directory.run(&["check", "--redis-url", &format!("redis://{login}127.0.0.1:{port}")]);
        assert_eq!(ran.code, 2, "{login}: {}", ran.stderr);
    }
}

#[test]
fn publish_reports_replication() {
    let master = RedisServer::start();
    let replica = RedisServer::with(&["--replicaof", "127.0.0.1", &master.port().to_string()]);
    let redis = format!("[redis]\nurl = '{}'\nmin_replicas = 1\ntimeout = '3s'\n", master.url());
    let keys = "[publish]\nkeys = ['hunter2']\n";
    let directory = Directory::new(&format!("{redis}[auth]\nsecret = '{SECRET}'\n{keys}"));
    let (_node, address) = serve(&directory);
    let publish = || directory.run(&["publish", "--room", "r", "--event", "e", "--data", "1", "--listen", &address]);
    let deadline = Instant::now() + DEADLINE;
    let ran = loop {
        let ran = publish();
        if ran.code == 0 || Instant::now() > deadline {
            break ran;
        }
    };
    assert!(ran.stdout.contains("\"durability\":\"replicated:1\"") && ran.stdout.contains("\"offset\":\""), "{ran:?}");
    replica.freeze();
    let ran = publish();
    assert!(ran.code == 1 && ran.stderr.contains("not_replicated"), "{ran:?}");
}

#[test]
fn token_has_the_requested_claims() {
    let directory = Directory::new(&format!("[auth]\nsecret = '{SECRET}'\n"));
    let token = |arguments: &[&str]| directory.run(&[&["token"], arguments].concat());
    let ran = token(&["--user", "7", "--room", "a:*", "--room", "b", "--claim", "plan=pro", "--claim", "org.id=3"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    let identity = claims(&ran.stdout);
    assert_eq!(identity.user.as_ref().map(|user| user.as_str()), Some("7"));
    let payload = ran.stdout.split('.').nth(1).unwrap().to_owned();
    let json: serde_json::Value = {
        use base64::Engine as _;
        let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload).unwrap();
        serde_json::from_slice(&bytes).unwrap()
    };
    assert_eq!(json["rooms"], serde_json::json!(["a:*", "b"]));
    assert_eq!((&json["sub"], &json["plan"], &json["org"]["id"]), (&"7".into(), &"pro".into(), &3.into()));
    assert_eq!(json["exp"].as_u64().unwrap() - json["iat"].as_u64().unwrap(), 3600);
    assert_eq!(token(&["--user", "7", "--ttl", "soon"]).code, 2);
    let without = Directory::new("").run(&["token", "--user", "7"]);
    assert!(without.code == 2 && without.stderr.contains("secret"), "{}", without.stderr);
}

#[test]
fn publish_and_health_use_a_running_node() {
    let directory = Directory::new(&format!("[auth]\nsecret = '{SECRET}'\n[publish]\nkeys = ['hunter2']\n"));
    let (node, address) = serve(&directory);
    let url = format!("http://{address}");
    let publish = ["publish", "--room", "r", "--event", "e", "--data", "{\"n\":9007199254740993}"];
    for arguments in [[&publish[..], &["--listen", &address]].concat(), [&publish[..], &["--url", &url]].concat()] {
        let ran = directory.run(&arguments);
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
        assert!(ran.stdout.starts_with("{\"offset\":\""), "{}", ran.stdout);
    }
    let refused = directory.run(&[&publish[..], &["--url", &url, "--key", "wrong"]].concat());
    assert!(refused.code == 1 && refused.stdout.is_empty() && refused.stderr.contains("40"), "{}", refused.stderr);
    assert_eq!(directory.run(&["publish", "--room", "r", "--event", "e", "--data", "hi", "--url", &url]).code, 2);
    let mut with_variable = directory.command(&[&publish[..], &["--url", &url, "--config", "/nowhere"]].concat());
    assert_eq!(Ran::from(with_variable.env("ROOMCAST_PUBLISH__KEYS", "hunter2, older").output().unwrap()).code, 0);

    let ran = directory.run(&["health", "--url", &url]);
    assert!(ran.code == 0 && ran.stdout.contains("\"status\":\"ok\""), "{}{}", ran.stdout, ran.stderr);
    drop(node);
    let ran = directory.run(&["health", "--url", &url]);
    assert!(ran.code == 1 && ran.stdout.is_empty() && ran.stderr.contains(&url), "{}", ran.stderr);
}

#[test]
fn init_writes_a_configuration_that_passes_check_and_never_overwrites() {
    for (shape, helper) in [
        ("--plain", None),
        ("--express", Some("roomcast.mjs")),
        ("--nest", Some("roomcast.ts")),
        ("--laravel", Some("Roomcast.php")),
        ("--fastapi", Some("roomcast_backend.py")),
    ] {
        let directory = Directory::new("");
        std::fs::remove_file(directory.0.join("roomcast.toml")).unwrap();
        let ran = directory.run(&["init", shape]);
        assert_eq!(ran.code, 0, "{shape}: {ran:?}");
        let read = |name: &str| std::fs::read_to_string(directory.0.join(name)).unwrap();
        let secrets = read(".env");
        assert_eq!(helper.map(|name| read(name).is_empty()), helper.map(|_| false), "{shape}");
        let variables: Vec<(&str, &str)> =
            secrets.lines().filter(|line| !line.starts_with('#')).map(|line| line.split_once('=').unwrap()).collect();
        assert_eq!(variables.len(), if helper.is_some() { 3 } else { 2 }, "{shape}: {secrets}");
        let check = Ran::from(directory.command(&["check"]).envs(variables.clone()).output().unwrap());
        assert_eq!(check.code, 0, "{shape}: {check:?}");
        assert!(!check.stderr.contains("warning"), "{shape}: {}", check.stderr);
        let token = directory.command(&["token", "--user", "7"]).envs(variables).output().unwrap();
        assert_eq!(token.status.code(), Some(0), "{shape}");

        let again = directory.run(&["init", shape]);
        assert_eq!((again.code, read(".env")), (1, secrets), "{shape}: {again:?}");
        assert!(again.stderr.contains("roomcast.toml") && again.stderr.contains("nothing was written"), "{again:?}");
    }
}

#[test]
fn init_makes_secrets_private_and_accepts_one_framework() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = Directory::new("");
    assert_eq!(directory.run(&["init", "--dir", "new/app"]).code, 0);
    let secrets = directory.0.join("new/app/.env");
    assert_eq!(secrets.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(directory.run(&["init", "--dir", "other"]).code, 0);
    let text = |path: PathBuf| std::fs::read_to_string(path).unwrap();
    assert_ne!(text(secrets), text(directory.0.join("other/.env")), "secrets are fresh");
    assert_eq!(directory.run(&["init", "--express", "--nest", "--dir", "both"]).code, 2);
    assert!(!directory.0.join("both").exists());
}

#[test]
fn completions_and_the_man_page_name_the_commands() {
    let directory = Directory::new("");
    for shell in ["bash", "zsh", "fish"] {
        let ran = directory.run(&["completions", shell]);
        assert!(ran.code == 0 && ran.stdout.contains("publish"), "{shell}: {}", ran.code);
    }
    assert_eq!(directory.run(&["completions", "csh"]).code, 2);
    let man = directory.run(&["man"]);
    assert!(man.code == 0 && man.stdout.contains(".TH roomcast") && man.stdout.contains("publish"), "{}", man.code);
}
