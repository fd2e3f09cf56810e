//! Where a running node is, and the key to its API: by flags, the environment, or the configuration.

use crate::cli::{Common, Failure};
use crate::config::{Config, Purpose};
use crate::model::secret::Secret;

/// A node's API.
pub(super) struct NodeAccess {
    /// Without a final slash.
    pub url: String,
    pub key: Secret,
    /// The configuration's, unless a flag gives one.
    pub other_keys: Vec<Secret>,
}

impl NodeAccess {
    /// By `--url` and `--key`, and what is missing of these by `ROOMCAST_PUBLISH_KEY` and the configuration.
    pub(super) fn find(common: Common, url: Option<String>, key: Option<String>) -> Result<Self, Failure> {
        let environment = std::env::var("ROOMCAST_PUBLISH_KEY").ok().filter(|key| !key.is_empty());
        let is_flag = key.is_some();
        Ok(match (url, key.or(environment)) {
            // The configuration is not needed, so it may be missing or wrong.
            (Some(url), Some(key)) => Self { url, key: Secret::new(key), other_keys: Vec::new() },
            (url, key) => {
                let config = common.load(Purpose::Other)?;
                // Whoever names a key means that one.
                let others = config.publish.keys.iter().skip(usize::from(key.is_none())).filter(|_| !is_flag);
                Self {
                    other_keys: others.cloned().collect(),
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
