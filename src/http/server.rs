//! Listeners: connections are accepted on the shards, counted, and served once what comes before HTTP has been read.

use crate::http::Api;
use crate::http::caller::{Caller, ListenerKind, MAKES_ROOM, note};
use crate::http::connection::serve;
use crate::http::listener::{Connections, Listener};
use crate::http::proxy_header;
use crate::http::proxy_header::NoHeader;
use crate::http::tls;
use crate::model::refusal::Refusal;
use crate::node::context::LocalNode;
use crate::refusals::Who;
use crate::session::accepted::AcceptedSocket;
use crate::session::connection_limiter::{ConnectionLimiter, LimitError, Owner};
use crate::tls::Socket;
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
