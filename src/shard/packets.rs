//! The packets of a client, one at a time and within its rate.

use crate::auth::Identity;
use crate::budget::Holding;
use crate::budget::account::{OverLimit, Owner, Refused, Take, TooFast};
use crate::model::millis::Millis;
use crate::protocol::socketio::max_attached;
use crate::session::connection::{Connection, ConnectionKey, SessionKey};
use crate::session::pending_packets::Inbound;
use crate::shard::context::ShardContext;
use crate::shard::hub::Hub;
use std::time::Duration;

/// When to retry while the queue is full. A guess: the backend's time is not known.
const QUEUE_RETRY: Duration = Duration::from_secs(1);
/// How long a message waits for the account at least, for each connection of the account, and at most.
const SHARE_PAUSE: Duration = Duration::from_millis(5);
const MAX_SHARE_PAUSE: Duration = Duration::from_secs(5);

/// What is done with a packet that has arrived.
pub enum Begun {
    /// It is handled now, which is when it arrived.
    Work(Inbound, Millis),
    /// It is the first that waits for the connection's rate: the caller must start working off the queue.
    Defer,
    /// It waits behind others, or the connection is gone.
    Wait,
    /// It finds no room, or is over the rate and its sender waits for an answer; how many wait for the rate before it.
    Refuse(Inbound, usize),
}

/// What follows a packet that is done.
pub enum Next {
    /// The next one, and when it arrived.
    Packet(Inbound, Millis),
    /// The next one may begin after this time.
    Later(Duration),
    /// Nothing.
    Done,
}

/// The limit that a client has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateLimit {
    /// Messages of the connection, or messages that may wait.
    Events,
    /// Bytes of the connection.
    Bytes,
    /// What all connections of its user, or of its address, send.
    User,
    /// What all connections of its tenant send.
    Tenant,
    /// What of its user may wait for the backend.
    Backend,
}

/// What a client that was refused is answered.
pub struct RefusedTurn {
    /// When it may retry; `None` if it goes on despite refusals and is to be closed.
    pub retry: Option<Duration>,
    /// Whether it is the first refusal after a pause.
    pub is_first: bool,
    /// The limit.
    pub limit: RateLimit,
    /// One of the connection's sessions.
    pub session: Option<SessionKey>,
}

impl From<OverLimit> for RateLimit {
    fn from(limit: OverLimit) -> Self {
        match limit {
            OverLimit::Owner => Self::User,
            OverLimit::Tenant => Self::Tenant,
        }
    }
}

/// Takes a message of so many bytes from what the connection, its user and its tenant may send.
fn take(context: &ShardContext, connection: &mut Connection, now: Millis, bytes: usize) -> bool {
    connection.bucket.take(now, context.rate(), bytes)
        && connection
            .account
            .as_ref()
            .is_none_or(|permit| permit.account().take(now, &context.settings().accounts, Take::Message(bytes)).is_ok())
}

/// How long until the connection's account allows a message; `None` where it does.
fn account_wait(context: &ShardContext, connection: &Connection, now: Millis) -> Option<TooFast> {
    connection.account.as_ref()?.account().wait(now, &context.settings().accounts)
}

/// How long a connection waits for its share of what its account allows, so that many of them do not ask in turn for each
/// message.
fn share_wait(connection: &Connection, wait: TooFast) -> Duration {
    let others = connection.account.as_ref().map_or(1, |permit| permit.account().connections());
    wait.retry.max(SHARE_PAUSE.saturating_mul(others)).min(MAX_SHARE_PAUSE)
}

impl Hub {
    /// Counts a message that is no packet against the connection's rate; `None` when the connection is closing.
    pub(super) fn take_turn(&mut self, key: ConnectionKey, now: Millis) -> Option<bool> {
        let connection = self.connections.get_mut(key).filter(|connection| connection.closing.is_none())?;
        Some(take(&self.context, connection, now, 0))
    }

    /// Counts rooms that a client asks to join against the rate of its connection and its user. When it is too fast: how long
    /// it should wait, or `None` if it does not stop and is to be closed.
    pub(super) fn take_joins(&mut self, key: ConnectionKey, count: usize, now: Millis) -> Result<(), Option<Duration>> {
        let (rate, context) = (self.context.rate(), self.context.clone());
        let Some(connection) = self.connections.get_mut(key) else { return Ok(()) };
        let own = match connection.bucket.take_joins(now, rate, count) {
            true => Ok(()),
            false => Err(connection.bucket.wait_for_joins(rate, count)),
        };
        let taken = own.and_then(|()| match &connection.account {
            Some(permit) => {
                let taken = permit.account().take(now, &context.settings().accounts, Take::Joins(count));
                taken.map_err(|too_fast| too_fast.retry)
            }
            None => Ok(()),
        });
        taken.map_err(|wait| connection.bucket.refuse(now, rate, 0).map(|retry| retry.max(wait)))
    }

