//! Other settings for a running [`Authenticator`]: prepared first, with all that can fail, then put in force at once.

use crate::auth::config::AuthConfig;
use crate::auth::key::Key;
use crate::auth::keyset::KeySet;
use crate::auth::setup::Setup;
use crate::auth::{Authenticator, Checks, Jwks, TokenSettings, fetch, jwk};
use std::sync::Arc;

/// Settings that can be put in force.
pub struct PreparedAuth {
    settings: Arc<TokenSettings>,
    keys: KeySet,
    jwks: PreparedJwks,
    max_revocations: usize,
}

enum PreparedJwks {
    None,
    /// The URL and the algorithms are as before: its keys stay.
    Same(Arc<Jwks>),
    Other(Arc<Jwks>, Arc<[Key]>),
}

impl Authenticator {
    /// Checks settings, and fetches the JWKS if its URL or the algorithms are others than before. Nothing changes yet.
    ///
    /// # Errors
    /// The key of `[auth]`, empty for the whole table, and what is wrong.
    pub async fn prepare(&self, config: &AuthConfig) -> Result<PreparedAuth, (&'static str, String)> {
        let setup = Setup::new(config).map_err(|mistakes| {
            let first = mistakes.first();
            (
                first.and_then(|first| first.key()).unwrap_or_default(),
                first.map_or_else(String::new, ToString::to_string),
            )
        })?;
        let current = self.checks.load_full();
        let algorithms = &setup.algorithms;
        let jwks = match (setup.jwks_url, &current.jwks) {
            (None, _) => PreparedJwks::None,
            (Some(url), Some(jwks)) if jwks.url == url && *algorithms == current.settings.algorithms => {
                PreparedJwks::Same(jwks.clone())
            }
            (Some(url), _) => {
                let jwks = Jwks::new(url, self.timing);
                let fetched = fetch::fetch(&jwks.url, self.timing.timeout).await;
                let parsed = fetched.and_then(|fetched| jwk::parse(&fetched.body, algorithms));
                PreparedJwks::Other(Arc::new(jwks), parsed.map_err(|why| ("jwks_url", why))?.keys.into())
            }
        };
        let settings = Arc::new(TokenSettings::new(config, setup.algorithms));
        Ok(PreparedAuth { settings, keys: setup.keys, jwks, max_revocations: config.max_revocations })
    }

    /// Puts settings in force, for every token that is checked from now on.
    pub fn apply(&self, prepared: PreparedAuth) {
        let PreparedAuth { settings, keys, jwks, max_revocations } = prepared;
        self.revocations.set_max(max_revocations);
        let _changing = self.changing.lock();
        let current = self.checks.load();
        // What other settings have verified does not count.
        let keys = KeySet { generation: current.keys.generation + 1, ..keys };
        let is_same = matches!(jwks, PreparedJwks::Same(_));
        let (jwks, fetched) = match jwks {
            PreparedJwks::None => (None, None),
            PreparedJwks::Same(jwks) => (Some(jwks), current.keys.fetched.clone()),
            PreparedJwks::Other(jwks, keys) => (Some(jwks), Some(keys)),
        };
        self.checks.store(Arc::new(Checks { settings, keys: KeySet { fetched, ..keys }, jwks }));
        if !is_same {
            self.reloaded.notify_one();
        }
    }
}
