//! HTTP: the listeners (`server`), the route table (`routes`), and one file for each path. Plain requests to publish are read
//! and answered by `publisher`, all others by hyper.

pub mod access;
pub mod admin;
pub mod answer;
pub mod body;
pub mod caller;
pub mod client_address;
pub mod config;
mod connection;
pub mod console;
pub mod drain;
mod ending;
pub mod engine;
mod explain;
pub mod gathering;
mod head;
pub mod health;
pub mod hosts;
pub mod inspection;
mod keep_alive;
pub mod keys;
mod lazy_timer;
mod linger;
pub mod listener;
pub mod origin;
pub mod presence;
mod proxy_header;
pub mod publish;
mod publisher;
pub mod reload;
mod reply_bytes;
pub mod revoke;
pub mod routes;
pub mod server;
pub mod settings;
mod shared;
pub mod sse;
mod stream;
mod tls;
pub mod trace;
pub mod traffic;
pub mod upgrade;
mod watched;
pub mod ws;

use crate::budget::sign_ins::SignIns;
use crate::node::context::Node;
use crate::shard::face::ShardCounts;
use crate::tls::TlsServer;
use arc_swap::{ArcSwap, Guard};
use bytes::Bytes;
use config::ConsoleConfig;
use gathering::Gathering;
use reload::Reloads;
use settings::HttpSettings;
use shared::Shared;
use std::sync::Arc;
use std::time::Instant;
use traffic::Traffic;

/// What `/metrics` and `/socket/ping` answer to all that ask at once.
#[derive(Default)]
pub struct Scrape {
    text: Shared<Result<Bytes, String>>,
    counts: Shared<ShardCounts>,
}

/// What the handlers share.
pub struct Api {
    /// The node.
    pub node: Arc<Node>,
    /// What may change while the node runs.
    pub live: ArcSwap<HttpSettings>,
    /// Makes them change.
    pub reloads: Reloads,
    /// `[console]`.
    pub console: ConsoleConfig,
    /// `console.sign_ins_per_minute`.
    pub sign_ins: SignIns,
    /// `[tls]`, for `listen`.
    pub tls: Option<TlsServer>,
    /// The text of `/metrics`.
    pub scrape: Scrape,
    /// When the process began.
    pub started: Instant,
    /// Whether metrics, publishing and the admin API have their own listener.
    pub admin_apart: bool,
    /// Counts requests that are being answered.
    pub traffic: Traffic,
    /// On which shards publishers are served.
    pub gathering: Arc<Gathering>,
    /// Other pages, such as the demo's.
    pub pages: Vec<Page>,
}

impl Api {
    /// Keys, origins and times, as they are now.
    pub fn settings(&self) -> Guard<Arc<HttpSettings>> {
        self.live.load()
    }
}

/// A static page.
#[derive(Clone, Debug)]
pub struct Page {
    /// Its path.
    pub path: &'static str,
    /// Its content type.
    pub content_type: &'static str,
    /// Its bytes.
    pub body: Bytes,
}
