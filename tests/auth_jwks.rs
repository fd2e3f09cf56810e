//! The JWKS over real HTTP: rotation, and servers that are slow, broken, redirect, or send too much.
#![allow(clippy::unwrap_used)]

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, encode};
use roomcast::auth::config::AuthConfig;
use roomcast::auth::{AuthError, Authenticator, JwksTiming};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::future::pending;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

const NOW: u64 = 1_800_000_000;
const DEADLINE: Duration = Duration::from_secs(60);

/// The next answer of the server.
#[derive(Clone)]
enum Answer {
    Body(String),
    Status(u16),
    Redirect(String),
    /// The head and half of the body.
    Stall,
    /// Nothing.
    Silence,
}

/// A text that ends, or one that never ends.
struct Text {
    text: Option<String>,
    ends: bool,
}

impl Body for Text {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match (self.text.take(), self.ends) {
            (Some(text), _) => Poll::Ready(Some(Ok(Frame::data(text.into())))),
            (None, true) => Poll::Ready(None),
            (None, false) => Poll::Pending,
        }
    }
}

struct Server {
    url: String,
    answer: Mutex<Answer>,
    requests: AtomicUsize,
    seen: Mutex<Vec<String>>,
}

impl Server {
    async fn start(answer: Answer) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/jwks?tenant=1", listener.local_addr().unwrap());
        let server = Arc::new(Self { url, answer: Mutex::new(answer), requests: 0.into(), seen: Mutex::default() });
        let accepting = server.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let server = accepting.clone();
                let service = hyper::service::service_fn(move |request| {
                    let server = server.clone();
                    async move { server.respond(&request).await }
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        server
    }

    async fn respond(&self, request: &Request<Incoming>) -> Result<Response<Text>, Infallible> {
        self.requests.fetch_add(1, Ordering::SeqCst);
        self.seen.lock().unwrap().push(format!("{} {} {:?}", request.method(), request.uri(), request.headers()));
        let answer = self.answer.lock().unwrap().clone();
        let response = Response::builder();
        let text = |text: &str| Text { text: Some(text.to_owned()), ends: true };
        Ok(match answer {
            Answer::Body(body) => response.body(text(&body)),
            Answer::Status(status) => response.status(status).body(text("no")),
            Answer::Redirect(to) => response.status(302).header("location", to).body(text("")),
            Answer::Stall => response.body(Text { ends: false, ..text("{\"keys\":") }),
            Answer::Silence => pending().await,
        }
        .unwrap())
    }

    fn set(&self, answer: Answer) {
        *self.answer.lock().unwrap() = answer;
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    /// Waits until the server has received this many requests.
    async fn asked(&self, times: usize) {
        let start = Instant::now();
        while self.requests() < times {
            assert!(start.elapsed() < DEADLINE, "asked {} times, not {times}", self.requests());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn key() -> EncodingKey {
    EncodingKey::from_ed_pem(include_bytes!("keys/ed25519.private.pem")).unwrap()
}

/// A set with the test key under these names.
fn set(kids: &[&str]) -> Answer {
    let public = DecodingKey::from_ed_pem(include_bytes!("keys/ed25519.public.pem")).unwrap();
    let x = URL_SAFE_NO_PAD.encode(public.try_get_as_bytes().unwrap());
    let keys: Vec<Value> =
        kids.iter().map(|kid| json!({"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": x, "use": "sig"})).collect();
    Answer::Body(json!({ "keys": keys }).to_string())
}

fn token(kid: &str, user: &str) -> String {
    let header = Header { kid: Some(kid.to_owned()), ..Header::new(Algorithm::EdDSA) };
    encode(&header, &json!({"sub": user, "exp": NOW + 600}), &key()).unwrap()
}

fn config(url: &str) -> AuthConfig {
    AuthConfig {
        jwks_url: Some(url.to_owned()),
        algorithms: vec![roomcast::auth::Algorithm::EdDSA],
        ..AuthConfig::default()
    }
}

/// Short times, but as long as a slow machine may need.
fn timing(min_interval: Duration) -> JwksTiming {
    JwksTiming { min_interval, timeout: Duration::from_secs(2), ..JwksTiming::default() }
}

fn running(url: &str, timing: JwksTiming) -> Arc<Authenticator> {
    let auth = Authenticator::with_jwks_timing(&config(url), timing).unwrap();
    tokio::spawn(auth.clone().run());
    auth
}

const MOMENT: Duration = Duration::from_millis(50);

#[tokio::test]
async fn the_first_client_waits_for_the_first_fetch() {
    let server = Server::start(set(&["a"])).await;
    let auth = running(&server.url, JwksTiming::default());
    assert_eq!(auth.verify(&token("a", "7"), NOW), Err(AuthError::UnknownKey));
    let identity = auth.authenticate(Some(&token("a", "7")), NOW).await.unwrap();
    assert_eq!(identity.user.as_ref().unwrap().as_str(), "7");
    assert!(auth.verify(&token("a", "8"), NOW).is_ok());
    assert_eq!(server.requests(), 1);
    let seen = server.seen.lock().unwrap()[0].clone();
    assert!(seen.starts_with("GET /jwks?tenant=1 "), "the configured URL and no other: {seen}");
}

#[tokio::test]
async fn a_new_key_causes_one_fetch_for_all_waiting_clients() {
    let server = Server::start(set(&["a"])).await;
    let auth = running(&server.url, timing(Duration::from_millis(300)));
    auth.authenticate(Some(&token("a", "7")), NOW).await.unwrap();
    server.set(set(&["a", "b"]));
    // From threads with their own runtimes, as shards are.
    let threads: Vec<_> = (0..4)
        .map(|thread| {
            let auth = auth.clone();
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async move {
                    let mut clients = JoinSet::new();
                    for client in 0..50 {
                        let (auth, token) = (auth.clone(), token("b", &format!("{thread}-{client}")));
                        clients.spawn(async move { auth.authenticate(Some(&token), NOW).await.is_ok() });
                    }
                    clients.join_all().await.into_iter().filter(|ok| *ok).count()
                })
            })
        })
        .collect();
    let start = Instant::now();
    while threads.iter().any(|thread| !thread.is_finished()) {
        assert!(start.elapsed() < DEADLINE);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let accepted: usize = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
    assert_eq!(accepted, 200);
    assert_eq!(server.requests(), 2, "one at start, one for all who waited");
    assert!(auth.verify(&token("a", "7"), NOW).is_ok());
}

#[tokio::test]
async fn tokens_with_unknown_keys_cannot_cause_frequent_fetches() {
    let least = Duration::from_millis(400);
    let server = Server::start(set(&["a"])).await;
    let start = Instant::now();
    let auth = running(&server.url, timing(least));
    auth.authenticate(Some(&token("a", "7")), NOW).await.unwrap();
    for round in 0..4 {
        let mut strangers = JoinSet::new();
        for stranger in 0..100 {
            let (auth, token) = (auth.clone(), token(&format!("{round}-{stranger}"), "evil"));
            strangers.spawn(async move { auth.authenticate(Some(&token), NOW).await });
        }
        for result in strangers.join_all().await {
            assert_eq!(result, Err(AuthError::UnknownKey));
        }
    }
    let max = 2 + start.elapsed().as_millis() / least.as_millis();
    assert!(server.requests() as u128 <= max, "{} fetches, at most {max}", server.requests());
    assert!(server.requests() >= 2);
    // A kid that is a URL or a path causes no fetch, and is not fetched itself.
    let before = server.requests();
    for kid in [server.url.as_str(), "http://127.0.0.1:1/", "../jwks"] {
        let result = auth.authenticate(Some(&token(kid, "evil")), NOW).await;
        assert!(matches!(result, Err(AuthError::Malformed(_))), "{result:?}");
    }
    assert_eq!(server.requests(), before);
    assert!(server.seen.lock().unwrap().iter().all(|seen| !seen.contains("evil")));
}

#[tokio::test]
async fn a_client_that_disconnected_causes_no_fetch() {
    // So long that the next fetch is not due when the client asks.
    let least = Duration::from_secs(2);
    let server = Server::start(set(&["a"])).await;
    let auth = running(&server.url, timing(least));
    auth.authenticate(Some(&token("a", "7")), NOW).await.unwrap();
    let short_lived = auth.clone();
    let gone = tokio::time::timeout(MOMENT, async move { short_lived.authenticate(Some(&token("x", "7")), NOW).await });
    assert!(gone.await.is_err());
    // Two intervals show that nothing is fetched.
    assert!(tokio::time::timeout(least * 2, server.asked(2)).await.is_err());
}

#[tokio::test]
async fn the_old_keys_stay_valid_while_the_server_fails() {
    let elsewhere = Server::start(set(&["evil"])).await;
    let server = Server::start(set(&["a"])).await;
    let auth = running(&server.url, timing(MOMENT));
    auth.authenticate(Some(&token("a", "7")), NOW).await.unwrap();
    let huge = format!(r#"{{"keys":[],"x":"{}"}}"#, "x".repeat(300_000));
    for (name, answer) in [
        ("500", Answer::Status(500)),
        ("404", Answer::Status(404)),
        ("204", Answer::Status(204)),
        ("redirect", Answer::Redirect(elsewhere.url.clone())),
        ("file", Answer::Redirect("file:///etc/passwd".into())),
        ("garbage", Answer::Body("<html>".into())),
        ("empty", Answer::Body(String::new())),
        ("no keys", Answer::Body(r#"{"keys":[]}"#.into())),
        ("huge", Answer::Body(huge)),
        ("stall", Answer::Stall),
        ("silence", Answer::Silence),
    ] {
        server.set(answer);
        let before = server.requests();
        for kid in ["new", "evil"] {
            let result = auth.authenticate(Some(&token(kid, "7")), NOW).await;
            assert_eq!(result, Err(AuthError::UnknownKey), "{name}");
        }
        assert!(server.requests() > before, "{name}: it was asked");
        assert!(auth.authenticate(Some(&token("a", "8")), NOW).await.is_ok(), "{name}: the old key stays");
    }
    assert_eq!(elsewhere.requests(), 0, "redirects are not followed");
    // It recovers by itself.
    server.set(set(&["b"]));
    auth.authenticate(Some(&token("b", "7")), NOW).await.unwrap();
    assert_eq!(auth.verify(&token("a", "8"), NOW), Err(AuthError::UnknownKey), "a withdrawn key, its tokens cached");
}

#[tokio::test]
async fn failed_fetches_are_retried_with_backoff_and_keys_are_refreshed() {
    let server = Server::start(Answer::Status(503)).await;
    let timing =
        JwksTiming { refresh: Duration::from_millis(100), max_backoff: Duration::from_millis(200), ..timing(MOMENT) };
    let auth = running(&server.url, timing);
    server.asked(4).await;
    server.set(set(&["a"]));
    auth.authenticate(Some(&token("a", "7")), NOW).await.unwrap();
    let after = server.requests();
    server.asked(after + 2).await;
    // A rotation is noticed without a client.
    server.set(set(&["b"]));
    let start = Instant::now();
    while auth.verify(&token("b", "7"), NOW).is_err() {
        assert!(start.elapsed() < DEADLINE);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_missing_server_and_a_missing_task_are_errors_in_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/jwks", listener.local_addr().unwrap());
    drop(listener);
    let auth = Authenticator::with_jwks_timing(&config(&url), timing(MOMENT)).unwrap();
    let error = auth.check_jwks().await.unwrap_err();
    assert!(error.contains("refused"), "{error}");
    // `run` was never started: the wait is bounded all the same.
    assert_eq!(auth.authenticate(Some(&token("a", "7")), NOW).await, Err(AuthError::UnknownKey));
}

#[tokio::test]
async fn check_counts_usable_keys_and_reports_errors() {
    let server = Server::start(set(&["a", "b"])).await;
    let auth = Authenticator::with_jwks_timing(&config(&server.url), timing(MOMENT)).unwrap();
    assert_eq!(auth.check_jwks().await, Ok(2));
    for (answer, word) in [
        (Answer::Status(500), "500"),
        (Answer::Redirect("http://127.0.0.1:1/".into()), "redirects are not followed"),
        (Answer::Body("x".repeat(300_000)), "longer than 262144"),
        (Answer::Body("x".into()), "not JSON"),
        (Answer::Body("{}".into()), "keys"),
        (Answer::Stall, "2s"),
        (Answer::Silence, "2s"),
    ] {
        server.set(answer);
        let error = auth.check_jwks().await.unwrap_err();
        assert!(error.contains(word), "{error}");
    }
    let secret = AuthConfig {
        secret: Some(roomcast::model::secret::Secret::new("0123456789abcdef0123456789abcdef")),
        ..AuthConfig::default()
    };
    let auth = Authenticator::new(&secret).unwrap();
    assert!(auth.check_jwks().await.is_err());
    let runs_on = tokio::time::timeout(Duration::from_millis(20), auth.run()).await;
    assert!(runs_on.is_err(), "it waits for a reload that brings a key set");
}

#[tokio::test]
async fn https_works_without_an_installed_provider() {
    // A plain-text server on an https URL: the handshake must fail as an error, not as a panic of rustls.
    let server = Server::start(set(&["a"])).await;
    let url = server.url.replace("http://", "https://");
    let auth = Authenticator::with_jwks_timing(&config(&url), timing(MOMENT)).unwrap();
    let error = auth.check_jwks().await.unwrap_err();
    assert!(!error.is_empty() && server.requests() == 0, "{error}");
}
