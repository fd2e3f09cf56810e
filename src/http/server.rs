//! Listeners, and one HTTP/1 connection on a shard.

use crate::http::Api;
use crate::http::answer::Refused;
use crate::http::body::{Answer, BodyState};
use crate::http::caller::{Caller, ListenerKind, MAKES_ROOM, note};
use crate::http::config::HttpConfig;
use crate::http::ending;
use crate::http::head::{READ_HEAD, READ_HEADERS};
use crate::http::keep_alive::{HeadTimer, Progress};
use crate::http::linger;
use crate::http::listener::{Connections, Listener};
use crate::http::proxy_header;
use crate::http::proxy_header::NoHeader;
use crate::http::publisher;
use crate::http::publisher::Served;
use crate::http::routes::route;
use crate::http::tls;
use crate::http::upgrade::{Intent, Upgraded, carry_on};
use crate::http::watched::Watched;
use crate::http::ws;
use crate::model::refusal::Refusal;
use crate::node::context::LocalNode;
use crate::refusals::Who;
use crate::session::accepted::{AcceptedSocket, ClientStream};
use crate::session::connection_limiter::{ConnectionLimiter, LimitError, Owner};
use crate::tls::Socket;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use std::cell::Cell;
use std::convert::Infallible;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::watch;

/// Pause after a failed accept (no file descriptor left, for example), so that it is not retried in a loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);
/// Pause while sockets that make room for others are being closed, and how many of them: a shard may be busy.
const ROOM_PAUSE: Duration = Duration::from_millis(1);
const MAX_ROOM_PAUSES: u32 = 50;

/// Accepts on the shards that have a socket until `stop` is set, or the shard ends. `limiter` counts the sockets.
pub fn accept(listener: Listener, api: &Arc<Api>, limiter: &Arc<ConnectionLimiter>, stop: &watch::Receiver<bool>) {
    for (local, socket) in api.node.shards().iter().zip(listener.sockets) {
        let (api, mut stop, kind, limiter) = (api.clone(), stop.clone(), listener.kind, limiter.clone());
        local.run(move |local| {
            let local = local.clone();
            tokio::task::spawn_local(async move {
                let connections = match Connections::open(socket) {
                    Ok(connections) => connections,
                    Err(error) => return tracing::error!(%error, "a listener could not be registered"),
                };
                let acceptor = Acceptor { local, api, limiter, kind, is_unix: connections.is_unix() };
                tokio::select! {
                    () = acceptor.accept(&connections) => {}
                    _ = stop.wait_for(|stop| *stop) => acceptor.accept_rest(&connections).await,
                }
            });
        });
    }
}

/// Accepts on one shard.
struct Acceptor {
    local: Rc<LocalNode>,
    api: Arc<Api>,
    limiter: Arc<ConnectionLimiter>,
    kind: ListenerKind,
    is_unix: bool,
}

