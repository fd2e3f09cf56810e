//! Why a connection ended without an answer: counted, and logged where somebody may want to change something.

use crate::http::Api;
use crate::http::caller::{Caller, note};
use crate::http::head::{READ_HEAD, READ_HEADERS};
use crate::http::keep_alive::Progress;
use crate::http::watched::Handoff;
use crate::model::refusal::Refusal;

/// The client disconnected, or does not speak HTTP. hyper has answered if it could.
pub(super) fn broken(api: &Api, caller: &Caller, error: &hyper::Error, progress: &Progress, handoff: &Handoff) {
    if error.is_parse_too_large() {
        let why = format_args!("more than {READ_HEADERS} headers, or more than {READ_HEAD} bytes of them");
        note(api, caller, Refusal::Headers, why);
    } else if error.is_parse() {
        let why = format_args!("no HTTP/1 request; for TLS set [tls], or end it at a proxy in front");
        note(api, caller, Refusal::Protocol, why);
    } else if progress.is_one_too_many() {
        let why = format_args!("unfinished heads of requests hold too much of `limits.memory`");
        note(api, caller, Refusal::Headers, why);
    } else if handoff.is_stalled() {
        unread_answer(api, caller);
    } else if error.is_timeout() {
        no_whole_request(api, caller, progress.has_begun());
    }
    tracing::trace!(%error, "an HTTP connection ended");
}

/// The client takes nothing of its answer.
pub(super) fn unread_answer(api: &Api, caller: &Caller) {
    note(api, caller, Refusal::Unread, format_args!("an answer that is not read: `http.write_timeout`"));
}

/// The time for a request is over.
pub(super) fn no_whole_request(api: &Api, caller: &Caller, has_begun: bool) {
    if has_begun {
        note(api, caller, Refusal::Incomplete, format_args!("no whole request within `http.head_timeout`"));
    } else if !caller.has_asked() {
        // Browsers open connections that they may need; they are no reason for a line in the log.
        api.node.context.refusals.count(Refusal::Incomplete);
    }
}
