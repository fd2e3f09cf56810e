//! TCP connections for the HTTP client: straight to the host, or through the proxy of `HTTPS_PROXY` where the URL is
//! `https://` and `NO_PROXY` does not exempt its host.

use crate::https::{Server, own_node};
use crate::unix_socket;
use hyper::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_rustls::builderstates::WantsSchemes;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::legacy::connect::{CaptureConnection, Connected, Connection, HttpConnector};
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use std::error::Error;
use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use tokio::net::TcpStream;
use tower_service::Service;

type BoxError = Box<dyn Error + Send + Sync>;
type Tcp = TokioIo<TcpStream>;

/// TLS settings; the root certificates are only read where they are needed.
pub(super) fn with_roots(server: &Server, is_needed: bool) -> io::Result<HttpsConnectorBuilder<WantsSchemes>> {
    if matches!(server, Server::OwnNode) && is_needed {
        return Ok(HttpsConnectorBuilder::new().with_tls_config(own_node::config()?));
    }
    // The provider is handed over, so nothing depends on a process-wide one being installed.
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    if is_needed {
        return HttpsConnectorBuilder::new().with_provider_and_native_roots(provider);
    }
    let versions = ClientConfig::builder_with_provider(provider.into()).with_safe_default_protocol_versions();
    let config = versions.map_err(io::Error::other)?.with_root_certificates(RootCertStore::empty());
    Ok(HttpsConnectorBuilder::new().with_tls_config(config.with_no_client_auth()))
}

/// Whether the captured connection had carried a request before this one. Asked once for each request.
pub(super) fn is_kept_alive(captured: &CaptureConnection) -> bool {
    let mut extensions = hyper::http::Extensions::new();
    if let Some(connected) = captured.connection_metadata().as_ref() {
        connected.get_extras(&mut extensions);
    }
    extensions.get::<Used>().is_some_and(|used| used.0.swap(true, Ordering::Relaxed))
}

/// Whether a connection has carried a request.
#[derive(Clone, Default)]
struct Used(Arc<AtomicBool>);

/// Opens TCP connections, to the host itself or through its proxy.
#[derive(Clone)]
pub(super) struct Dialer {
    direct: HttpConnector,
    /// To the proxy, which may want TLS itself.
    to_proxy: HttpsConnector<HttpConnector>,
    proxies: Arc<Matcher>,
    /// Instead of all this.
    socket: Option<Arc<Path>>,
}

impl Dialer {
    pub(super) fn new(server: Server) -> io::Result<Self> {
        let mut direct = HttpConnector::new();
        // TLS comes on top.
        direct.enforce_http(false);
        let (proxies, socket) = match server {
            Server::Checked => (Matcher::from_env(), None),
            Server::OwnNode => (Matcher::builder().build(), None),
            Server::Socket(path) => (Matcher::builder().build(), Some(path.into())),
        };
        let is_tls = ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]
            .iter()
            .any(|name| std::env::var(name).is_ok_and(|url| url.starts_with("https:")));
        let to_proxy =
            with_roots(&Server::Checked, is_tls)?.https_or_http().enable_http1().wrap_connector(direct.clone());
        Ok(Self { direct, to_proxy, proxies: Arc::new(proxies), socket })
    }

    /// Plain HTTP goes to services nearby, and proxies of many environments do not reach those.
    fn proxy_for(&self, destination: &Uri) -> Option<Intercept> {
        if destination.scheme_str() == Some("https") { self.proxies.intercept(destination) } else { None }
    }
}

impl Service<Uri> for Dialer {
    type Response = Dialed;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Dialed, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.direct.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, destination: Uri) -> Self::Future {
        if let Some(socket) = self.socket.clone() {
            return Box::pin(async move {
                let stream = TokioIo::new(unix_socket::connect(&socket).await?);
                Ok(Dialed::new(MaybeHttpsStream::Http(stream)))
            });
        }
        let Some(proxy) = self.proxy_for(&destination) else {
            let dialing = self.direct.call(destination);
            return Box::pin(async move { Ok(Dialed::new(MaybeHttpsStream::Http(dialing.await?))) });
        };
        if !matches!(proxy.uri().scheme_str(), Some("http" | "https")) {
            return Box::pin(async { Err("HTTPS_PROXY must be an http:// or https:// URL".into()) });
        }
        let mut tunnel = Tunnel::new(proxy.uri().clone(), self.to_proxy.clone());
        if let Some(login) = proxy.basic_auth() {
            tunnel = tunnel.with_auth(login.clone());
        }
        Box::pin(async move {
            let stream =
                tunnel.call(destination).await.map_err(|error| format!("the proxy of HTTPS_PROXY: {error}"))?;
            Ok(Dialed::new(stream))
        })
    }
}

/// A connection that knows whether it was used.
pub(super) struct Dialed {
    stream: MaybeHttpsStream<Tcp>,
    used: Used,
}

impl Dialed {
    fn new(stream: MaybeHttpsStream<Tcp>) -> Self {
        Self { stream, used: Used::default() }
    }
}

impl Connection for Dialed {
    fn connected(&self) -> Connected {
        self.stream.connected().extra(self.used.clone())
    }
}

impl Read for Dialed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl Write for Dialed {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