impl Acceptor {
    async fn accept(&self, connections: &Connections) {
        loop {
            self.room().await;
            match poll_fn(|context| connections.poll_accept(context)).await {
                Ok((stream, peer)) => self.start(stream, peer),
                Err(error) if is_exhausted(&error) => {
                    let why =
                        format_args!("a connection could not be accepted: {error}; raise the limit of open files");
                    self.refuse(&Who::unknown("the listener"), why);
                    self.limiter.free_a_file();
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
                // The client was gone before its connection was accepted.
                Err(error) => tracing::debug!(%error, "a connection could not be accepted"),
            }
        }
    }

    /// Waits a moment while the sockets that ended for others are closed, so that there are never more files than may be.
    async fn room(&self) {
        for _ in 0..MAX_ROOM_PAUSES {
            if !self.limiter.is_over() {
                return;
            }
            tokio::time::sleep(ROOM_PAUSE).await;
        }
    }

    /// Accepts what the kernel has queued before the listener closes; otherwise those clients get a reset.
    async fn accept_rest(&self, connections: &Connections) {
        let next = || poll_fn(|context| Poll::Ready(connections.poll_accept(context)));
        while let Poll::Ready(Ok((stream, peer))) = next().await {
            self.start(stream, peer);
        }
    }

    /// Serves a connection, or closes it if too many are open that have all proven themselves.
    fn start(&self, stream: TcpStream, peer: IpAddr) {
        let is_behind = self.api.settings().http.proxy_protocol && self.kind == ListenerKind::Public;
        let owner = if is_behind { Owner::proxy(peer) } else { owner(&self.api, peer) };
        let socket = match AcceptedSocket::new(&self.limiter, owner) {
            Ok(socket) => socket,
            Err(full) => return self.refuse(&Who::at(peer), format_args!("{}", too_many(full))),
        };
        let mut caller = Caller::new(self.kind, peer, self.api.settings().proxies.trusts(peer), socket);
        caller.is_unix = self.is_unix;
        let (local, api) = (self.local.clone(), self.api.clone());
        let has_tls = self.kind == ListenerKind::Public && api.tls.is_some();
        if is_behind || has_tls {
            drop(tokio::task::spawn_local(serve_layered(local, api, stream, caller, is_behind)));
        } else {
            drop(tokio::task::spawn_local(serve(local, api, Socket::plain(stream), caller)));
        }
    }

    fn refuse(&self, who: &Who, why: fmt::Arguments<'_>) {
        self.api.node.context.refusals.note(Refusal::Connections, who, why);
    }
}

fn owner(api: &Api, peer: IpAddr) -> Owner {
    if api.settings().proxies.trusts(peer) { Owner::proxy(peer) } else { Owner::client(peer) }
}

fn too_many(full: LimitError) -> &'static str {
    match full {
        LimitError::Node => "too many open connections for `limits.connections` and the open files allowed",
        LimitError::Address => "too many open connections for `limits.connections_per_ip`",
    }
}

/// Whether the process (EMFILE) or the machine (ENFILE) has no file left for a connection.
fn is_exhausted(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(23 | 24))
}

/// Serves a connection on which something comes before HTTP: a header of the PROXY protocol, TLS, or both in this order.
async fn serve_layered(local: Rc<LocalNode>, api: Arc<Api>, stream: TcpStream, caller: Caller, is_behind: bool) {
    // Boxed: the connection must not have room for a handshake as long as it lasts.
    let ready = Box::pin(take_layers(&local, &api, stream, caller, is_behind)).await;
    if let Some((socket, caller)) = ready {
        serve(local, api, socket, caller).await;
    }
}

async fn take_layers(
    local: &LocalNode,
    api: &Api,
    stream: TcpStream,
    caller: Caller,
    is_behind: bool,
) -> Option<(Socket, Caller)> {
    let (stream, caller) = match is_behind {
        true => read_proxy_header(api, stream, caller).await?,
        false => (stream, caller),
    };
    let socket = match api.tls.as_ref().filter(|_| caller.listener == ListenerKind::Public) {
        Some(server) => tls::shake_hands(local, api, stream, &caller, server).await?,
        None => Socket::plain(stream),
    };
    Some((socket, caller))
}

/// Reads the header of the PROXY protocol. `None`: it ends for want of one, which is noted.
async fn read_proxy_header(api: &Api, mut stream: TcpStream, mut caller: Caller) -> Option<(TcpStream, Caller)> {
    let noted = |caller: &Caller, reason, why: fmt::Arguments<'_>| {
        note(api, caller, reason, why);
        None
    };
    let head_timeout = api.settings().http.head_timeout;
    let read = tokio::select! {
        read = proxy_header::read(&mut stream, head_timeout) => read,
        _ = caller.socket.cut().wait() => return noted(&caller, Refusal::Unauthenticated, format_args!("{MAKES_ROOM}")),
    };
    match read {
        // The connection is the proxy's own.
        Ok(None) => {}
        Ok(Some(client)) => {
            caller = Caller::new(ListenerKind::Public, client, api.settings().proxies.trusts(client), caller.socket);
            if let Err(full) = caller.socket.belong_to(owner(api, client)) {
                return noted(&caller, Refusal::Connections, format_args!("{}", too_many(full)));
            }
        }
        Err(NoHeader::Empty) => return None,
        Err(problem) => return noted(&caller, Refusal::ProxyHeader, format_args!("{problem}")),
    }
    Some((stream, caller))
}

