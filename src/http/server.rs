//! Listeners, and one HTTP/1 connection on a shard.

use crate::http::Api;
use crate::http::routes::{Caller, Door, route};
use crate::http::upgrade::carry_on;
use crate::hub::shard::Shard;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::cell::RefCell;
use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpStream as StdStream};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Notify;

/// A request's head must be here by then, and an idle keep-alive connection is closed after it.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of a request's head: a token of 8 KB in the URL and ordinary headers fit.
const MOST_HEAD: usize = 32 << 10;
/// Headers of a request.
const MOST_HEADERS: usize = 64;
/// Connections that the system may hold for us.
const BACKLOG: u32 = 4_096;
/// After an error of accept (out of files, say), so as not to spin on it.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Requests that are being answered; the graceful stop waits for them.
#[derive(Default)]
pub struct Traffic {
    requests: AtomicUsize,
    idle: Notify,
}

/// One request; over when dropped.
struct Busy<'a>(&'a Traffic);

impl Traffic {
    fn begin(&self) -> Busy<'_> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        Busy(self)
    }

    /// Until no request is being answered.
    pub async fn wait_until_idle(&self) {
        while self.requests.load(Ordering::Relaxed) > 0 {
            self.idle.notified().await;
        }
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        if self.0.requests.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.idle.notify_one();
        }
    }
}

/// A bound listener.
pub struct Listener {
    listener: TcpListener,
    door: Door,
}

impl Listener {
    /// Binds an address. Must be called inside a runtime.
    ///
    /// # Errors
    /// The system's, such as an address in use.
    pub fn bind(address: SocketAddr, door: Door) -> io::Result<Self> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        Ok(Self { listener: socket.listen(BACKLOG)?, door })
    }

    /// The address it is bound to.
    ///
    /// # Errors
    /// The system's.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Accepts until dropped; connections go to the shards in turn.
    pub async fn accept(self, api: Arc<Api>) {
        let shards = api.node.shards();
        for shard in (0..shards.len()).cycle() {
            match self.accept_one().await {
                Ok((stream, peer)) => {
                    let (api, door) = (api.clone(), self.door);
                    shards[shard].run(move |shard| take(shard, api, stream, peer, door));
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// A connection that no runtime watches yet: its shard will.
    async fn accept_one(&self) -> io::Result<(StdStream, SocketAddr)> {
        let (stream, peer) = self.listener.accept().await?;
        stream.set_nodelay(true)?;
        Ok((stream.into_std()?, peer))
    }
}

/// Takes a new connection on its shard.
fn take(shard: &Rc<Shard>, api: Arc<Api>, stream: StdStream, peer: SocketAddr, door: Door) {
    match TcpStream::from_std(stream) {
        Ok(stream) => drop(tokio::task::spawn_local(serve(shard.clone(), api, stream, peer, door))),
        Err(error) => tracing::warn!(%error, "a connection could not be registered"),
    }
}

/// Speaks HTTP/1 until the connection ends or becomes a WebSocket.
async fn serve(shard: Rc<Shard>, api: Arc<Api>, stream: TcpStream, peer: SocketAddr, door: Door) {
    let caller = Rc::new(Caller { door, peer: peer.ip(), slot: Rc::new(RefCell::new(None)) });
    let service = service_fn(|request: Request<Incoming>| {
        let (api, shard, caller) = (api.clone(), shard.clone(), caller.clone());
        async move {
            let _busy = api.traffic.begin();
            let mut response = route(&api, &shard, request, &caller).await;
            if api.node.is_draining() && response.status() != StatusCode::SWITCHING_PROTOCOLS {
                // Else a client would keep a connection to a node that is about to go.
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<Response<_>, Infallible>(response)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MOST_HEAD)
        .max_headers(MOST_HEADERS)
        .pipeline_flush(true)
        .serve_connection(TokioIo::new(stream), service);
    match connection.without_shutdown().await {
        Ok(parts) => {
            if let Some(intent) = caller.slot.borrow_mut().take() {
                carry_on(&shard, intent, parts.io.into_inner(), parts.read_buf);
            }
        }
        // A client that hangs up or speaks no HTTP: hyper has answered what could be answered.
        Err(error) => tracing::trace!(%error, "an HTTP connection ended"),
    }
}