    /// Counts a connection for the account of this identity, instead of another one that it had.
    ///
    /// # Errors
    /// Which limit the owner or their tenant has reached.
    pub(super) fn enter_account(
        &mut self,
        key: ConnectionKey,
        identity: &Identity,
        now: Millis,
    ) -> Result<(), Refused> {
        let context = self.context.clone();
        let Some(connection) = self.connections.get_mut(key) else { return Ok(()) };
        let settings = context.settings();
        let tenant = settings.limits.tenant_claim.as_ref().and_then(|claim| identity.claim_text(claim));
        let owner = match (&identity.user, connection.permit.address()) {
            (Some(user), _) => Owner::User(user.as_str(), tenant.as_deref()),
            (None, Some(address)) => Owner::Address(address),
            (None, None) => {
                connection.account = None;
                return Ok(());
            }
        };
        let permit = context.accounts.permit(owner, now);
        let is_same = connection.account.as_ref().is_some_and(|own| own.account().id() == permit.account().id());
        if is_same {
            return Ok(());
        }
        permit.begin(now, &settings.accounts)?;
        connection.account = Some(permit);
        Ok(())
    }

    /// Takes a packet.
    pub(super) fn begin_packet(&mut self, key: ConnectionKey, packet: Inbound, now: Millis) -> Begun {
        let Some(connection) = self.connections.get_mut(key).filter(|connection| connection.closing.is_none()) else {
            return Begun::Wait;
        };
        // Order is kept: it must not overtake packets that wait for the rate.
        let ahead = connection.pending.as_ref().map_or(0, |pending| pending.deferred());
        let in_rate = ahead == 0 && take(&self.context, connection, now, packet.size());
        if !in_rate && packet.wants_answer() {
            return Begun::Refuse(packet, ahead);
        }
        let pending = connection.pending.get_or_insert_default();
        let idle = !pending.is_working;
        pending.is_working = true;
        if in_rate && idle {
            return Begun::Work(packet, now);
        }
        // A client without a session has nothing to send that is larger than one message.
        let max_payload = self.context.socketio.max_payload;
        let max_bytes = if connection.sessions.is_empty() { max_payload } else { max_attached(max_payload) };
        let before = pending.bytes();
        if let Err(packet) = pending.push(packet, !in_rate, now, max_bytes) {
            return Begun::Refuse(packet, ahead);
        }
        self.context.memory.adjust(Holding::Pending, before, pending.bytes());
        if idle { Begun::Defer } else { Begun::Wait }
    }

    /// The packet behind the one that is done.
    pub(super) fn next_packet(&mut self, key: ConnectionKey, now: Millis) -> Next {
        let Some(connection) = self.connections.get_mut(key) else { return Next::Done };
        let deferred = connection.pending.as_ref().and_then(|pending| pending.next_deferred());
        if let Some(bytes) = deferred
            && !take(&self.context, connection, now, bytes)
        {
            let wait = connection.bucket.wait(self.context.rate()).max(Duration::from_millis(1));
            let account = account_wait(&self.context, connection, now).map(|wait| share_wait(connection, wait));
            return Next::Later(account.map_or(wait, |account| wait.max(account)));
        }
        let Some(pending) = &mut connection.pending else { return Next::Done };
        let before = pending.bytes();
        let next = pending.pop(now);
        self.context.memory.adjust(Holding::Pending, before, pending.bytes());
        match next {
            Some((packet, arrived)) => Next::Packet(packet, arrived),
            None => {
                pending.is_working = false;
                if pending.asking.is_none() {
                    connection.pending = None;
                }
                Next::Done
            }
        }
    }

    /// Notes how many bytes of the connection's packets wait for the backend: it stays on this node as long as some do.
    pub(super) fn set_asking(&mut self, key: ConnectionKey, asking: Option<usize>) {
        let Some(connection) = self.connections.get_mut(key).filter(|connection| connection.closing.is_none()) else {
            return;
        };
        let pending = connection.pending.get_or_insert_default();
        pending.asking = asking;
        if asking.is_none() && !pending.is_working {
            connection.pending = None;
        }
    }

    /// Notes that a message was refused while `ahead` others wait for the rate.
    pub(super) fn refuse_turn(&mut self, key: ConnectionKey, ahead: usize, now: Millis) -> Option<RefusedTurn> {
        let connection = self.connections.get_mut(key).filter(|connection| connection.closing.is_none())?;
        let rate = self.context.rate();
        let account = account_wait(&self.context, connection, now);
        let own = connection.bucket.wait(rate);
        let limit = match account {
            _ if !connection.bucket.wait_for_bytes(rate).is_zero() => RateLimit::Bytes,
            Some(wait) if own.is_zero() => wait.limit.into(),
            _ => RateLimit::Events,
        };
        // In its rate, a packet found no room because earlier ones wait for the backend or the log.
        let least = if own.is_zero() { QUEUE_RETRY } else { Duration::ZERO };
        let least = account.map_or(least, |wait| least.max(wait.retry));
        let retry = connection.bucket.refuse(now, rate, ahead).map(|retry| retry.max(least));
        let is_first = connection.bucket.is_first_refusal();
        Some(RefusedTurn { retry, is_first, limit, session: connection.sessions.first().copied() })
    }
}