/// Speaks HTTP/1 until the connection ends or becomes a WebSocket.
async fn serve(local: Rc<LocalNode>, api: Arc<Api>, stream: Socket, caller: Caller) {
    let caller = Rc::new(caller);
    let (mut early, mut began, mut spare) = (Vec::new(), caller.accepted(), None);
    if caller.listener == ListenerKind::Admin || !api.admin_apart {
        let served = tokio::select! {
            biased;
            // Boxed: it is over before hyper begins.
            served = Box::pin(publisher::serve(&api, &local, &caller, &stream)) => served,
            is_evicted = caller.socket.cut().wait() => return note_eviction(&api, &caller, is_evicted),
        };
        match served {
            Served::Other(rest) => (early, began, spare) = (rest.early, rest.began, Some(rest.timer.into_sleep())),
            Served::Moves(shard) => return move_to(shard, &api, stream, caller),
            Served::Over => return stream.say_end(),
            Served::Linger => return linger::close(&local, stream).await,
        }
    }
    let may_still_send = Rc::new(Cell::new(false));
    let HttpConfig { head_timeout, idle_timeout, write_timeout, .. } = api.settings().http;
    let progress = Arc::new(Progress::new(api.node.context.memory.clone(), began));
    let timer = HeadTimer::new(progress.clone(), head_timeout, idle_timeout, spare);
    let (stream, handoff) = Watched::new(stream, early.into(), progress.clone(), write_timeout);
    let service = service_fn(|mut request: Request<Incoming>| {
        let (api, local, caller) = (api.clone(), local.clone(), caller.clone());
        let (may_still_send, progress, handoff) = (may_still_send.clone(), progress.clone(), handoff.clone());
        async move {
            let _busy = api.traffic.begin();
            caller.begin_request();
            progress.end_head();
            let uri = request.uri().clone();
            let body = BodyState::attach(&mut request, &api.node.context.memory);
            // Boxed: a connection that waits for a request must not have room for the answer to any.
            let mut response = match caller.name_client(&api.settings().proxies, request.headers()) {
                Ok(()) => Box::pin(route(&api, &local, request, &caller)).await,
                Err(full) => ws::full(full),
            };
            if let Some(Refused(reason, why)) = response.extensions_mut().remove() {
                let who = Who::at(caller.client()).path(uri.path());
                api.node.context.refusals.note(reason, &who, format_args!("{why}"));
            }
            let is_stream = matches!(response.body(), Answer::Sse(_));
            handoff.set_stream(is_stream);
            if !is_stream {
                caller.forget_client();
            }
            if caller.slot.borrow().as_ref().is_some_and(Intent::writes_at_once) {
                handoff.keep_answer();
            }
            let unread = body.is_some_and(|body| body.is_unread());
            may_still_send.set(unread);
            let draining = api.node.is_draining() && response.status() != StatusCode::SWITCHING_PROTOCOLS;
            if unread || draining {
                // Otherwise the client would keep a connection that is about to end.
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<Response<_>, Infallible>(response)
        }
    });
    let connection = http1::Builder::new()
        .timer(timer)
        // hyper needs a timeout to start the timer, which decides by itself.
        .header_read_timeout(head_timeout)
        .max_buf_size(READ_HEAD)
        .max_headers(READ_HEADERS)
        .serve_connection(TokioIo::new(stream), service);
    let ended = tokio::select! {
        ended = connection.without_shutdown() => ended,
        // An SSE client stopped reading, which hyper would wait for forever, or the socket makes room for others.
        is_evicted = caller.socket.cut().wait() => return note_eviction(&api, &caller, is_evicted),
    };
    match ended {
        Ok(parts) => {
            let early = parts.read_buf;
            drop(parts.io);
            let Some(stream) = handoff.take_stream() else { return };
            let intent = caller.slot.borrow_mut().take();
            match intent {
                Some(intent) => {
                    let stream = ClientStream { stream, open: caller.socket.upgrade() };
                    carry_on(
                        &local,
                        intent,
                        Upgraded { stream, early, answer: handoff.take_answer(), waited: caller.waited() },
                    );
                }
                None if may_still_send.get() => linger::close(&local, stream).await,
                None => stream.say_end(),
            }
        }
        Err(error) => {
            ending::broken(&api, &caller, &error, &progress, &handoff);
            if error.is_parse()
                && let Some(stream) = handoff.take_stream()
            {
                linger::close(&local, stream).await;
            }
        }
    }
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

fn note_eviction(api: &Api, caller: &Caller, is_evicted: bool) {
    if is_evicted {
        note(api, caller, Refusal::Unauthenticated, format_args!("{MAKES_ROOM}"));
    }
}
