//! The requests that arrived together: decoded, appended at once, and answered in order. The buffers serve the next turn again.

use crate::http::Api;
use crate::http::answer::{Refused, Reply};
use crate::http::body::BodyError;
use crate::http::caller::Caller;
use crate::http::keys::bearer_in;
use crate::http::publish::{Decoded, Others, Stored, answer, begin_span, decode, end_span, is_ndjson, refuse_unread};
use crate::http::reply_bytes;
use crate::http::settings::HttpSettings;
use crate::http::traffic::Busy;
use crate::log::{Accepted, Appended};
use crate::model::draft::{Draft, Source};
use crate::node::context::LocalNode;
use crate::protocol::http1;
use crate::protocol::http1::{Head, Read};
use crate::refusals::Who;
use crate::telemetry::Span;
use hyper::StatusCode;
use hyper::header::{CONNECTION, HeaderValue};
use std::fmt::Write as _;
use std::time::Instant;

/// Bytes that a buffer keeps for the next turn.
pub(super) const KEPT: usize = 4 << 10;

/// What the bytes that were read end with.
#[derive(Clone, Copy)]
pub(super) enum Next {
    /// Nothing, or the beginning of a head.
    Head,
    /// The beginning of a request of so many bytes.
    Body(usize),
    /// What is not for this reader.
    Other,
}

/// A request that waits for the log.
struct Asked {
    decoded: Decoded,
    /// How many drafts it has.
    drafts: usize,
    span: Span,
}

pub(super) struct Turn<'a> {
    api: &'a Api,
    local: &'a LocalNode,
    caller: &'a Caller,
    /// From the head of a request until its answer is written.
    busy: Option<Busy<'a>>,
    asked: Vec<Asked>,
    drafts: Vec<Draft>,
    appended: Vec<Appended>,
    /// The other lines of the log, before the append.
    others: Others,
    text: String,
    out: Vec<u8>,
}

impl<'a> Turn<'a> {
    pub(super) fn new(api: &'a Api, local: &'a LocalNode, caller: &'a Caller) -> Self {
        let (asked, drafts, appended, others, text, out) = Default::default();
        Self { api, local, caller, busy: None, asked, drafts, appended, others, text, out }
    }

    /// A request has begun.
    pub(super) fn begin(&mut self) {
        self.busy.get_or_insert_with(|| self.api.traffic.begin());
    }

    pub(super) fn has_requests(&self) -> bool {
        !self.asked.is_empty()
    }

    /// Decodes the requests that are whole: how many bytes they have, and what follows.
    pub(super) fn take(&mut self, bytes: &[u8]) -> (usize, Next) {
        let settings = self.api.settings();
        let mut taken = 0;
        while taken < bytes.len() {
            let rest = &bytes[taken..];
            let head = match http1::read(rest) {
                Read::Head(head) if self.admits(&head, &settings) => head,
                Read::Head(_) | Read::Other => return (taken, Next::Other),
                Read::Partial => break,
            };
            self.caller.socket.prove();
            let whole = head.len + head.body;
            let Some(body) = rest.get(head.len..whole) else { return (taken, Next::Body(whole)) };
            self.ask(&head, body);
            taken += whole;
        }
        (taken, Next::Head)
    }

    /// Whether a request is let in as it is. What is not, hyper answers.
    fn admits(&self, head: &Head<'_>, settings: &HttpSettings) -> bool {
        let Some(key) = head.authorization.and_then(text).and_then(bearer_in) else { return false };
        let max_headers = self.local.context.settings().limits.headers;
        // Whoever comes by a Unix socket need not say which host is meant.
        let is_meant = self.caller.is_unix || head.host.and_then(text).is_some_and(|host| settings.hosts.admits(host));
        let is_ordinary = head.headers <= max_headers
            && head.body <= settings.publish.max_body
            && !(head.is_forwarded && self.caller.is_proxy())
            && !self.api.node.is_draining();
        is_meant && is_ordinary && settings.keys.contain(key)
    }

