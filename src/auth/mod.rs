//! From a token to an identity.
//!
//! ```
//! use roomcast::auth::config::AuthConfig;
//! use roomcast::auth::{AuthError, Authenticator};
//! use roomcast::model::secret::Secret;
//!
//! let secret = Some(Secret::new("0123456789abcdef0123456789abcdef"));
//! let authenticator = Authenticator::new(&AuthConfig { secret, ..AuthConfig::default() }).unwrap();
//! let refused = authenticator.verify("eyJhbGciOiJub25lIn0.eyJzdWIiOiI3In0.", 1_800_000_000);
//! assert_eq!(refused, Err(AuthError::Algorithm));
//! ```
//!
//! [`Authenticator::new`] checks the settings and does no I/O. If keys come from a JWKS, [`Authenticator::run`] fetches
//! them until it is dropped. A token passes these files: `header` cuts it into its parts, `keyset` chooses the key (by
//! configuration and `kid`, never by the header's algorithm alone), `key` verifies the signature, `policy` checks the
//! claims, `revocations` refuses what was revoked. `cache` keeps what was verified, and `refresh` decides when the JWKS is
//! fetched.

mod algorithm;
mod cache;
pub mod claims;
pub mod config;
mod error;
mod fetch;
pub mod grants;
mod header;
pub mod identity;
mod jwk;
mod key;
mod keyset;
mod policy;
mod refresh;
mod reload;
pub mod revocations;
mod setup;
mod sign;
#[cfg(test)]
mod tests;
mod verified;

pub use algorithm::Algorithm;
pub use error::{AuthError, SetupError};
pub use grants::Grants;
pub use header::MAX_TOKEN;
pub use identity::{Identity, UserId};
pub use refresh::JwksTiming;
pub use reload::PreparedAuth;
pub use sign::{SignError, sign};

use algorithm::KeyKind;
use arc_swap::ArcSwap;
use aws_lc_rs::digest::{SHA256, digest};
use cache::{Cache, token_hash};
use config::AuthConfig;
use header::Parts;
use hyper::Uri;
use keyset::KeySet;
use parking_lot::{Mutex, MutexGuard};
use policy::Policy;
use refresh::Refresher;
use revocations::Revocations;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;
use verified::Verified;

/// An HMAC secret has at least this many bytes (RFC 7518 section 3.2, for HS256).
pub const MIN_SECRET: usize = 32;

/// Verifies tokens. A node has one, which all threads share.
pub struct Authenticator {
    checks: ArcSwap<Checks>,
    /// Held while the checks are replaced: a fetch of the JWKS and a reload must not undo each other.
    changing: Mutex<()>,
    /// The JWKS is at another URL, or is read for other algorithms.
    reloaded: Notify,
    timing: JwksTiming,
    cache: Mutex<Cache>,
    revocations: Revocations,
    verified: Verified,
}

/// What tokens are checked with at one moment.
struct Checks {
    settings: Arc<TokenSettings>,
    keys: KeySet,
    jwks: Option<Arc<Jwks>>,
}

/// The settings of `[auth]` that are no keys.
struct TokenSettings {
    algorithms: Vec<Algorithm>,
    policy: Policy,
    /// `None`: a token is needed.
    anonymous: Option<Arc<Identity>>,
}

impl TokenSettings {
    fn new(config: &AuthConfig, algorithms: Vec<Algorithm>) -> Self {
        let anonymous = config.anonymous.then(|| Arc::new(Identity::anonymous()));
        Self { algorithms, policy: Policy::new(config), anonymous }
    }
}

struct Jwks {
    url: Uri,
    refresher: Refresher,
    /// SHA-256 of the document in use: an unchanged one is not parsed again.
    document: Mutex<Option<[u8; 32]>>,
}

impl Authenticator {
    /// Checks the settings and reads the keys; does no I/O.
    ///
    /// # Errors
    /// The first of [`Authenticator::mistakes`].
    pub fn new(config: &AuthConfig) -> Result<Arc<Self>, SetupError> {
        Self::with_jwks_timing(config, JwksTiming::default())
    }

