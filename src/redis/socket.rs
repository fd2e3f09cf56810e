//! A connection whose owner reads and writes the bytes itself, for what is done for every event. It is logged in, and
//! nothing of it was read ahead.

use crate::redis::command::{Arguments as _, CommandWriter};
use crate::redis::error::RedisError;
use crate::redis::resp::{Scanner, Token, Tokens};
use crate::redis::url::KEEPALIVE;
use redis::{ConnectionAddr, ConnectionInfo, RedisConnectionInfo};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Bytes of the reply to a login.
const MAX_LOGIN_REPLY: usize = 64 << 10;

/// Plain or with TLS.
pub(crate) enum RedisSocket {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl RedisSocket {
    /// Connects and logs in within the timeout.
    pub(super) async fn open(info: &ConnectionInfo, timeout: Duration) -> Result<Self, RedisError> {
        let open = async {
            let mut socket = Self::connect(info.addr()).await.map_err(disconnected)?;
            socket.log_in(info.redis_settings()).await?;
            Ok(socket)
        };
        tokio::time::timeout(timeout, open).await.unwrap_or(Err(RedisError::Timeout(timeout)))
    }

    async fn connect(address: &ConnectionAddr) -> io::Result<Self> {
        let (ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. }) = address else {
            return Err(io::Error::other("neither TCP nor TLS"));
        };
        let stream = TcpStream::connect((host.as_str(), *port)).await?;
        stream.set_nodelay(true)?;
        let socket = SockRef::from(&stream);
        socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 2))?;
        #[cfg(target_os = "linux")]
        socket.set_tcp_user_timeout(Some(KEEPALIVE))?;
        if let ConnectionAddr::Tcp(..) = address {
            return Ok(Self::Plain(stream));
        }
        // The files with the certificates are read with blocking calls.
        let config = tokio::task::spawn_blocking(tls_config).await.map_err(io::Error::other)??;
        let name = ServerName::try_from(host.clone()).map_err(io::Error::other)?;
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        Ok(Self::Tls(Box::new(stream)))
    }

    async fn log_in(&mut self, settings: &RedisConnectionInfo) -> Result<(), RedisError> {
        let mut commands = Vec::new();
        let mut count = 0;
        let mut add = |words: &[&str]| {
            let mut command = CommandWriter::new(&mut commands);
            words.iter().for_each(|word| command.text(word));
            command.finish();
            count += 1;
        };
        match (settings.username(), settings.password()) {
            (Some(user), Some(password)) => add(&["AUTH", user, password]),
            (None, Some(password)) => add(&["AUTH", password]),
            (_, None) => {}
        }
        if settings.db() != 0 {
            add(&["SELECT", &settings.db().to_string()]);
        }
        self.write_all(&commands).await.map_err(disconnected)?;
        let (mut replies, mut scanner) = (Vec::new(), Scanner::new(MAX_LOGIN_REPLY));
        while count > 0 {
            let Some(bytes) = scanner.scan(&replies).map_err(|_| RedisError::UnexpectedReply("a login"))? else {
                if self.read_buf(&mut replies).await.map_err(disconnected)? == 0 {
                    return Err(disconnected(io::ErrorKind::UnexpectedEof.into()));
                }
                continue;
            };
            if let Some(Token::Error(error)) = Tokens::new(&replies[..bytes]).next() {
                return Err(RedisError::of_reply(error));
            }
            replies.drain(..bytes);
            count -= 1;
        }
        Ok(())
    }
}

fn tls_config() -> io::Result<ClientConfig> {
    use hyper_rustls::ConfigBuilderExt as _;
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let versions = ClientConfig::builder_with_provider(provider.into()).with_safe_default_protocol_versions();
    Ok(versions.map_err(io::Error::other)?.with_native_roots()?.with_no_client_auth())
}

pub(crate) fn disconnected(error: io::Error) -> RedisError {
    RedisError::Disconnected(error.to_string())
}

impl AsyncRead for RedisSocket {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for RedisSocket {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
