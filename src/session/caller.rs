//! A session as the rules see it.

use crate::auth::identity::Identity;
use crate::rules::{Caller, UserRef};
use crate::session::Session;

/// Runs `act` with the rules' view of a session.
pub fn with_caller<T>(session: &Session, namespace: &str, act: impl FnOnce(&Caller<'_>) -> T) -> T {
    with_identity(&session.identity, session.auth.as_deref(), &session.id.to_string(), namespace, act)
}

/// Runs `act` with the rules' view of a client that has no session yet.
pub fn with_identity<T>(
    identity: &Identity,
    auth: Option<&str>,
    session: &str,
    namespace: &str,
    act: impl FnOnce(&Caller<'_>) -> T,
) -> T {
    let granted = |room: &str| identity.grants.allows(room);
    act(&Caller {
        user: identity.user.as_ref().map(|user| UserRef { text: user.as_str(), is_number: user.is_number() }),
        claims: &identity.claims,
        session,
        namespace,
        auth: auth.unwrap_or("{}"),
        granted: &granted,
    })
}
