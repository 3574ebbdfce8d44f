//! HTTP/2 connections. gRPC inference is answered here without a task of its own per request.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::server::{self, SendResponse};
use h2::{Ping, PingPong, Reason, RecvStream, SendStream};
use http::{Method, Request, Response, header};
use tokio::time::Sleep;

use crate::body::Source;
use crate::connection::Shared;
use crate::message::{HttpRequest, HttpResponse};
use crate::socket::Socket;
use crate::staged::Staged;
use crate::streamed::Streamed;
use crate::{grpc, rest};

const MAX_STREAMS: u32 = 1024;
const MAX_FRAME_BYTES: usize = 1 << 20;
/// The least that HTTP/2 allows.
const MIN_FRAME_BYTES: usize = 16 << 10;
/// What a client may send on a stream that is not read.
pub(crate) const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
const MAX_HEADER_BYTES: u32 = 16 << 10;
const MAX_SEND_BUFFER_BYTES: usize = 1 << 20;
/// Streams that a client may reset before we have taken them: bounds CVE-2023-44487, "rapid reset".
const MAX_PENDING_RESETS: usize = 128;

/// How long a client without open streams may take to acknowledge that the server drains.
const FAREWELL: Duration = Duration::from_secs(1);

/// Serve one connection until it ends or the server drains.
pub(crate) async fn serve(socket: Socket, shared: Rc<Shared>, others: usize) {
    let max_frame_bytes = frame_bytes(shared.configuration.memory.limit_bytes(), others);
    let handshake = server::Builder::new()
        .max_concurrent_streams(MAX_STREAMS)
        .max_frame_size(max_frame_bytes)
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_header_list_size(MAX_HEADER_BYTES)
        .max_send_buffer_size(MAX_SEND_BUFFER_BYTES)
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .handshake::<_, Bytes>(Staged::new(socket, Rc::clone(&shared.blocks)));
    let Ok(Ok(mut connection)) = tokio::time::timeout(shared.configuration.header_timeout, handshake).await
    else {
        return;
    };
    let mut keepalive =
        connection.ping_pong().map(|pings| Keepalive::new(pings, shared.configuration.ping_interval));
    let mut drained = std::pin::pin!(Rc::clone(&shared).drained());
    let mut farewell = None;
    std::future::poll_fn(|cx| {
        loop {
            while let Poll::Ready(accepted) = connection.poll_accept(cx) {
                // A connection that fails takes its requests with it: their responders see the reset.
                let Some(Ok((request, respond))) = accepted else { return Poll::Ready(()) };
                dispatch(cx, &shared, request, respond);
            }
            let dead = keepalive.as_mut().is_some_and(|alive| alive.is_dead(cx, connection.has_streams()));
            if dead {
                return Poll::Ready(());
            }
            if let Some(farewell) = &mut farewell {
                // The connection wakes up when its last stream ends, so that this sees it then.
                let farewell: &mut Pin<Box<Sleep>> = farewell;
                let late = farewell.is_elapsed() || farewell.as_mut().poll(cx).is_ready();
                let finished = late && !connection.has_streams();
                if !finished {
                    return Poll::Pending;
                }
                // What is on its way to the socket still goes; a client that takes nothing is left by a time limit.
                connection.abrupt_shutdown(Reason::NO_ERROR);
                return connection.poll_closed(cx).map(|_| ());
            }
            if drained.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            connection.graceful_shutdown();
            farewell = Some(Box::pin(tokio::time::sleep(FAREWELL)));
        }
    })
    .await;
}

/// How long a frame may be on a connection beside so many others.
///
/// A frame is kept out of our sight until it is whole. Falling with the square of their number, the frames of
/// all connections have a sum, which is kept to a quarter of the memory set aside (docs/adr/0011).
fn frame_bytes(limit_bytes: usize, others: usize) -> u32 {
    let at_most = (limit_bytes / 8 / MAX_FRAME_BYTES).max(1);
    let share = others.div_ceil(at_most).max(1);
    let bytes = (MAX_FRAME_BYTES / share.saturating_mul(share)).max(MIN_FRAME_BYTES);
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// Asks the client of a connection with open streams, now and then, whether it is still there. TCP's own
/// keepalive cannot see a client that hangs, nor one behind a proxy.
struct Keepalive {
    pings: PingPong,
    interval: Duration,
    next: Pin<Box<Sleep>>,
    unanswered: bool,
}

impl Keepalive {
    fn new(pings: PingPong, interval: Duration) -> Self {
        Self { pings, interval, next: Box::pin(tokio::time::sleep(interval)), unanswered: false }
    }

    /// True once a ping was not answered until the next was due.
    fn is_dead(&mut self, cx: &mut Context<'_>, has_streams: bool) -> bool {
        while self.next.as_mut().poll(cx).is_ready() {
            if self.unanswered {
                return true;
            }
            // A ping that cannot be sent belongs to a connection that is ending.
            self.unanswered = has_streams && self.pings.send_ping(Ping::opaque()).is_ok();
            self.next.as_mut().reset(tokio::time::Instant::now() + self.interval);
        }
        if self.unanswered && self.pings.poll_pong(cx).is_ready() {
            self.unanswered = false;
        }
        false
    }
}

fn dispatch(
    cx: &mut Context<'_>,
    shared: &Rc<Shared>,
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
) {
    let received = Instant::now();
    let (parts, body) = request.into_parts();
    let body = Source::Http2(body);
    let content_type = parts.headers.get(header::CONTENT_TYPE);
    if content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc")) {
        grpc::serve(cx, shared, &parts, body, respond, received);
        return;
    }
    let head_only = parts.method == Method::HEAD;
    let request =
        HttpRequest { method: parts.method, uri: parts.uri, headers: parts.headers, body, received };
    let shared = Rc::clone(shared);
    tokio::task::spawn_local(async move {
        let mut respond = respond;
        let route = std::pin::pin!(rest::route(request, &shared));
        if let Some(answered) = unless_reset(route, &mut respond).await {
            send(respond, answered, head_only).await;
        }
    });
}

