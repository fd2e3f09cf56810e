//! `POST /reload`: the configuration is read again, and put in force as far as that needs no restart.

use crate::handlers::new_rules::Lost;
use crate::http::Api;
use crate::http::answer::{Reply, error, json, unread};
use crate::http::body;
use crate::protocol::json_object;
use crate::protocol::json_text::Text;
use crate::refusals::shown as shortened;
use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// Bytes of the body.
const MAX_BODY: usize = 4 << 10;
/// Callers that may wait. All of them get the answer of one reload.
const MAX_WAITING: usize = 64;

/// A key that has changed: its name, and its values before and now, as far as they may be shown.
#[derive(Clone, Debug)]
pub struct ChangedKey {
    /// Its name.
    pub key: String,
    /// Before.
    pub from: Option<String>,
    /// Now.
    pub to: Option<String>,
}

/// What a reload came to.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// The configuration is in force.
    Done(Done),
    /// It has mistakes, each with its place: the old one stays in force.
    Refused(Vec<(String, String)>),
}

/// A configuration that was put in force.
#[derive(Clone, Debug, Default)]
pub struct Done {
    /// What changed.
    pub changed: Vec<ChangedKey>,
    /// What was changed and waits for a restart.
    pub needs_restart: Vec<ChangedKey>,
    /// What is probably not intended.
    pub warnings: Vec<String>,
    /// What the rules cost live sessions; `None`: that is not known yet.
    pub lost: Option<Lost>,
    /// The fingerprint of what is in force.
    pub config: String,
}

/// Asks for reloads. They are made one after the other; whoever asks during one shares the next.
#[derive(Clone)]
pub struct Reloads(mpsc::Sender<Asked>);

/// A caller who waits.
pub type Asked = oneshot::Sender<Arc<Outcome>>;

impl Reloads {
    /// With the end where the reloads are made.
    pub fn new() -> (Self, mpsc::Receiver<Asked>) {
        let (sender, receiver) = mpsc::channel(MAX_WAITING);
        (Self(sender), receiver)
    }

    /// Asks for a reload that begins after this call. `None`: too many wait, or the node stops.
    async fn ask(&self) -> Option<Arc<Outcome>> {
        let (asked, answer) = oneshot::channel();
        self.0.try_send(asked).ok()?;
        answer.await.ok()
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
struct Fields {
    /// The node that is meant: a load balancer may have chosen another one.
    node: Option<Text>,
}

/// Reloads. The caller has checked the key.
pub async fn serve(api: &Api, request: Request<Incoming>) -> Reply {
    let own = api.node.id.to_string();
    match body::read(request, MAX_BODY).await {
        Ok(body) if body.is_empty() => {}
        Ok(body) => {
            if let Some(refusal) = refuse(&body, &own) {
                return refusal;
            }
        }
        Err(problem) => return unread(problem, "4 KiB"),
    }
    match api.reloads.ask().await {
        Some(outcome) => reply(&own, &outcome),
        None => error(
            StatusCode::SERVICE_UNAVAILABLE,
            "busy",
            "too many reloads are waited for, or the node stops; try again",
        ),
    }
}

/// A body that cannot be read, or that names another node.
fn refuse(body: &[u8], own: &str) -> Option<Reply> {
    let fields: Fields = match json_object::read(body) {
        Ok(fields) => fields,
        Err(problem) => return Some(error(StatusCode::BAD_REQUEST, "bad_json", &problem.to_string())),
    };
    let other = fields.node.map(|Text(name)| name).filter(|name| !name.is_empty() && name != own)?;
    let message = format!("this is node {own}, not {}; use the address of the node itself", shortened(&other));
    Some(error(StatusCode::CONFLICT, "other_node", &message))
}

fn reply(node: &str, outcome: &Outcome) -> Reply {
    match outcome {
        Outcome::Done(done) => json(StatusCode::OK, &shown(node, done)),
        Outcome::Refused(mistakes) => {
            let lines: String = mistakes.iter().map(|(place, message)| format!("\n  {place}: {message}")).collect();
            let message = format!("the configuration has mistakes, so the old one stays in force:{lines}");
            let mistakes: Vec<Value> =
                mistakes.iter().map(|(place, message)| json!({ "place": place, "message": message })).collect();
            let error = json!({ "code": "bad_configuration", "message": message });
            json(StatusCode::UNPROCESSABLE_ENTITY, &json!({ "node": node, "error": error, "mistakes": mistakes }))
        }
    }
}

fn shown(node: &str, done: &Done) -> Value {
    let keys = |keys: &[ChangedKey]| -> Vec<Value> {
        keys.iter()
            .map(|change| match (&change.from, &change.to) {
                (None, None) => json!({ "key": change.key }),
                (from, to) => json!({ "key": change.key, "from": from, "to": to }),
            })
            .collect()
    };
    let Done { changed, needs_restart, warnings, lost, config } = done;
    json!({
        "node": node,
        "result": if changed.is_empty() { "unchanged" } else { "applied" },
        "changed": keys(changed),
        "needs_restart": keys(needs_restart),
        "warnings": warnings,
        "sessions": lost.map(|lost| lost.sessions),
        "memberships": lost.map(|lost| lost.memberships),
        "asked": lost.map(|lost| lost.asked),
        "config": config,
    })
}
