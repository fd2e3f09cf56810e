//! Bound addresses, and the connections that come in on them.

use crate::http::caller::ListenerKind;
use crate::http::config::ListenAddress;
use crate::unix_socket;
use crate::unix_socket::SocketFile;
use socket2::Domain;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener as StdListener};
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::Path;
use std::task::{Context, Poll, ready};
use tokio::net::{TcpListener, TcpStream, UnixListener};

/// Connections that wait in the kernel to be accepted.
const BACKLOG: i32 = 4_096;
/// Errors of a machine without IPv6: the address family is not known, or has no address.
const NO_IPV6: [i32; 2] = [97, 99];

/// A bound address: a socket for each shard. The kernel spreads connections among them, so that no connection has to
/// change threads.
pub struct Listener {
    pub(super) sockets: Vec<Bound>,
    address: Option<SocketAddr>,
    pub(super) kind: ListenerKind,
}

/// One socket that nobody accepts on yet.
pub(super) enum Bound {
    Tcp(StdListener),
    Unix(StdUnixListener, SocketFile),
}

impl Listener {
    /// Binds an address, once for each of `shards`.
    ///
    /// # Errors
    /// The operating system's, such as an address in use.
    pub fn bind(address: SocketAddr, kind: ListenerKind, shards: usize) -> io::Result<Self> {
        // Sockets that share their port would share it with another roomcast too. One that does not share finds out.
        let address = match socket(address, false) {
            Err(error) if is_any_ipv6(address) && error.raw_os_error().is_some_and(|code| NO_IPV6.contains(&code)) => {
                tracing::warn!(%address, "this machine has no IPv6: listening on IPv4 alone");
                let ipv4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()));
                socket(ipv4, false)?;
                ipv4
            }
            bound => bound.map(|_| address)?,
        };
        let first = socket(address, true)?;
        let address = first.local_addr()?;
        let others = (1..shards).map(|_| socket(address, true).map(Bound::Tcp));
        let sockets = std::iter::once(Ok(Bound::Tcp(first))).chain(others).collect::<io::Result<_>>()?;
        Ok(Self { sockets, address: Some(address), kind })
    }

    /// Binds what operators use: an address, or a Unix socket with the rights of `mode`, which one shard serves.
    ///
    /// # Errors
    /// As [`Self::bind`].
    pub fn bind_admin(address: &ListenAddress, mode: u32, shards: usize) -> io::Result<Self> {
        match address {
            ListenAddress::Tcp(address) => Self::bind(*address, ListenerKind::Admin, shards),
            ListenAddress::Unix(path) => Self::bind_unix(path, mode),
        }
    }

    fn bind_unix(path: &Path, mode: u32) -> io::Result<Self> {
        let (listener, file) = unix_socket::listen(path, mode)?;
        Ok(Self { sockets: vec![Bound::Unix(listener, file)], address: None, kind: ListenerKind::Admin })
    }

    /// The address it is bound to; `None` for a Unix socket.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }
}

fn is_any_ipv6(address: SocketAddr) -> bool {
    address.is_ipv6() && address.ip().is_unspecified()
}

fn socket(address: SocketAddr, shared: bool) -> io::Result<StdListener> {
    let socket = socket2::Socket::new(Domain::for_address(address), socket2::Type::STREAM, None)?;
    if is_any_ipv6(address) {
        // Whatever the machine's default is, [::] takes IPv4 too.
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.set_nonblocking(true)?;
    // Accepted sockets inherit it, which saves a system call each.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// One socket on its shard.
pub(super) enum Connections {
    Tcp(TcpListener),
    /// Its file is removed with it.
    Unix {
        socket: UnixListener,
        _file: SocketFile,
    },
}

impl Connections {
    /// Registers it on this thread.
    pub(super) fn open(bound: Bound) -> io::Result<Self> {
        Ok(match bound {
            Bound::Tcp(socket) => Self::Tcp(TcpListener::from_std(socket)?),
            Bound::Unix(socket, file) => Self::Unix { socket: UnixListener::from_std(socket)?, _file: file },
        })
    }

    /// Whether only processes of this machine reach it.
    pub(super) fn is_unix(&self) -> bool {
        matches!(self, Self::Unix { .. })
    }

    /// The next connection, and who has opened it: at a Unix socket, this machine.
    pub(super) fn poll_accept(&self, context: &mut Context<'_>) -> Poll<io::Result<(TcpStream, IpAddr)>> {
        match self {
            // On a socket for both, IPv4 clients have addresses that are written as IPv6.
            Self::Tcp(socket) => {
                socket.poll_accept(context).map_ok(|(stream, peer)| (stream, peer.ip().to_canonical()))
            }
            Self::Unix { socket, .. } => {
                let (stream, _) = ready!(socket.poll_accept(context))?;
                Poll::Ready(unix_socket::as_tcp(stream).map(|stream| (stream, Ipv4Addr::LOCALHOST.into())))
            }
        }
    }
}
