//! One stream type for every transport, with the bytes that were read ahead put back.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::server::TlsStream;

use crate::listen::AcceptedStream;

/// A transport. One enum instead of a type parameter, so that the protocols are compiled once.
pub(crate) enum Transport {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<TlsStream<Socket>>),
}

/// A transport with bytes already read from it in front.
pub(crate) struct Socket {
    ahead: BytesMut,
    transport: Transport,
}

impl Socket {
    /// Register an accepted connection with this thread's runtime.
    pub(crate) fn open(stream: AcceptedStream) -> io::Result<Self> {
        let transport = match stream {
            AcceptedStream::Tcp(tcp) => Transport::Tcp(TcpStream::from_std(tcp)?),
            AcceptedStream::Unix(unix) => Transport::Unix(UnixStream::from_std(unix)?),
        };
        Ok(Self { ahead: BytesMut::new(), transport })
    }

    /// The stream inside a finished TLS handshake.
    pub(crate) fn tls(stream: TlsStream<Self>) -> Self {
        Self { ahead: BytesMut::new(), transport: Transport::Tls(Box::new(stream)) }
    }

    /// What was read ahead so far; reading the socket gives these bytes again.
    pub(crate) fn ahead(&self) -> &[u8] {
        &self.ahead
    }

    /// Read more ahead. Gives the number of new bytes, 0 at the end of the stream.
    pub(crate) async fn read_ahead(&mut self) -> io::Result<usize> {
        let Self { ahead, transport } = self;
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
        each_transport!(&mut self.get_mut().transport, stream => Pin::new(stream).poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each_transport!(&mut self.get_mut().transport, stream => Pin::new(stream).poll_write_vectored(cx, slices))
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
