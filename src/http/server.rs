//! Listeners, and one HTTP/1 connection on a shard.

use crate::http::Api;
use crate::http::answer::Refused;
use crate::http::body::BodyState;
use crate::http::caller::{Caller, ListenerKind};
use crate::http::head::{READ_HEAD, READ_HEADERS};
use crate::http::keep_alive::{HEAD_TIMEOUT, watch};
use crate::http::linger;
use crate::http::routes::route;
use crate::http::upgrade::carry_on;
use crate::model::refusal::Refusal;
use crate::node::context::LocalNode;
use crate::refusals;
use crate::refusals::shown;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use socket2::Domain;
use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore, watch};

/// Connections that wait in the kernel to be accepted.
const BACKLOG: i32 = 4_096;
/// Pause after a failed accept (no file descriptor left, for example), so that it is not retried in a loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// HTTP connections for each client connection that `limits.connections` allows. A polling client uses two;
/// connections that became WebSockets do not count.
const SOCKETS_PER_CLIENT: usize = 2;
/// More of them, for publishers, health checks, and clients that have sent nothing yet.
const OTHER_SOCKETS: usize = 1_024;

/// A bound address: a socket for each shard. The kernel spreads connections among them, so that no connection has to
/// change threads.
pub struct Listener {
    sockets: Vec<StdListener>,
    address: SocketAddr,
    kind: ListenerKind,
}

impl Listener {
    /// Binds an address, once for each of `shards`.
    ///
    /// # Errors
    /// The operating system's, such as an address in use.
    pub fn bind(address: SocketAddr, kind: ListenerKind, shards: usize) -> io::Result<Self> {
        // Sockets that share their port would share it with another roomcast too. One that does not share finds out.
        drop(socket(address, false)?);
        let first = socket(address, true)?;
        let address = first.local_addr()?;
        let others = (1..shards).map(|_| socket(address, true));
        let sockets = std::iter::once(Ok(first)).chain(others).collect::<io::Result<_>>()?;
        Ok(Self { sockets, address, kind })
    }

    /// The address it is bound to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts on every shard until `stop` is set, or the shard ends.
    pub fn accept(self, api: &Arc<Api>, stop: &watch::Receiver<bool>) {
        let max = api.node.context.limits.connections.saturating_mul(SOCKETS_PER_CLIENT);
        let permits = Arc::new(Semaphore::new(max.saturating_add(OTHER_SOCKETS).min(Semaphore::MAX_PERMITS)));
        for (local, socket) in api.node.shards().iter().zip(self.sockets) {
            let (api, mut stop, kind) = (api.clone(), stop.clone(), self.kind);
            let permits = permits.clone();
            local.run(move |local| {
                let local = local.clone();
                tokio::task::spawn_local(async move {
                    let listener = match TcpListener::from_std(socket) {
                        Ok(listener) => listener,
                        Err(error) => return tracing::error!(%error, "a listener could not be registered"),
                    };
                    tokio::select! {
                        () = accept(&local, &api, &listener, kind, &permits) => {}
                        _ = stop.wait_for(|stop| *stop) => accept_rest(&local, &api, &listener, kind, &permits).await,
                    }
                });
            });
        }
    }
}

