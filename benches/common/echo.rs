//! What hyper itself costs: a server on one thread that answers every request with its own body. The program of the bench
//! is started a second time for it.

use super::child;
use super::child::Child;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::net::Ipv4Addr;

/// The argument by which the child knows that it is one.
const CHILD: &str = "--echo";

/// Starts the echo.
pub(crate) fn start() -> Child {
    Child::start(CHILD)
}

/// Whether this process is the child; it serves until it is killed.
pub(crate) fn is_child() -> bool {
    let asked = child::is(CHILD);
    if asked {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be made");
        tokio::task::LocalSet::new().block_on(&runtime, serve());
    }
    asked
}

async fn serve() {
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("the system has free ports");
    println!("{}", listener.local_addr().expect("a bound socket has an address"));
    loop {
        let (stream, _) = listener.accept().await.expect("the parent connects");
        stream.set_nodelay(true).expect("a TCP socket");
        tokio::task::spawn_local(async move {
            let mut connection = hyper::server::conn::http1::Builder::new();
            connection.pipeline_flush(true);
            // The parent hangs up when it is done.
            let _ = connection.serve_connection(TokioIo::new(stream), service_fn(echo)).await;
        });
    }
}

async fn echo(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let body = request.into_body().collect().await.expect("the parent writes whole bodies").to_bytes();
    Ok(Response::new(Full::new(body)))
}
