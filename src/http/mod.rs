//! HTTP: the listeners (`server`), the route table (`routes`), and one file for each path.

pub mod access;
pub mod admin;
pub mod answer;
pub mod body;
pub mod caller;
pub mod client_address;
pub mod config;
pub mod console;
pub mod drain;
pub mod engine;
mod explain;
mod head;
pub mod health;
pub mod hosts;
pub mod inspection;
mod keep_alive;
pub mod keys;
mod linger;
pub mod listener;
pub mod origin;
pub mod presence;
mod proxy_header;
pub mod publish;
pub mod revoke;
pub mod routes;
pub mod server;
mod shared;
pub mod sse;
mod stream;
mod tls;
pub mod trace;
pub mod traffic;
pub mod upgrade;
pub mod ws;

use crate::node::context::Node;
use crate::shard::face::ShardCounts;
use crate::shutdown::ShutdownConfig;
use crate::tls::TlsServer;
use bytes::Bytes;
use client_address::TrustedProxies;
use config::{ConsoleConfig, HttpConfig, PublishConfig};
use console::sign_ins::SignIns;
use hosts::Hosts;
use origin::Origins;
use shared::Shared;
use std::sync::Arc;
use std::time::{Duration, Instant};
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
    /// `[http]`.
    pub http: HttpConfig,
    /// `[publish]`.
    pub publish: PublishConfig,
    /// `[console]`.
    pub console: ConsoleConfig,
    /// `console.sign_ins_per_minute`.
    pub sign_ins: SignIns,
    /// `auth.revoke_for`.
    pub revoke_for: Duration,
    /// `[shutdown]`.
    pub shutdown: ShutdownConfig,
    /// `[cors]`.
    pub origins: Origins,
    /// `http.allowed_hosts`.
    pub hosts: Hosts,
    /// `[tls]`, for `listen`.
    pub tls: Option<TlsServer>,
    /// `http.trusted_proxies`.
    pub proxies: TrustedProxies,
    /// The text of `/metrics`.
    pub scrape: Scrape,
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
    pub body: Bytes,
}
