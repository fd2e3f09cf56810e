//! One HTTP/1 connection on a shard, until it ends or becomes a WebSocket: its first requests may be a publisher's, which
//! are read without hyper; hyper has the rest.

use crate::http::Api;
use crate::http::answer::{Refused, Reply};
use crate::http::body::{Answer, BodyState};
use crate::http::caller::{Caller, ListenerKind, MAKES_ROOM, note};
use crate::http::config::HttpConfig;
use crate::http::ending;
use crate::http::head::{READ_HEAD, READ_HEADERS};
use crate::http::keep_alive::{HeadTimer, Progress};
use crate::http::linger;
use crate::http::publisher;
use crate::http::publisher::{Rest, Served};
use crate::http::routes::route;
use crate::http::upgrade::{Intent, Upgraded, carry_on};
use crate::http::watched::{Handoff, Watched};
use crate::http::ws;
use crate::model::refusal::Refusal;
use crate::node::context::LocalNode;
use crate::refusals::Who;
use crate::session::accepted::ClientStream;
use crate::tls::Socket;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use std::cell::Cell;
use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;

/// Speaks HTTP/1 until the connection ends or becomes a WebSocket.
pub(super) async fn serve(local: Rc<LocalNode>, api: Arc<Api>, stream: Socket, caller: Caller) {
    let caller = Rc::new(caller);
    let mut rest = None;
    if takes_events(&api, &caller) {
        let served = tokio::select! {
            biased;
            // Boxed: it is over before hyper begins.
            served = Box::pin(publisher::serve(&api, &local, &caller, &stream)) => served,
            is_evicted = caller.socket.cut().wait() => return note_eviction(&api, &caller, is_evicted),
        };
        match served {
            Served::Other(other) => rest = Some(other),
            Served::Moves(shard) => return move_to(shard, &api, stream, caller),
            Served::Over => return stream.say_end(),
            Served::Linger => return linger::close(&local, stream).await,
        }
    }
    speak(local, api, stream, caller, rest).await;
}

/// Whether `/publish` is at the listener of this connection.
fn takes_events(api: &Api, caller: &Caller) -> bool {
    caller.listener == ListenerKind::Admin || !api.admin_apart
}

/// Goes on with a publisher's connection on another shard.
fn move_to(shard: usize, api: &Arc<Api>, stream: Socket, caller: Rc<Caller>) {
    let Some(caller) = Rc::into_inner(caller) else { return };
    let (Some(shard), Ok(stream)) = (api.node.shards().get(shard), stream.detach()) else { return };
    api.node.context.metrics.events.publisher_moved();
    caller.moves.set(caller.moves.get().saturating_add(1));
    let api = api.clone();
    shard.run(move |local| {
        if let Ok(stream) = stream.attach() {
            tokio::task::spawn_local(serve(local.clone(), api, stream, caller));
        }
    });
}

/// Has hyper read the requests, first those of `rest`.
async fn speak(local: Rc<LocalNode>, api: Arc<Api>, stream: Socket, caller: Rc<Caller>, rest: Option<Rest>) {
    let HttpConfig { head_timeout, idle_timeout, write_timeout, .. } = api.settings().http;
    let (early, began, spare) = match rest {
        Some(rest) => (rest.early, rest.began, Some(rest.timer.into_sleep())),
        None => (Vec::new(), caller.accepted(), None),
    };
    let progress = Arc::new(Progress::new(api.node.context.memory.clone(), began));
    let timer = HeadTimer::new(progress.clone(), head_timeout, idle_timeout, spare);
    let (stream, handoff) = Watched::new(stream, early.into(), progress.clone(), write_timeout);
    let exchange = Rc::new(Exchange { api, local, caller, progress, handoff, may_still_send: Cell::new(false) });
    let connection = http1::Builder::new()
        .timer(timer)
        // hyper needs a timeout to start the timer, which decides by itself.
        .header_read_timeout(head_timeout)
        .max_buf_size(READ_HEAD)
        .max_headers(READ_HEADERS)
        .serve_connection(
            TokioIo::new(stream),
            service_fn(|request| {
                let exchange = exchange.clone();
                async move { Ok::<Response<_>, Infallible>(exchange.answer(request).await) }
            }),
        );
    let ended = tokio::select! {
        ended = connection.without_shutdown() => ended.map(|parts| parts.read_buf),
        // An SSE client stopped reading, which hyper would wait for forever, or the socket makes room for others.
        is_evicted = exchange.caller.socket.cut().wait() => {
            return note_eviction(&exchange.api, &exchange.caller, is_evicted);
        }
    };
    exchange.end(ended).await;
}

