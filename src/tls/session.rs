//! The TLS state of one connection (sans-IO): the socket is a closure. An idle session holds no buffer.

use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, UnbufferedStatus};
use rustls::{Error, ServerConfig};
use std::io;
use std::sync::Arc;

/// Bytes of a buffer that [`TlsSession::read`] and [`TlsSession::write`] work in.
pub(super) const SCRATCH: usize = 64 << 10;
/// Bytes of text in one record (RFC 8446 section 5.1).
const MAX_FRAGMENT: usize = 16 << 10;
/// Bytes of records that are not whole: one of the longest, with its header. Longer handshakes are refused.
const MAX_HELD: usize = MAX_FRAGMENT + 2_048 + 5;
/// Bytes that are asked of the socket at least: a reader with less room gets the rest of a record later.
const MIN_READ: usize = 4 << 10;

/// One connection's side of TLS.
pub(super) struct TlsSession {
    connection: UnbufferedServerConnection,
    /// The start of a record whose end has not come.
    incoming: Vec<u8>,
    /// Text that nobody has taken yet, and how much of it was taken.
    plain: (Vec<u8>, usize),
    /// Records that the socket did not take, and how much of them it took.
    outgoing: (Vec<u8>, usize),
    /// The client has ended its side, or its socket has.
    ended: bool,
    /// Our side has ended. rustls is not asked again then: it asserts that an alert is its last.
    closed: bool,
}

impl TlsSession {
    /// A handshake begins.
    pub(super) fn new(config: Arc<ServerConfig>) -> Result<Self, Error> {
        let connection = UnbufferedServerConnection::new(config)?;
        let (incoming, plain, outgoing) = (Vec::new(), (Vec::new(), 0), (Vec::new(), 0));
        Ok(Self { connection, incoming, plain, outgoing, ended: false, closed: false })
    }

    /// Whether neither side may send text yet.
    pub(super) fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// Whether [`Self::read`] has something without the socket: text, or the end.
    pub(super) fn is_readable(&self) -> bool {
        self.plain.1 < self.plain.0.len() || self.ended
    }

    /// Whether the socket has not taken all that was written.
    pub(super) fn has_unsent(&self) -> bool {
        self.outgoing.1 < self.outgoing.0.len()
    }