/// Drive `future`, giving it up when the client resets the stream or leaves.
pub(crate) async fn unless_reset<F: Future + Unpin>(
    mut future: F,
    respond: &mut SendResponse<Bytes>,
) -> Option<F::Output> {
    std::future::poll_fn(|cx| {
        if let Poll::Ready(output) = Pin::new(&mut future).poll(cx) {
            return Poll::Ready(Some(output));
        }
        respond.poll_reset(cx).map(|_| None)
    })
    .await
}

/// The client has gone.
pub(crate) struct Gone;

/// What is sent to a client no faster than it reads.
pub(crate) struct Paced {
    stream: SendStream<Bytes>,
    piece: Bytes,
}

impl Paced {
    pub(crate) fn new(stream: SendStream<Bytes>) -> Self {
        Self { stream, piece: Bytes::new() }
    }

    pub(crate) fn stream(&mut self) -> &mut SendStream<Bytes> {
        &mut self.stream
    }

    /// Take the next piece to send. Only when `poll_sent` says that the last one is gone.
    pub(crate) fn begin(&mut self, piece: Bytes) {
        self.stream.reserve_capacity(piece.len());
        self.piece = piece;
    }

    /// Ready once everything begun was handed to the connection within the client's window.
    pub(crate) fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        while !self.piece.is_empty() {
            let room = match self.stream.capacity() {
                0 => match ready!(self.stream.poll_capacity(cx)) {
                    Some(Ok(room)) => room,
                    Some(Err(_)) | None => return Poll::Ready(Err(Gone)),
                },
                room => room,
            };
            let part = self.piece.split_to(room.min(self.piece.len()));
            if self.stream.send_data(part, false).is_err() {
                return Poll::Ready(Err(Gone));
            }
            self.stream.reserve_capacity(self.piece.len());
        }
        Poll::Ready(Ok(()))
    }

    /// Ready once the client has reset the stream or left.
    pub(crate) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.stream.poll_reset(cx).map(|_| ())
    }

    /// Send a body as it is made.
    async fn send_all(mut self, mut streamed: Streamed) -> Result<(), Gone> {
        loop {
            std::future::poll_fn(|cx| self.poll_sent(cx)).await?;
            let next = std::future::poll_fn(|cx| {
                let next = streamed.poll_piece(cx);
                if next.is_pending() { self.poll_gone(cx).map(|()| Err(Gone)) } else { next.map(Ok) }
            });
            match next.await? {
                Some(piece) => self.begin(piece),
                // A stream that is gone has nobody to tell.
                None => return self.stream.send_data(Bytes::new(), true).map_err(|_| Gone),
            }
        }
    }
}

async fn send(mut respond: SendResponse<Bytes>, answered: HttpResponse, head_only: bool) {
    let length = answered.body_bytes();
    let mut response = Response::new(());
    *response.status_mut() = answered.status;
    *response.headers_mut() = answered.headers;
    if let Some(streamed) = answered.streamed {
        let Ok(stream) = respond.send_response(response, head_only) else { return };
        // Who has gone has nothing to be told.
        let _ = Paced::new(stream).send_all(streamed).await;
        return;
    }
    response.headers_mut().insert(header::CONTENT_LENGTH, length.into());
    let mut pieces = answered.pieces;
    pieces.retain(|piece| !piece.is_empty());
    let bodiless = head_only || pieces.is_empty();
    // A stream that is gone has nobody to tell.
    let Ok(mut stream) = respond.send_response(response, bodiless) else { return };
    if bodiless {
        return;
    }
    let last = pieces.len() - 1;
    for (position, piece) in pieces.into_iter().enumerate() {
        if stream.send_data(piece, position == last).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_frames_of_all_connections_stay_within_a_quarter_of_the_memory() {
        for limit_bytes in [64 << 20, 1 << 30, 16 << 30] {
            assert_eq!(frame_bytes(limit_bytes, 0) as usize, MAX_FRAME_BYTES);
            let beyond_least = |others| frame_bytes(limit_bytes, others) as usize - MIN_FRAME_BYTES;
            let sum: usize = (0..10_000).map(beyond_least).sum();
            assert!(sum <= limit_bytes / 4, "{sum} of {limit_bytes}");
        }
    }
}
