//! What is refused while the node is near `limits.memory`: new sessions on open connections, and joins that replay.

use crate::model::close::CloseReason;
use crate::model::millis::whole_millis;
use crate::model::refusal::Refusal;
use crate::node::context::LocalNode;
use crate::protocol::plain_ws;
use crate::session::connection::ConnectionKey;
use serde_json::value::RawValue;

/// The error code that clients see.
const CODE: &str = "overloaded";
const MESSAGE: &str = "this node is near `limits.memory`; try again after `retry_after_ms`";

/// Refuses a new session where memory is tight; its client is closed, to come again. `true` when it was refused.
pub fn refuse_session(local: &LocalNode, key: ConnectionKey) -> bool {
    let is_refused = is_refused(local, key, "a new session");
    if is_refused {
        crate::handlers::fail(local, key, CloseReason::Memory);
    }
    is_refused
}

/// Refuses a `/ws` join that replays where memory is tight; its client may try again. `true` when it was refused.
pub fn refuse_replay(local: &LocalNode, key: ConnectionKey, id: Option<&RawValue>) -> bool {
    let is_refused = is_refused(local, key, "a join with `since`");
    if is_refused {
        let retry = whole_millis(CloseReason::Memory.retry().unwrap_or_default());
        local.shard.push_json(key, &plain_ws::retry_error(CODE, MESSAGE, retry, id));
    }
    is_refused
}

fn is_refused(local: &LocalNode, key: ConnectionKey, what: &str) -> bool {
    let is_tight = local.context.memory.is_tight();
    if is_tight {
        let why = format_args!("{what}; the node is near limits.memory");
        local.context.refusals.note(Refusal::Memory, &local.shard.who(key), why);
    }
    is_tight
}