fn socket(address: SocketAddr, shared: bool) -> io::Result<StdListener> {
    let socket = socket2::Socket::new(Domain::for_address(address), socket2::Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.set_nonblocking(true)?;
    // Accepted sockets inherit it, which saves a system call each.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Accepts on one shard.
async fn accept(
    local: &Rc<LocalNode>,
    api: &Arc<Api>,
    listener: &TcpListener,
    kind: ListenerKind,
    permits: &Arc<Semaphore>,
) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => start(local, api, stream, peer, kind, permits),
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Accepts what the kernel has queued before the listener closes; otherwise those clients get a reset.
async fn accept_rest(
    local: &Rc<LocalNode>,
    api: &Arc<Api>,
    listener: &TcpListener,
    kind: ListenerKind,
    permits: &Arc<Semaphore>,
) {
    let next = || poll_fn(|context| Poll::Ready(listener.poll_accept(context)));
    while let Poll::Ready(Ok((stream, peer))) = next().await {
        start(local, api, stream, peer, kind, permits);
    }
}

/// Serves a connection, or closes it if too many are open.
fn start(
    local: &Rc<LocalNode>,
    api: &Arc<Api>,
    stream: TcpStream,
    peer: SocketAddr,
    kind: ListenerKind,
    permits: &Arc<Semaphore>,
) {
    let Ok(permit) = permits.clone().try_acquire_owned() else {
        let why = format_args!("too many open HTTP connections for `limits.connections`");
        return refusals::note(&api.node.context.metrics, Refusal::Connections, format_args!("{}", peer.ip()), why);
    };
    let (local, api) = (local.clone(), api.clone());
    drop(tokio::task::spawn_local(async move {
        serve(local, api, stream, peer, kind).await;
        drop(permit);
    }));
}

/// Speaks HTTP/1 until the connection ends or becomes a WebSocket.
async fn serve(local: Rc<LocalNode>, api: Arc<Api>, stream: TcpStream, peer: SocketAddr, kind: ListenerKind) {
    let caller = Rc::new(Caller {
        listener: kind,
        peer: peer.ip(),
        slot: Rc::new(RefCell::new(None)),
        cut: Rc::new(Notify::new()),
    });
    let may_still_send = Rc::new(Cell::new(false));
    let service = service_fn(|mut request: Request<Incoming>| {
        let (api, local, caller) = (api.clone(), local.clone(), caller.clone());
        let may_still_send = may_still_send.clone();
        async move {
            let _busy = api.traffic.begin();
            let uri = request.uri().clone();
            let body = BodyState::attach(&mut request, &api.node.context.memory);
            let mut response = route(&api, &local, request, &caller).await;
            if let Some(Refused(reason, why)) = response.extensions_mut().remove() {
                let who = format_args!("{} {}", caller.peer, shown(uri.path()));
                refusals::note(&api.node.context.metrics, reason, who, format_args!("{why}"));
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
    let (stream, timer, returned) = watch(stream, api.http.idle_timeout);
    let connection = http1::Builder::new()
        .timer(timer)
        // hyper needs a timeout to start the timer, which decides by itself.
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(READ_HEAD)
        .max_headers(READ_HEADERS)
        .serve_connection(TokioIo::new(stream), service);
    let ended = tokio::select! {
        ended = connection.without_shutdown() => ended,
        // An SSE client stopped reading. hyper would wait for it forever.
        () = caller.cut.notified() => return,
    };
    match ended {
        Ok(parts) => {
            let early = parts.read_buf;
            drop(parts.io);
            let Some(stream) = returned.take() else { return };
            let intent = caller.slot.borrow_mut().take();
            match intent {
                Some(intent) => carry_on(&local, intent, stream, early),
                None if may_still_send.get() => linger::close(&local, stream).await,
                None => {}
            }
        }
        // The client disconnected, or does not speak HTTP. hyper has answered if it could.
        Err(error) => {
            if error.is_parse_too_large() {
                let why = format_args!("more than {READ_HEADERS} headers, or more than {READ_HEAD} bytes of them");
                refusals::note(&api.node.context.metrics, Refusal::Headers, format_args!("{}", caller.peer), why);
            } else if error.is_parse() {
                let why = format_args!("no HTTP/1 request; TLS ends at the proxy in front");
                refusals::note(&api.node.context.metrics, Refusal::Protocol, format_args!("{}", caller.peer), why);
            }
            tracing::trace!(%error, "an HTTP connection ended");
            if error.is_parse()
                && let Some(stream) = returned.take()
            {
                linger::close(&local, stream).await;
            }
        }
    }
}