    /// Like [`Authenticator::new`], with other times for JWKS fetches.
    ///
    /// # Errors
    /// The first of [`Authenticator::mistakes`].
    pub fn with_jwks_timing(config: &AuthConfig, timing: JwksTiming) -> Result<Arc<Self>, SetupError> {
        let setup = setup::Setup::new(config)
            .map_err(|mut mistakes| if mistakes.is_empty() { SetupError::NoKey } else { mistakes.swap_remove(0) })?;
        let settings = Arc::new(TokenSettings::new(config, setup.algorithms));
        let jwks = setup.jwks_url.map(|url| Arc::new(Jwks::new(url, timing)));
        Ok(Arc::new(Self {
            checks: ArcSwap::from_pointee(Checks { settings, keys: setup.keys, jwks }),
            changing: Mutex::default(),
            reloaded: Notify::new(),
            timing,
            cache: Mutex::default(),
            revocations: Revocations::new(config.max_revocations),
            verified: Verified::default(),
        }))
    }

    /// Tokens that are refused before they expire.
    pub fn revocations(&self) -> &Revocations {
        &self.revocations
    }

    /// Tolerance at `exp` and `nbf`, in seconds.
    pub fn leeway(&self) -> u64 {
        self.checks.load().settings.policy.leeway
    }

    /// Whether clients without a token are accepted.
    pub fn allows_anonymous(&self) -> bool {
        self.checks.load().settings.anonymous.is_some()
    }

    /// How many tokens were accepted since the start, by what verified them.
    pub fn verified(&self) -> Vec<(&'static str, u64)> {
        self.verified.totals()
    }

    /// Every mistake in the settings.
    pub fn mistakes(config: &AuthConfig) -> Vec<SetupError> {
        setup::Setup::new(config).err().unwrap_or_default()
    }

    /// Verifies a token with the keys that are known now; `now` is in Unix seconds. Does no I/O.
    ///
    /// # Errors
    /// Why it is refused; [`AuthError::UnknownKey`] if fetching the JWKS again may help.
    pub fn verify(&self, token: &str, now: u64) -> Result<Arc<Identity>, AuthError> {
        let parts = Parts::read(token)?;
        let checks = self.checks.load();
        let (settings, keys) = (&checks.settings, &checks.keys);
        let algorithm = Algorithm::from_name(&parts.header.alg)
            .filter(|algorithm| settings.algorithms.contains(algorithm))
            .ok_or(AuthError::Algorithm)?;
        // Checking an HMAC costs no more than the digest for the cache.
        let hash = (algorithm.key_kind() != KeyKind::Secret).then(|| token_hash(token));
        if let Some(identity) = hash.and_then(|hash| self.cache().get(&hash, keys.generation)) {
            return match settings.policy.expired(identity.expires(), now) {
                true => Err(AuthError::Expired),
                false => self.not_revoked(identity, now).inspect(|_| self.verified.count_cached(keys)),
            };
        }
        let choice = keys.choose(algorithm, &parts.header)?;
        let message = parts.message.as_bytes();
        let Some(key) = choice.keys.iter().find(|key| key.verifies(algorithm, message, parts.signature)) else {
            return Err(choice.otherwise);
        };
        let identity = Arc::new(settings.policy.identity(&parts.claims()?, now)?);
        if let Some(hash) = hash {
            self.cache().insert(hash, keys.generation, identity.clone());
        }
        self.not_revoked(identity, now).inspect(|_| self.verified.count(keys, key))
    }

    fn not_revoked(&self, identity: Arc<Identity>, now: u64) -> Result<Arc<Identity>, AuthError> {
        match self.revocations.refuse(&identity, now.saturating_mul(1000)) {
            true => Err(AuthError::Revoked),
            false => Ok(identity),
        }
    }

    /// The user that a token says it is of. Nothing of it is verified: only for whoever looks for why it was refused.
    pub fn claimed_user(&self, token: &str) -> Option<String> {
        self.checks.load().settings.policy.claimed_user(&Parts::read(bare_token(token)?).ok()?.claims().ok()?)
    }

    /// Accepts or refuses a client; an empty token counts as none. If the token names a key that is not known yet,
    /// waits for one fetch of the JWKS, which all waiting clients share and which [`Authenticator::run`] makes. Can be
    /// called on any thread and runtime.
    ///
    /// # Errors
    /// Why the client is refused.
    pub async fn authenticate(&self, token: Option<&str>, now: u64) -> Result<Arc<Identity>, AuthError> {
        let Some(token) = token.and_then(bare_token) else {
            return self.checks.load().settings.anonymous.clone().ok_or(AuthError::Missing);
        };
        let result = self.verify(token, now);
        if result != Err(AuthError::UnknownKey) {
            return result;
        }
        let jwks = self.checks.load().jwks.clone();
        match jwks {
            Some(jwks) => {
                let start = Instant::now();
                let again = || match self.verify(token, now + start.elapsed().as_secs()) {
                    Err(AuthError::UnknownKey) => None,
                    result => Some(result),
                };
                jwks.refresher.wait_for(again).await.unwrap_or(Err(AuthError::UnknownKey))
            }
            None => result,
        }
    }

