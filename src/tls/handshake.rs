//! The handshake of one connection. Its caller bounds the time and counts the results.

use crate::tls::session::TlsSession;
use crate::tls::socket::{Socket, with_records};
use parking_lot::Mutex;
use rustls::{Error, PeerIncompatible, ServerConfig};
use std::io;
use std::sync::Arc;
use tokio::net::TcpStream;

/// The first byte of a client that shakes hands (RFC 8446 section 5.1).
const HANDSHAKE: u8 = 22;

/// What a connection begins with.
pub enum Accepted {
    /// A handshake, which is over.
    Tls(Socket),
    /// A request without TLS; nothing of it was read.
    PlainHttp(TcpStream),
}

/// Why there is no TLS on a connection.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// It has closed without a byte, as health checks of TCP do.
    #[error("the connection was closed at once")]
    Empty,
    /// It ended in the middle.
    #[error("the client ended the connection in its TLS handshake")]
    Closed,
    /// It begins with something else.
    #[error("the first bytes are neither TLS nor HTTP")]
    NotTls,
    /// The client only knows versions before 1.2, whose hello often lacks what 1.2 requires.
    #[error("the client speaks no TLS 1.2 or 1.3")]
    Version,
    /// There is no cipher, group or signature that both know.
    #[error("the client and this node have no parameters of TLS in common: {0:?}")]
    Parameters(PeerIncompatible),
    /// The client wants another protocol than HTTP/1.1.
    #[error("the client does not offer `http/1.1` (ALPN)")]
    Protocol,
    /// The client refuses, most often the certificate.
    #[error(
        "the client refused with the alert {0:?}; if it names a certificate or its authority, look at the chain in `tls.cert_file`"
    )]
    Alert(rustls::AlertDescription),
    /// Its messages break TLS.
    #[error("the handshake breaks TLS: {0}")]
    Malformed(Error),
}

impl HandshakeError {
    /// The `result` label of `roomcast_tls_handshakes_total`.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Closed => "closed",
            Self::NotTls => "not_tls",
            Self::Version => "version",
            Self::Parameters(_) => "parameters",
            Self::Protocol => "alpn",
            Self::Alert(_) => "alert",
            Self::Malformed(_) => "malformed",
        }
    }
}

impl From<io::Error> for HandshakeError {
    fn from(error: io::Error) -> Self {
        error.downcast::<Error>().map_or(Self::Closed, Self::from)
    }
}

impl From<Error> for HandshakeError {
    fn from(error: Error) -> Self {
        use PeerIncompatible::{
            ServerDoesNotSupportTls12Or13, ServerTlsVersionIsDisabledByOurConfig, SignatureAlgorithmsExtensionRequired,
            SupportedVersionsExtensionRequired, Tls12NotOffered, Tls12NotOfferedOrEnabled,
        };
        match error {
            Error::PeerIncompatible(
                ServerDoesNotSupportTls12Or13
                | ServerTlsVersionIsDisabledByOurConfig
                | SignatureAlgorithmsExtensionRequired
                | SupportedVersionsExtensionRequired
                | Tls12NotOffered
                | Tls12NotOfferedOrEnabled,
            ) => Self::Version,
            Error::PeerIncompatible(why) => Self::Parameters(why),
            Error::NoApplicationProtocol => Self::Protocol,
            Error::AlertReceived(alert) => Self::Alert(alert),
            other => Self::Malformed(other),
        }
    }
}

/// Shakes hands with a client that has just connected.
///
/// # Errors
/// Why that is not possible. The client has got an alert where TLS has one.
pub async fn accept(tcp: TcpStream, config: Arc<ServerConfig>) -> Result<Accepted, HandshakeError> {
    let mut first = [0];
    match (tcp.peek(&mut first).await?, first[0]) {
        (0, _) => return Err(HandshakeError::Empty),
        (_, HANDSHAKE) => {}
        (_, byte) if byte.is_ascii_uppercase() => return Ok(Accepted::PlainHttp(tcp)),
        _ => return Err(HandshakeError::NotTls),
    }
    let mut session = Box::new(Mutex::new(TlsSession::new(config)?));
    while session.get_mut().is_handshaking() {
        tcp.readable().await?;
        let read = step(session.get_mut(), &tcp);
        match read {
            Ok(_) if session.get_mut().is_handshaking() => return Err(HandshakeError::Closed),
            // The client has said all that it wants to say, which waits in the session.
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => {
                let _ = session.get_mut().flush(|bytes| tcp.try_write(bytes));
                return Err(error.into());
            }
        }
        while session.get_mut().has_unsent() {
            let flushed = session.get_mut().flush(|bytes| tcp.try_write(bytes));
            match flushed {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => tcp.writable().await?,
                flushed => flushed?,
            }
        }
    }
    Ok(Accepted::Tls(Socket::secure(tcp, session)))
}

fn step(session: &mut TlsSession, tcp: &TcpStream) -> io::Result<usize> {
    // Text that comes right behind the handshake waits in the session.
    with_records(|records| session.read(&mut [], records, |bytes| tcp.try_read(bytes)))
}
