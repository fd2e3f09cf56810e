//! Closing a connection whose client may still be sending: a body that was refused before it was read, or a head that
//! was too long. A socket that is closed with unread bytes resets the connection, and the reset overtakes the answer.
//! So the answer is sent with the end of our side, and what the client still sends is thrown away for a while.

use crate::node::context::LocalNode;
use crate::tls::Socket;
use std::io::ErrorKind;
use std::time::Duration;
use tokio::net::TcpStream;

/// Bytes that are thrown away at most: a few times the default `publish.max_body`.
const MAX_BYTES: usize = 256 << 20;
/// How long that may take.
const MAX_TIME: Duration = Duration::from_secs(30);
/// How long the client may pause.
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// Ends a connection after its last answer was written.
pub(super) async fn close(local: &LocalNode, stream: Socket) {
    if stream.end().is_ok() {
        // After that time the client gets a reset.
        let _ = tokio::time::timeout(MAX_TIME, discard(local, stream.wire())).await;
    }
}

/// Reads until the client closes, pauses for too long or sends too much.
async fn discard(local: &LocalNode, stream: &TcpStream) {
    let mut left = MAX_BYTES;
    while left > 0 {
        let Ok(Ok(())) = tokio::time::timeout(MAX_PAUSE, stream.readable()).await else { return };
        match local.shard.with_read_buffer(|buffer| stream.try_read(buffer)) {
            Ok(0) => return,
            Ok(count) => left = left.saturating_sub(count),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(_) => return,
        }
    }
}
