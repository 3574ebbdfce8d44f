//! Opening sockets. Knows no protocol that is spoken on them, but TLS.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;

use crate::address::Address;
use crate::clock::Deadline;
use crate::tls::Trust;
use crate::{Error, Result};

const CONNECTING: Duration = Duration::from_secs(10);

/// A connected socket.
pub(crate) enum Socket {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(UnixStream),
    #[cfg(feature = "tls")]
    Tls(Box<tokio_rustls::client::TlsStream<TcpStream>>),
}

/// Connect, and over TLS agree on the protocol of this name.
///
/// # Errors
/// `UNAVAILABLE` if nobody answers at the address or it is not trusted, `DEADLINE_EXCEEDED` if the deadline passed
/// first; in either case nothing was sent.
pub(crate) async fn connect(
    address: &Address,
    trust: &Trust,
    alpn: &'static [u8],
    deadline: Deadline,
) -> Result<Socket> {
    let attempt = async {
        let opened = tokio::time::timeout(CONNECTING, open(address, trust, alpn)).await;
        opened.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(|error| {
            Error::unavailable(format!("cannot connect to {address}: {}", reasons(&error))).caused_by(error)
        })
    };
    let late = || format!("{address} did not accept a connection in time");
    deadline.limit(attempt, late).await.map_err(Error::unsent)
}

async fn open(address: &Address, trust: &Trust, alpn: &'static [u8]) -> io::Result<Socket> {
    match address {
        #[cfg(unix)]
        Address::Unix { path } => Ok(Socket::Unix(UnixStream::connect(path).await?)),
        #[cfg(not(unix))]
        Address::Unix { .. } => Err(io::Error::other("this system has no Unix sockets")),
        Address::Tcp { host, port, secure, .. } => {
            let stream = TcpStream::connect((host.as_str(), *port)).await?;
            stream.set_nodelay(true)?;
            if *secure { trust.handshake(stream, host, alpn).await } else { Ok(Socket::Tcp(stream)) }
        }
    }
}

/// An error's text and those of its causes, which say more.
pub(crate) fn reasons(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let more = cause.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        next = cause.source();
    }
    text
}

macro_rules! each {
    ($socket:expr, $inner:ident => $do:expr) => {
        match $socket.get_mut() {
            Socket::Tcp($inner) => $do,
            #[cfg(unix)]
            Socket::Unix($inner) => $do,
            #[cfg(feature = "tls")]
            Socket::Tls($inner) => $do,
        }
    };
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        each!(self, inner => Pin::new(inner).poll_read(context, buffer))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        each!(self, inner => Pin::new(inner).poll_write(context, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self, inner => Pin::new(inner).poll_write_vectored(context, slices))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(inner) => inner.is_write_vectored(),
            #[cfg(unix)]
            Self::Unix(inner) => inner.is_write_vectored(),
            #[cfg(feature = "tls")]
            Self::Tls(inner) => inner.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, inner => Pin::new(inner).poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, inner => Pin::new(inner).poll_shutdown(context))
    }
}
