//! The settings of the listeners that may change while the node runs.

use crate::http::client_address::TrustedProxies;
use crate::http::config::{CorsConfig, HttpConfig, PublishConfig};
use crate::http::hosts::Hosts;
use crate::http::keys::KeyDigests;
use crate::http::origin::Origins;
use crate::shutdown::ShutdownConfig;
use std::time::Duration;

/// What a reload replaces as a whole.
pub struct HttpSettings {
    /// `[http]`.
    pub http: HttpConfig,
    /// `[publish]`.
    pub publish: PublishConfig,
    /// `publish.keys`, as requests are compared with them.
    pub keys: KeyDigests,
    /// `auth.revoke_for`.
    pub revoke_for: Duration,
    /// `[shutdown]`.
    pub shutdown: ShutdownConfig,
    /// `[cors]`.
    pub origins: Origins,
    /// `http.allowed_hosts`.
    pub hosts: Hosts,
    /// `http.trusted_proxies`.
    pub proxies: TrustedProxies,
}

impl HttpSettings {
    /// From the tables of the configuration.
    pub fn new(
        http: &HttpConfig,
        publish: &PublishConfig,
        cors: &CorsConfig,
        shutdown: &ShutdownConfig,
        revoke_for: Duration,
    ) -> Self {
        Self {
            http: http.clone(),
            publish: publish.clone(),
            keys: KeyDigests::new(&publish.keys),
            revoke_for,
            shutdown: shutdown.clone(),
            origins: Origins::new(cors),
            hosts: Hosts::new(&http.allowed_hosts),
            proxies: TrustedProxies::new(&http.trusted_proxies),
        }
    }
}
