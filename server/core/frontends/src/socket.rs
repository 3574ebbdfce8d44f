//! One stream type for every transport, with the bytes that were read ahead put back.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::Sleep;
use tokio_rustls::server::TlsStream;

use crate::connection::Shared;
use crate::listen::AcceptedStream;
use crate::unix::{Descriptors, UnixSocket};

/// A transport. One enum instead of a type parameter, so that the protocols are compiled once.
pub(crate) enum Transport {
    Tcp(TcpStream),
    Unix(UnixSocket),
    Tls(Box<TlsStream<Socket>>),
}

/// A transport with bytes already read from it in front.
pub(crate) struct Socket {
    ahead: BytesMut,
    transport: Transport,
    write_timeout: Duration,
    /// Runs while the client takes nothing of what is written.
    stalled: Option<Pin<Box<Sleep>>>,
}

/// How much, and for how long, a refused client is listened to.
const LINGER_BYTES: usize = 64 << 20;
const LINGER: Duration = Duration::from_secs(5);

/// Read and throw away what a refused client still sends, once our side of the connection has ended.
///
/// Closing with unread bytes makes the kernel send a reset, which may reach the client before, and
/// instead of, the answer that says why.
pub(crate) async fn linger(input: &mut (impl AsyncRead + Unpin), shared: Rc<Shared>) {
    let passing = async {
        let mut scratch = vec![0; 64 * 1024];
        let mut passed = 0;
        while passed < LINGER_BYTES {
            match input.read(&mut scratch).await {
                Ok(0) | Err(_) => return,
                Ok(read) => passed += read,
            }
        }
    };
    tokio::select! {
        // Late is as good as done: the client was given its time.
        _ = tokio::time::timeout(LINGER, passing) => {}
        () = shared.drained() => {}
    }
}

impl Socket {
    /// Register an accepted connection with this thread's runtime.
    pub(crate) fn open(stream: AcceptedStream, write_timeout: Duration) -> io::Result<Self> {
        let transport = match stream {
            AcceptedStream::Tcp(tcp) => Transport::Tcp(TcpStream::from_std(tcp)?),
            AcceptedStream::Unix(unix) => Transport::Unix(UnixSocket::new(UnixStream::from_std(unix)?)),
        };
        Ok(Self::new(transport, write_timeout))
    }

    /// The stream inside a finished TLS handshake.
    pub(crate) fn tls(stream: TlsStream<Self>) -> Self {
        let write_timeout = stream.get_ref().0.write_timeout;
        Self::new(Transport::Tls(Box::new(stream)), write_timeout)
    }

    fn new(transport: Transport, write_timeout: Duration) -> Self {
        Self { ahead: BytesMut::new(), transport, write_timeout, stalled: None }
    }

    /// Let a write wait no longer than a client may take to read something.
    fn unless_stalled<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let timeout = self.write_timeout;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
        stalled.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }

    /// Where file descriptors that come on it are kept; `None` for what is no Unix socket.
    pub(crate) fn descriptors(&self) -> Option<Descriptors> {
        match &self.transport {
            Transport::Unix(unix) => Some(unix.descriptors()),
            Transport::Tcp(_) | Transport::Tls(_) => None,
        }
    }

    /// What was read ahead so far; reading the socket gives these bytes again.
    pub(crate) fn ahead(&self) -> &[u8] {
        &self.ahead
    }

    /// Read more ahead. Gives the number of new bytes, 0 at the end of the stream.
    pub(crate) async fn read_ahead(&mut self) -> io::Result<usize> {
        let Self { ahead, transport, .. } = self;
        transport.read_buf(ahead).await
    }
}

macro_rules! each_transport {
    ($transport:expr, $stream:ident => $call:expr) => {
        match $transport {
            Transport::Tcp($stream) => $call,
            Transport::Unix($stream) => $call,
            Transport::Tls($stream) => $call,
        }
    };
}

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        each_transport!(self.get_mut(), stream => Pin::new(stream).poll_read(cx, buffer))
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.ahead.is_empty() {
            let taken = this.ahead.len().min(buffer.remaining());
            buffer.put_slice(&this.ahead[..taken]);
            this.ahead.advance(taken);
            if this.ahead.is_empty() {
                this.ahead = BytesMut::new();
            }
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut this.transport).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = each_transport!(&mut this.transport, stream => Pin::new(stream).poll_write(cx, bytes));
        this.unless_stalled(cx, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written =
            each_transport!(&mut this.transport, stream => Pin::new(stream).poll_write_vectored(cx, slices));
        this.unless_stalled(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        each_transport!(&self.transport, stream => stream.is_write_vectored())
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each_transport!(&mut self.get_mut().transport, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each_transport!(&mut self.get_mut().transport, stream => Pin::new(stream).poll_shutdown(cx))
    }
}
