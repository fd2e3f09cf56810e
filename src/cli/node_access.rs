//! Where a running node is, and the key to its API: by flags, the environment, or the configuration.

use crate::cli::{Common, Failure};
use crate::config::{Config, Purpose};
use crate::model::secret::Secret;

/// A node's API.
pub(super) struct NodeAccess {
    /// Without a final slash.
    pub url: String,
    pub key: Secret,
    /// The configuration's further keys, where `key` is its first.
    pub other_keys: Vec<Secret>,
}

impl NodeAccess {
    /// By `--url` and `--key`, and what is missing of these by `ROOMCAST_PUBLISH_KEY` and the configuration.
    pub(super) fn find(common: Common, url: Option<String>, key: Option<String>) -> Result<Self, Failure> {
        let environment = std::env::var("ROOMCAST_PUBLISH_KEY").ok().filter(|key| !key.is_empty());
        Ok(match (url, key.or(environment)) {
            // The configuration is not needed, so it may be missing or wrong.
            (Some(url), Some(key)) => Self { url, key: Secret::new(key), other_keys: Vec::new() },
            (url, key) => {
                let config = common.load(Purpose::Other)?;
                let others =
                    if key.is_none() { config.publish.keys.iter().skip(1).cloned().collect() } else { Vec::new() };
                Self {
                    other_keys: others,
                    url: url.unwrap_or_else(|| config.admin_url()),
                    key: key.map(Secret::new).map_or_else(|| first_key(&config), Ok)?,
                }
            }
        })
    }
}

fn first_key(config: &Config) -> Result<Secret, Failure> {
    let missing = "there is no key: set `keys` of [publish] (ROOMCAST_PUBLISH__KEYS), ROOMCAST_PUBLISH_KEY or --key";
    config.publish.keys.first().cloned().ok_or_else(|| Failure::configuration(missing))
}