    /// Fetches the JWKS again and again, if there is one, until dropped. Runs on the control runtime.
    pub async fn run(self: Arc<Self>) {
        loop {
            let jwks = self.checks.load().jwks.clone();
            tokio::select! {
                () = self.keep_fetching(jwks) => {}
                () = self.reloaded.notified() => {}
            }
        }
    }

    async fn keep_fetching(&self, jwks: Option<Arc<Jwks>>) {
        let Some(jwks) = &jwks else { return std::future::pending().await };
        if jwks.url.scheme_str() == Some("http") {
            tracing::warn!(url = %jwks.shown(), "the JWKS is fetched without TLS, so anybody between here and the server can replace the keys; use https://");
        }
        jwks.refresher.run(|| self.refresh(jwks)).await;
    }

    /// Fetches the JWKS once, for `roomcast check`: the number of usable keys.
    ///
    /// # Errors
    /// What went wrong, in words; also if there is no `jwks_url`.
    pub async fn check_jwks(&self) -> Result<usize, String> {
        let checks = self.checks.load_full();
        let jwks = checks.jwks.as_ref().ok_or("auth.jwks_url is not set")?;
        let fetched = fetch::fetch(&jwks.url, self.timing.timeout).await?;
        Ok(jwk::parse(&fetched.body, &checks.settings.algorithms)?.keys.len())
    }

    /// After a failure the old keys stay.
    async fn refresh(&self, jwks: &Arc<Jwks>) -> Result<Option<Duration>, ()> {
        let result = match fetch::fetch(&jwks.url, self.timing.timeout).await {
            Ok(fetched) => self.install(jwks, &fetched.body).map(|()| fetched.max_age),
            Err(error) => Err(error),
        };
        result.map_err(
            |error| tracing::warn!(url = %jwks.shown(), %error, "the JWKS could not be fetched; the old keys stay"),
        )
    }

    fn install(&self, jwks: &Arc<Jwks>, body: &[u8]) -> Result<(), String> {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, body).as_ref());
        let mut document = jwks.document.lock();
        if *document == Some(hash) {
            return Ok(());
        }
        let _changing = self.changing.lock();
        let checks = self.checks.load();
        if !checks.jwks.as_ref().is_some_and(|current| Arc::ptr_eq(current, jwks)) {
            // A reload has named another one.
            return Ok(());
        }
        let parsed = jwk::parse(body, &checks.settings.algorithms)?;
        for (index, why) in &parsed.skipped {
            tracing::warn!(url = %jwks.shown(), index, "a key of the JWKS cannot be used: {why}");
        }
        tracing::info!(url = %jwks.shown(), keys = parsed.keys.len(), "the JWKS has new keys");
        let generation = checks.keys.generation + 1;
        let keys = KeySet { generation, fetched: Some(parsed.keys.into()), ..checks.keys.clone() };
        self.checks.store(Arc::new(Checks { settings: checks.settings.clone(), keys, jwks: checks.jwks.clone() }));
        *document = Some(hash);
        Ok(())
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock()
    }
}

/// The token of a text that a client gave as one: without the `Bearer ` that people copy along. `None` where nothing is
/// left, so that the next place is looked at.
pub fn bare_token(text: &str) -> Option<&str> {
    let text = text.trim();
    let token = match text.split_once(char::is_whitespace) {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim_start(),
        _ if text.eq_ignore_ascii_case("bearer") => "",
        _ => text,
    };
    (!token.is_empty()).then_some(token)
}

impl Jwks {
    fn new(url: Uri, timing: JwksTiming) -> Self {
        Self { url, refresher: Refresher::new(timing), document: Mutex::default() }
    }

    /// The URL without its query, which may contain a key.
    fn shown(&self) -> String {
        let (scheme, authority) = (self.url.scheme_str().unwrap_or_default(), self.url.authority());
        format!("{scheme}://{}{}", authority.map_or("", |authority| authority.as_str()), self.url.path())
    }
}
