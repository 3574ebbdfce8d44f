//! Frames straight over TCP or a Unix socket.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use kingpole_wire::Scatter;
use kingpole_wire::frame::{FrameReader, encode_cancel};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc::WeakUnboundedSender;
use tokio::time::timeout;

use crate::connect::Socket;
use crate::conversation::{Conversation, Ends, next_to_send};
use crate::exchanges::Exchanges;
use crate::outgoing::Outgoing;
use crate::{Error, Result};

/// A peer that takes nothing at all for so long has stopped reading.
pub(crate) const STALLED: Duration = Duration::from_secs(30);
/// Room for several small frames in one system call.
const READ_BYTES: usize = 16 * 1024;

/// Speak on a connected socket.
pub(crate) fn converse(socket: Socket, name: String, limit: usize) -> Conversation {
    let (mut conversation, ends) = Conversation::new();
    let reader = match socket {
        Socket::Tcp(stream) => {
            let (read, write) = stream.into_split();
            start(read, write, ends, name, limit)
        }
        #[cfg(unix)]
        Socket::Unix(stream) => {
            let (read, write) = stream.into_split();
            start(read, write, ends, name, limit)
        }
        #[cfg(feature = "tls")]
        Socket::Tls(stream) => {
            let (read, write) = tokio::io::split(*stream);
            start(read, write, ends, name, limit)
        }
    };
    conversation.read_by(reader);
    conversation
}

fn start(
    mut read: impl AsyncRead + Unpin + Send + 'static,
    mut write: impl AsyncWrite + Unpin + Send + 'static,
    ends: Ends,
    name: String,
    limit: usize,
) -> tokio::task::AbortHandle {
    let Ends { exchanges, mut outbox, cancel } = ends;
    let (failed, written_to) = (Arc::clone(&exchanges), name.clone());
    tokio::spawn(async move {
        while let Some(outgoing) = next_to_send(&mut outbox).await {
            if let Err(error) = write_all(&mut write, outgoing, &written_to).await {
                failed.fail(&error);
                return;
            }
        }
        // Nobody asks any more. The other end may be gone already.
        let _ = write.shutdown().await;
    });
    let reading = async move {
        let mut reader = FrameReader::new(limit);
        let error = loop {
            match read_more(&mut read, &mut reader, &name).await {
                Ok(true) => {}
                Ok(false) => break Error::unavailable(format!("{name} closed the connection")),
                Err(error) => break error,
            }
            if let Err(error) = hand_out(&mut reader, &exchanges, &cancel) {
                break error;
            }
        };
        exchanges.fail(&error);
    };
    tokio::spawn(reading).abort_handle()
}

/// Give every whole frame to whoever waits for it, and cancel what nobody wants any more.
pub(crate) fn hand_out(
    reader: &mut FrameReader,
    exchanges: &Exchanges,
    cancel: &WeakUnboundedSender<Scatter>,
) -> Result<()> {
    let mut unwanted = Vec::new();
    while let Some(frame) = reader.next_frame_bytes().map_err(Error::unreadable)? {
        unwanted.extend(exchanges.answer(&frame)?);
    }
    for exchange in unwanted {
        // Without a sender the conversation is over, and all of its exchanges with it.
        let Some(cancel) = cancel.upgrade() else { break };
        let _ = cancel.send(encode_cancel(exchange));
    }
    Ok(())
}

/// Write everything.
///
/// # Errors
/// `UNAVAILABLE` if the connection breaks or nothing moves for too long.
async fn write_all(write: &mut (impl AsyncWrite + Unpin), mut outgoing: Outgoing, name: &str) -> Result<()> {
    use bytes::Buf;
    while outgoing.has_remaining() {
        match timeout(STALLED, write.write_buf(&mut outgoing)).await {
            Ok(Ok(0)) => return Err(Error::unavailable(format!("{name} takes nothing more"))),
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(broken(name, error)),
            Err(_) => return Err(Error::unavailable(format!("{name} stopped reading"))),
        }
    }
    Ok(())
}

pub(crate) fn broken(name: &str, error: std::io::Error) -> Error {
    Error::unavailable(format!("the connection to {name} broke: {error}")).caused_by(error)
}

async fn read_more(
    read: &mut (impl AsyncRead + Unpin),
    reader: &mut FrameReader,
    name: &str,
) -> Result<bool> {
    std::future::poll_fn(|context| poll_more(read, context, reader, name)).await
}

/// Receive into the reader; whether there was something.
fn poll_more(
    read: &mut (impl AsyncRead + Unpin),
    context: &mut Context<'_>,
    reader: &mut FrameReader,
    name: &str,
) -> Poll<Result<bool>> {
    let buffer = reader.buffer();
    if buffer.capacity() - buffer.len() < READ_BYTES / 4 {
        buffer.reserve(READ_BYTES);
    }
    tokio_util::io::poll_read_buf(std::pin::Pin::new(read), context, buffer)
        .map(|read| read.map(|nbytes| nbytes > 0).map_err(|error| broken(name, error)))
}

/// The frames that answer one request, on a socket of their own.
pub(crate) struct FrameSource {
    socket: Socket,
    name: String,
}

impl FrameSource {
    /// Send a request on a new socket.
    pub(crate) async fn open(mut socket: Socket, request: Scatter, name: String) -> Result<Self> {
        write_all(&mut socket, request.into(), &name).await?;
        Ok(Self { socket, name })
    }

    /// Receive into the reader; whether there was something.
    pub(crate) fn poll_more(
        &mut self,
        context: &mut Context<'_>,
        reader: &mut FrameReader,
    ) -> Poll<Result<bool>> {
        poll_more(&mut self.socket, context, reader, &self.name)
    }
}