fn note_eviction(api: &Api, caller: &Caller, is_evicted: bool) {
    if is_evicted {
        note(api, caller, Refusal::Unauthenticated, format_args!("{MAKES_ROOM}"));
    }
}

/// What the requests of a connection share.
struct Exchange {
    api: Arc<Api>,
    local: Rc<LocalNode>,
    caller: Rc<Caller>,
    progress: Arc<Progress>,
    handoff: Rc<Handoff>,
    /// Whether the last request was answered before all of its body had been read.
    may_still_send: Cell<bool>,
}

impl Exchange {
    async fn answer(&self, mut request: Request<Incoming>) -> Reply {
        let Self { api, local, caller, .. } = self;
        let _busy = api.traffic.begin();
        caller.begin_request();
        self.progress.end_head();
        let uri = request.uri().clone();
        let body = BodyState::attach(&mut request, &api.node.context.memory);
        // Boxed: a connection that waits for a request must not have room for the answer to any.
        let mut response = match caller.name_client(&api.settings().proxies, request.headers()) {
            Ok(()) => Box::pin(route(api, local, request, caller)).await,
            Err(full) => ws::full(full),
        };
        if uri.path() == "/publish" && takes_events(api, caller) {
            // Also what is refused for its head, whatever its path.
            api.node.context.metrics.events.publish_answered(response.status().as_u16());
        }
        if let Some(Refused(reason, why)) = response.extensions_mut().remove() {
            let who = Who::at(caller.client()).path(uri.path());
            api.node.context.refusals.note(reason, &who, format_args!("{why}"));
        }
        self.prepare_next(&response);
        let unread = body.is_some_and(|body| body.is_unread());
        self.may_still_send.set(unread);
        let draining = api.node.is_draining() && response.status() != StatusCode::SWITCHING_PROTOCOLS;
        if unread || draining {
            // Otherwise the client would keep a connection that is about to end.
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    /// Prepares the connection for what follows the head of this answer.
    fn prepare_next(&self, response: &Reply) {
        let is_stream = matches!(response.body(), Answer::Sse(_));
        self.handoff.set_stream(is_stream);
        if !is_stream {
            self.caller.forget_client();
        }
        if self.caller.slot.borrow().as_ref().is_some_and(Intent::writes_at_once) {
            self.handoff.keep_answer();
        }
    }

    /// hyper has released the connection, with what it had read and not used.
    async fn end(&self, ended: hyper::Result<Bytes>) {
        let Self { api, local, caller, handoff, .. } = self;
        match ended {
            Ok(early) => {
                let Some(stream) = handoff.take_stream() else { return };
                let intent = caller.slot.borrow_mut().take();
                match intent {
                    Some(intent) => {
                        let stream = ClientStream { stream, open: caller.socket.upgrade() };
                        let (answer, waited) = (handoff.take_answer(), caller.waited());
                        carry_on(local, intent, Upgraded { stream, early, answer, waited });
                    }
                    None if self.may_still_send.get() => linger::close(local, stream).await,
                    None => stream.say_end(),
                }
            }
            Err(error) => {
                ending::broken(api, caller, &error, &self.progress, handoff);
                if error.is_parse()
                    && let Some(stream) = handoff.take_stream()
                {
                    linger::close(local, stream).await;
                }
            }
        }
    }
}