    /// Reads from the socket once; 0 is the end. `WouldBlock` says that there is no text yet, though the socket may have
    /// more. `scratch` has [`SCRATCH`] bytes.
    ///
    /// # Errors
    /// Those of the socket, and `InvalidData` with the [`Error`] of a client that breaks the protocol; the alert that it is to
    /// get waits to be flushed then.
    pub(super) fn read(
        &mut self,
        out: &mut [u8],
        scratch: &mut [u8],
        socket: impl FnOnce(&mut [u8]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        if self.plain.1 < self.plain.0.len() {
            return Ok(self.take(out));
        }
        if self.ended {
            return Ok(0);
        }
        let held = self.incoming.len();
        let room = out.len().max(MIN_READ).min(scratch.len() - held);
        let count = socket(&mut scratch[held..held + room])?;
        if count == 0 {
            self.ended = true;
            return Ok(0);
        }
        if self.closed {
            // Nobody wants to know, except when it ends.
            return Err(io::ErrorKind::WouldBlock.into());
        }
        scratch[..held].copy_from_slice(&self.incoming);
        match self.process(&mut scratch[..held + count], out) {
            Ok(0) if !self.ended => Err(io::ErrorKind::WouldBlock.into()),
            Ok(filled) => Ok(filled),
            Err(error) => {
                // An alert ends both.
                (self.ended, self.closed) = (true, true);
                Err(invalid(error))
            }
        }
    }

    fn take(&mut self, out: &mut [u8]) -> usize {
        let (plain, taken) = (&mut self.plain.0, &mut self.plain.1);
        let count = out.len().min(plain.len() - *taken);
        out[..count].copy_from_slice(&plain[*taken..*taken + count]);
        *taken += count;
        if *taken == plain.len() {
            self.plain = (Vec::new(), 0);
        }
        count
    }

    /// Takes all whole records. The text that `out` has no room for waits, as does the start of the next record.
    fn process(&mut self, records: &mut [u8], out: &mut [u8]) -> Result<usize, Error> {
        let (mut start, mut filled) = (0, 0);
        let result = loop {
            let UnbufferedStatus { mut discard, state } = self.connection.process_tls_records(&mut records[start..]);
            let mut is_done = false;
            let step = match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(Ok(record)) = traffic.next_record() {
                        discard += record.discard;
                        let (now, later) = record.payload.split_at(record.payload.len().min(out.len() - filled));
                        out[filled..filled + now.len()].copy_from_slice(now);
                        filled += now.len();
                        self.plain.0.extend_from_slice(later);
                    }
                    Ok(())
                }
                Ok(ConnectionState::EncodeTlsData(data)) => encode(data, &mut self.outgoing.0),
                Ok(ConnectionState::TransmitTlsData(data)) => {
                    data.done();
                    Ok(())
                }
                Ok(ConnectionState::PeerClosed) => {
                    self.ended = true;
                    Ok(())
                }
                Ok(_) => {
                    is_done = true;
                    Ok(())
                }
                Err(error) => Err(error),
            };
            start += discard;
            if is_done || step.is_err() {
                break step;
            }
        };
        let rest = &mut records[start..];
        while result.is_err() && self.connection.wants_write() {
            match self.connection.process_tls_records(rest).state {
                Ok(ConnectionState::EncodeTlsData(data)) => encode(data, &mut self.outgoing.0)?,
                _ => break,
            }
        }
        result?;
        if rest.len() > MAX_HELD {
            return Err(Error::PeerSentOversizedRecord);
        }
        self.incoming = if self.ended { Vec::new() } else { rest.to_vec() };
        Ok(filled)
    }

    /// Writes as much as the socket takes. What this answers counts as written: the socket may not have the last record whole,
    /// so that [`Self::flush`] is to be called when it has room. `scratch` has [`SCRATCH`] bytes.
    ///
    /// # Errors
    /// `WouldBlock` while an earlier record waits, and those of the socket.
    pub(super) fn write(
        &mut self,
        bytes: &[u8],
        scratch: &mut [u8],
        mut socket: impl FnMut(&[u8]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        self.flush(&mut socket)?;
        let mut taken = 0;
        for text in bytes.chunks(MAX_FRAGMENT) {
            let length = self.encrypt(Some(text), scratch)?;
            taken += text.len();
            if !self.send(&scratch[..length], &mut socket)? {
                break;
            }
        }
        Ok(taken)
    }

    /// Sends what waits.
    ///
    /// # Errors
    /// `WouldBlock` if something still waits, and those of the socket.
    pub(super) fn flush(&mut self, mut socket: impl FnMut(&[u8]) -> io::Result<usize>) -> io::Result<()> {
        while self.has_unsent() {
            match socket(&self.outgoing.0[self.outgoing.1..])? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                count => self.outgoing.1 += count,
            }
        }
        if !self.outgoing.0.is_empty() {
            self.outgoing = (Vec::new(), 0);
        }
        Ok(())
    }

    /// Tells the client that no text follows, if the socket takes that now.
    pub(super) fn close(&mut self, scratch: &mut [u8], mut socket: impl FnMut(&[u8]) -> io::Result<usize>) {
        if self.flush(&mut socket).is_ok()
            && !self.is_handshaking()
            && let Ok(length) = self.encrypt(None, scratch)
        {
            self.closed = true;
            let _ = self.send(&scratch[..length], &mut socket);
        }
    }

    /// Makes a record of a text, or without one the end of all text.
    fn encrypt(&mut self, text: Option<&[u8]>, scratch: &mut [u8]) -> io::Result<usize> {
        if self.closed {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let mut length = 0;
        loop {
            // With what is held: the state of the reading side belongs to it.
            let UnbufferedStatus { discard, state } = self.connection.process_tls_records(&mut self.incoming);
            if state.is_err() {
                (self.ended, self.closed) = (true, true);
            }
            match state.map_err(invalid)? {
                ConnectionState::WriteTraffic(mut traffic) => {
                    let record = match text {
                        Some(text) => traffic.encrypt(text, &mut scratch[length..]),
                        None => traffic.queue_close_notify(&mut scratch[length..]),
                    };
                    return record.map(|record| length + record).map_err(io::Error::other);
                }
                ConnectionState::EncodeTlsData(mut data) => {
                    length += data.encode(&mut scratch[length..]).map_err(io::Error::other)?;
                }
                ConnectionState::TransmitTlsData(data) => data.done(),
                ConnectionState::PeerClosed => self.ended = true,
                _ => return Err(io::ErrorKind::BrokenPipe.into()),
            }
            self.incoming.drain(..discard);
        }
    }

    /// Whether the socket took all of it; the rest waits.
    fn send(&mut self, records: &[u8], socket: &mut impl FnMut(&[u8]) -> io::Result<usize>) -> io::Result<bool> {
        let sent = match socket(records) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            sent => sent?,
        };
        if sent < records.len() {
            self.outgoing = (records[sent..].to_vec(), 0);
        }
        Ok(sent == records.len())
    }
}

fn encode<Data>(mut data: EncodeTlsData<'_, Data>, outgoing: &mut Vec<u8>) -> Result<(), Error> {
    let before = outgoing.len();
    // The first try is to learn the length.
    if let Err(EncodeError::InsufficientSize(size)) = data.encode(&mut []) {
        outgoing.resize(before + size.required_size, 0);
        data.encode(&mut outgoing[before..]).map_err(|error| Error::General(error.to_string()))?;
    }
    Ok(())
}

fn invalid(error: Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests;
