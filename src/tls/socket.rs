//! A client's socket, plain or with TLS. Both are read and written without waiting; to wait, one asks for readiness.

use crate::tls::session::{SCRATCH, TlsSession};
use parking_lot::Mutex;
use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::net::{Shutdown, TcpStream as StdStream};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

thread_local! {
    /// Where records are decrypted and encrypted. Sessions keep only what is not whole.
    static RECORDS: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH].into());
}

/// Runs `act` with this thread's buffer. `act` must not ask for it again.
pub(super) fn with_records<T>(act: impl FnOnce(&mut [u8]) -> T) -> T {
    RECORDS.with_borrow_mut(|records| act(records))
}

/// A client's socket.
pub struct Socket {
    tcp: TcpStream,
    tls: Option<Box<Mutex<TlsSession>>>,
}

/// A socket between two threads.
pub struct Detached {
    tcp: StdStream,
    tls: Option<Box<Mutex<TlsSession>>>,
}

impl Detached {
    /// Goes on with it on this thread.
    ///
    /// # Errors
    /// When it cannot be registered.
    pub fn attach(self) -> io::Result<Socket> {
        Ok(Socket { tcp: TcpStream::from_std(self.tcp)?, tls: self.tls })
    }
}

impl Socket {
    /// A socket without TLS.
    pub fn plain(tcp: TcpStream) -> Self {
        Self { tcp, tls: None }
    }

    pub(super) fn secure(tcp: TcpStream, session: Box<Mutex<TlsSession>>) -> Self {
        Self { tcp, tls: Some(session) }
    }

    /// Takes it off this thread.
    ///
    /// # Errors
    /// When it cannot be unregistered.
    pub fn detach(self) -> io::Result<Detached> {
        Ok(Detached { tcp: self.tcp.into_std()?, tls: self.tls })
    }

    /// Reads what is there; 0 is the end.
    ///
    /// # Errors
    /// `WouldBlock` where nothing is there yet, or only a part of a record.
    pub fn try_read(&self, out: &mut [u8]) -> io::Result<usize> {
        let Some(tls) = &self.tls else { return self.read_wire(out) };
        let mut session = tls.lock();
        let read = with_records(|records| session.read(out, records, |bytes| self.read_wire(bytes)));
        if session.has_unsent() {
            // An answer of TLS itself. What the socket does not take goes before the next text.
            let _ = session.flush(|bytes| self.tcp.try_write(bytes));
        }
        read
    }

    /// A socket that gave less than there was room for is empty: the next read waits for the kernel's word, which saves a
    /// system call for each message. tokio remembers the end of the stream apart from that.
    fn read_wire(&self, out: &mut [u8]) -> io::Result<usize> {
        let count = self.tcp.try_read(out)?;
        if (1..out.len()).contains(&count) {
            let _ = self.tcp.try_io(Interest::READABLE, || Err::<(), _>(io::ErrorKind::WouldBlock.into()));
        }
        Ok(count)
    }

    /// Writes as much as the socket takes. With TLS the last of it may still wait: see [`Self::try_flush`].
    ///
    /// # Errors
    /// `WouldBlock` where the socket is full.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        let Some(tls) = &self.tls else { return self.tcp.try_write(bytes) };
        let mut session = tls.lock();
        with_records(|records| session.write(bytes, records, |bytes| self.tcp.try_write(bytes)))
    }

    /// Sends what waits of earlier writes.
    ///
    /// # Errors
    /// `WouldBlock` where some of it still waits.
    pub fn try_flush(&self) -> io::Result<()> {
        let Some(tls) = &self.tls else { return Ok(()) };
        tls.lock().flush(|bytes| self.tcp.try_write(bytes))
    }

    /// Whether something waits of earlier writes.
    pub fn has_unsent(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.lock().has_unsent())
    }

    /// Whether [`Self::try_read`] may have something.
    pub fn poll_read_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &self.tls {
            Some(tls) if tls.lock().is_readable() => Poll::Ready(Ok(())),
            _ => self.tcp.poll_read_ready(context),
        }
    }

    /// Whether the socket may have room.
    pub fn poll_write_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.tcp.poll_write_ready(context)
    }

    /// Waits until [`Self::try_read`] may have something.
    ///
    /// # Errors
    /// When the socket is broken.
    pub async fn readable(&self) -> io::Result<()> {
        poll_fn(|context| self.poll_read_ready(context)).await
    }

    /// Writes everything, as far as the socket takes it, and takes off `bytes` what is written.
    ///
    /// # Errors
    /// `WouldBlock` where something still waits.
    pub fn try_send(&self, bytes: &mut &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let count = self.try_write(bytes)?;
            *bytes = &bytes[count..];
        }
        self.try_flush()
    }

    /// Waits until the socket may have room.
    ///
    /// # Errors
    /// When the socket is broken.
    pub async fn writable(&self) -> io::Result<()> {
        self.tcp.writable().await
    }

    /// Writes everything, and waits until the socket has it.
    ///
    /// # Errors
    /// When the socket is broken.
    pub async fn send(&self, mut bytes: &[u8]) -> io::Result<()> {
        loop {
            match self.try_send(&mut bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable().await?,
                sent => return sent,
            }
        }
    }

    /// Tells a client of TLS that nothing follows, if its socket takes that now. Others see it from the socket's end.
    pub fn say_end(&self) {
        if let Some(tls) = &self.tls {
            with_records(|records| tls.lock().close(records, |bytes| self.tcp.try_write(bytes)));
        }
    }

    /// Ends our side: nothing is written any more.
    ///
    /// # Errors
    /// When the client has gone.
    pub fn end(&self) -> io::Result<()> {
        self.say_end();
        socket2::SockRef::from(&self.tcp).shutdown(Shutdown::Write)
    }

    /// The bytes on the wire, for whoever throws them away.
    pub fn wire(&self) -> &TcpStream {
        &self.tcp
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.tls.is_none() {
            return Pin::new(&mut self.tcp).poll_read(context, buffer);
        }
        loop {
            ready!(self.poll_read_ready(context))?;
            match self.try_read(buffer.initialize_unfilled()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return Poll::Ready(read.map(|count| buffer.advance(count))),
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.tls.is_none() {
            return Pin::new(&mut self.tcp).poll_write(context, bytes);
        }
        loop {
            match self.try_write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(self.poll_write_ready(context))?,
                written => return Poll::Ready(written),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match self.try_flush() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(self.poll_write_ready(context))?,
                flushed => return Poll::Ready(flushed),
            }
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_mut().poll_flush(context))?;
        self.say_end();
        Pin::new(&mut self.tcp).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.tls.is_none()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.tls.is_none() {
            return Pin::new(&mut self.tcp).poll_write_vectored(context, slices);
        }
        let first = slices.iter().find(|slice| !slice.is_empty());
        self.poll_write(context, first.map_or(&[], |slice| slice))
    }
}