    fn ask(&mut self, head: &Head<'_>, body: &[u8]) {
        self.begin();
        self.caller.begin_request();
        let mut span = begin_span(self.api, head.traceparent, head.tracestate);
        let before = self.drafts.len();
        let from = self.caller.client();
        let decoded = decode(self.api, body, is_ndjson(head.content_type), from, &mut span, &mut self.drafts);
        self.asked.push(Asked { decoded, drafts: self.drafts.len() - before, span });
    }

    /// Appends the drafts of all requests, and answers how many these are.
    pub(super) async fn append(&mut self) -> usize {
        let events = self.drafts.len();
        self.others = Others::now(&self.api.node);
        let log = &self.api.node.log;
        if self.api.node.context.telemetry.traces() {
            // What is appended together is of one trace.
            for asked in self.asked.iter().filter(|asked| asked.drafts > 0) {
                let drafts = self.drafts.drain(..asked.drafts).collect();
                self.appended.extend(log.append(drafts).await);
            }
        } else if !self.drafts.is_empty() && !log.append_now(&mut self.drafts, &mut self.appended) {
            self.appended = log.append(std::mem::take(&mut self.drafts)).await;
        }
        events
    }

    /// Prepares the answers. `true`: the connection ends with the last one.
    pub(super) fn answer(&mut self, now: Instant) -> bool {
        let is_last = self.api.node.is_draining();
        let (mut asked, mut appended) = (std::mem::take(&mut self.asked), std::mem::take(&mut self.appended));
        let (mut left, mut results) = (asked.len(), appended.drain(..));
        for Asked { decoded, drafts, span } in asked.drain(..) {
            left -= 1;
            let closes = is_last && left == 0;
            let mut own = results.by_ref().take(drafts);
            let status = match decoded {
                Decoded::One if !closes => match own.next() {
                    Some(Ok(accepted)) => self.accept(accepted, now),
                    other => {
                        self.reply(answer(self.api, Decoded::One, &mut other.into_iter(), &self.others), false, now)
                    }
                },
                decoded => self.reply(answer(self.api, decoded, &mut own, &self.others), closes, now),
            };
            end_span(span, status);
        }
        drop(results);
        (self.asked, self.appended) = (asked, appended);
        is_last
    }

    /// Nearly every answer.
    fn accept(&mut self, accepted: Accepted, now: Instant) -> StatusCode {
        let metrics = &self.api.node.context.metrics.events;
        metrics.accepted(Source::Http, 1);
        metrics.publish_answered(StatusCode::OK.as_u16());
        self.text.clear();
        // Writing to a `String` does not fail.
        let _ = write!(self.text, "{}", Stored(accepted, &self.others));
        reply_bytes::push_ok(&mut self.out, self.text.as_bytes(), now);
        StatusCode::OK
    }

    /// Any other answer.
    fn reply(&mut self, mut reply: Reply, closes: bool, now: Instant) -> StatusCode {
        let (status, context) = (reply.status(), &self.api.node.context);
        context.metrics.events.publish_answered(status.as_u16());
        if let Some(Refused(reason, why)) = reply.extensions_mut().remove() {
            let who = Who::at(self.caller.client()).path("/publish");
            context.refusals.note(reason, &who, format_args!("{why}"));
        }
        if closes {
            reply.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        reply_bytes::push(&mut self.out, reply, now);
        status
    }

    /// Prepares the answer to a request whose body does not arrive in time; the connection ends with it.
    pub(super) fn refuse_slow(&mut self, now: Instant) {
        let reply = refuse_unread(self.api, BodyError::Slow);
        self.reply(reply, true, now);
    }

    pub(super) fn answers(&self) -> &[u8] {
        &self.out
    }

    /// The answers are written.
    pub(super) fn end(&mut self) {
        self.busy = None;
        self.out.clear();
        if self.out.capacity() > KEPT {
            self.out = Vec::new();
        }
        if self.drafts.capacity() * size_of::<Draft>() > KEPT {
            (self.asked, self.drafts, self.appended) = Default::default();
        }
    }
}

/// A header's value, if it is one that can be compared.
fn text(value: &[u8]) -> Option<&str> {
    str::from_utf8(value).ok().filter(|text| text.is_ascii())
}
