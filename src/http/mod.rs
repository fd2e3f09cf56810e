//! HTTP: listeners, the route table, and what each path does.

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
use std::time::Instant;
use traffic::Traffic;

/// What the handlers share.
pub struct Api {
    /// The node.
    pub node: Arc<Node>,
    /// `[http]`.
    pub http: HttpConfig,
    /// `[publish]`.
    pub publish: PublishConfig,
    /// `[cors]`.
    pub origins: Origins,
    /// When the process began.
    pub started: Instant,
    /// Whether metrics, publishing and the admin API are on a listener of their own.
    pub admin_apart: bool,
    /// Counts requests that are being answered.
    pub traffic: Traffic,
    /// Pages that are served besides the API: the demo's.
    pub pages: Vec<Page>,
}

/// A file that is served as it is.
#[derive(Clone, Debug)]
pub struct Page {
    /// The whole path.
    pub path: &'static str,
    /// Its type.
    pub content_type: &'static str,
    /// Its bytes.
    pub body: bytes::Bytes,
}
