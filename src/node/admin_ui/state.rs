//! The Admin UI of a node: who may come in, how many there are, and what they look at together.

use crate::budget::sign_ins::SignIns;
use crate::model::millis::{Millis, whole_millis};
use crate::model::secret::Secret;
use crate::node::admin_ui::access::{Keys, Proof};
use crate::node::admin_ui::config::Settings;
use crate::node::admin_ui::look::Look;
use crate::protocol::admin_ui::Credentials;
use parking_lot::Mutex;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;
use tokio::sync::{Notify, watch};

/// See the module.
pub struct AdminUi {
    /// Its settings.
    pub settings: Settings,
    keys: Mutex<Keys>,
    began: Instant,
    /// Wrong passwords.
    guesses: SignIns,
    sessions: AtomicUsize,
    looks: watch::Sender<Arc<Look>>,
    wanted: Notify,
}

/// Why an operator is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// Neither the password nor the id is one.
    Invalid,
    /// Too many wrong passwords came from this address.
    TooManyGuesses,
}

/// A page that is connected; counted until it is dropped.
pub struct Seat(Arc<AdminUi>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.sessions.fetch_sub(1, Ordering::Relaxed);
    }
}

impl AdminUi {
    /// With nobody in it.
    pub fn new(settings: Settings) -> Arc<Self> {
        let keys = Mutex::new(Keys::new(&settings.keys, settings.lifetime));
        let (looks, _) = watch::channel(Arc::default());
        Arc::new(Self {
            began: Instant::now(),
            guesses: SignIns::new(settings.guesses_per_minute),
            settings,
            keys,
            sessions: AtomicUsize::new(0),
            looks,
            wanted: Notify::new(),
        })
    }

    /// Takes over changed keys: what was proven with one that is gone no longer holds.
    pub fn replace_keys(&self, keys: &[Secret]) {
        *self.keys.lock() = Keys::new(keys, self.settings.lifetime);
    }

    /// Checks who comes from this address. `now` is in Unix seconds.
    ///
    /// # Errors
    /// Why they are not let in.
    pub fn log_in(&self, credentials: &Credentials, peer: IpAddr, now: u64) -> Result<Proof, Denied> {
        if let Some(proof) = credentials.session.as_ref().and_then(|id| self.keys.lock().check_id(id, now)) {
            return Ok(proof);
        }
        let Some(password) = &credentials.password else { return Err(Denied::Invalid) };
        let moment = Millis::new(whole_millis(self.began.elapsed()));
        if !self.guesses.may_try(peer, moment) {
            return Err(Denied::TooManyGuesses);
        }
        let proof = self.keys.lock().check_password(password, now);
        proof.ok_or_else(|| {
            // It is over if others have spent the rest meanwhile; this one is wrong either way.
            let _ = self.guesses.take(peer, moment);
            Denied::Invalid
        })
    }

    /// With this id the same operator comes back without the password.
    pub fn id(&self, proof: &Proof) -> Option<String> {
        self.keys.lock().id(proof)
    }

    /// Whether what an operator has proven still holds.
    pub fn still_holds(&self, proof: &Proof, now: u64) -> bool {
        self.keys.lock().still_holds(proof, now)
    }

    /// Counts a page; `None` where there are as many as may be.
    pub fn enter(self: &Arc<Self>) -> Option<Seat> {
        let max = self.settings.config.sessions;
        let grow = |count: usize| (count < max).then_some(count + 1);
        self.sessions.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grow).ok()?;
        Some(Seat(self.clone()))
    }

    /// Whether any page is connected.
    pub fn is_watched(&self) -> bool {
        self.sessions.load(Ordering::Relaxed) > 0
    }

    /// What all pages look at.
    pub fn looks(&self) -> watch::Receiver<Arc<Look>> {
        self.looks.subscribe()
    }

    /// Shows a new look to all pages.
    pub fn show(&self, look: Arc<Look>) {
        self.looks.send_replace(look);
    }

    /// Something has changed, or a page has come: the next look is taken soon.
    pub fn look_soon(&self) {
        self.wanted.notify_one();
    }

    /// Completes after [`AdminUi::look_soon`].
    pub async fn wanted(&self) {
        self.wanted.notified().await;
    }
}
