//! Where a running node is, and the key to its API: by flags, the environment, or the configuration.

use crate::cli::{Common, Failure};
use crate::config::{Config, Purpose};
use crate::model::secret::Secret;

/// A node's API.
pub(super) struct NodeAccess {
    /// Without a final slash.
    pub url: String,
    pub key: Secret,
    /// The further ones that are configured, unless a flag gives one.
    pub other_keys: Vec<Secret>,
}

impl NodeAccess {
    /// By `--url` and `--key`; what is missing of these by `ROOMCAST_PUBLISH__KEYS` and the rest of the configuration.
    pub(super) fn find(common: Common, url: Option<String>, key: Option<String>) -> Result<Self, Failure> {
        // Whoever names a key means that one.
        let mut keys = key.map_or_else(environment_keys, |key| vec![key]).into_iter().map(Secret::new);
        match (url, keys.next()) {
            // The configuration is not needed, so it may be missing or wrong.
            (Some(url), Some(key)) => Ok(Self { url, key, other_keys: keys.collect() }),
            (url, key) => {
                let config = common.load(Purpose::Other)?;
                let url = url.unwrap_or_else(|| config.admin_url());
                if let Some(key) = key {
                    return Ok(Self { url, key, other_keys: keys.collect() });
                }
                let other_keys = config.publish.keys.iter().skip(1).cloned().collect();
                Ok(Self { url, key: first_key(&config)?, other_keys })
            }
        }
    }
}

/// Those of a shell that has sourced the node's `.env`.
fn environment_keys() -> Vec<String> {
    let list = std::env::var("ROOMCAST_PUBLISH__KEYS").unwrap_or_default();
    list.split(',').map(str::trim).filter(|key| !key.is_empty()).map(str::to_owned).collect()
}

fn first_key(config: &Config) -> Result<Secret, Failure> {
    let missing = "there is no key: set `keys` of [publish] (ROOMCAST_PUBLISH__KEYS), or give --key";
    config.publish.keys.first().cloned().ok_or_else(|| Failure::configuration(missing))
}
