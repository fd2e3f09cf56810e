//! Reads the header that a proxy writes before the bytes of its client (`http.proxy_protocol`), and not a byte more.

use crate::protocol::proxy_header::{MAX_HEADER, ProxyHeaderError, parse};
use std::io;
use std::net::IpAddr;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// Why a connection has no header.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoHeader {
    /// It has closed without a byte, as health checks of TCP do.
    #[error("the connection was closed at once")]
    Empty,
    /// Its first bytes are others.
    #[error(transparent)]
    Bad(#[from] ProxyHeaderError),
    /// It is not whole within `http.head_timeout`.
    #[error("no whole header of the PROXY protocol came within `http.head_timeout`")]
    Late,
    /// The connection broke, or ended within it.
    #[error("the connection ended before its header of the PROXY protocol: {0}")]
    Broken(#[from] io::Error),
}

/// The client's address; `None` if the connection is the proxy's own.
pub(super) async fn read(stream: &mut TcpStream, timeout: Duration) -> Result<Option<IpAddr>, NoHeader> {
    tokio::time::timeout(timeout, read_whole(stream)).await.unwrap_or(Err(NoHeader::Late))
}

async fn read_whole(stream: &mut TcpStream) -> Result<Option<IpAddr>, NoHeader> {
    let (mut bytes, mut had) = (vec![0; MAX_HEADER], 0);
    loop {
        // Only looked at: what follows the header is left to whoever speaks HTTP.
        let seen = stream.peek(&mut bytes[had..]).await?;
        if seen == 0 {
            return Err(if had == 0 { NoHeader::Empty } else { io::Error::from(io::ErrorKind::UnexpectedEof).into() });
        }
        let header = parse(&bytes[..had + seen])?;
        let end = header.map_or(had + seen, |header| header.length);
        stream.read_exact(&mut bytes[had..end]).await?;
        if let Some(header) = header {
            return Ok(header.source);
        }
        had = end;
    }
}
