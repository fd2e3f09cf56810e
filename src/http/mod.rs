//! HTTP: the listeners (`server`), the route table (`routes`), and one file for each path.

pub mod admin;
pub mod answer;
pub mod body;
pub mod caller;
pub mod config;
pub mod engine;
mod head;
pub mod health;
mod keep_alive;
pub mod keys;
mod linger;
pub mod origin;
pub mod presence;
pub mod publish;
pub mod revoke;
pub mod routes;
pub mod server;
pub mod sse;
pub mod traffic;
pub mod upgrade;
pub mod ws;

use crate::node::context::Node;
use config::{HttpConfig, PublishConfig};
use origin::Origins;
use std::sync::Arc;
use std::time::{Duration, Instant};
use traffic::Traffic;

/// What the handlers share.
pub struct Api {
    /// The node.
    pub node: Arc<Node>,
    /// `[http]`.
    pub http: HttpConfig,
    /// `[publish]`.
    pub publish: PublishConfig,
    /// `auth.revoke_for`.
    pub revoke_for: Duration,
    /// `[cors]`.
    pub origins: Origins,
    /// When the process began.
    pub started: Instant,
    /// Whether metrics, publishing and the admin API have their own listener.
    pub admin_apart: bool,
    /// Counts requests that are being answered.
    pub traffic: Traffic,
    /// Other pages, such as the demo's.
    pub pages: Vec<Page>,
}

/// A static page.
#[derive(Clone, Debug)]
pub struct Page {
    /// Its path.
    pub path: &'static str,
    /// Its content type.
    pub content_type: &'static str,
    /// Its bytes.
    pub body: bytes::Bytes,
}
