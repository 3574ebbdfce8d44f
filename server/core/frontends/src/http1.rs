//! HTTP/1.1 connections.

use std::cell::Cell;
use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::AsyncWriteExt;

use crate::body::Source;
use crate::connection::Shared;
use crate::message::HttpRequest;
use crate::rest;
use crate::socket::{Socket, linger};
use crate::streamed::Streamed;

/// Serve one connection until it ends or the server drains.
pub(crate) async fn serve(mut socket: Socket, shared: Rc<Shared>) {
    let refused = Cell::new(false);
    let context = Rc::clone(&shared);
    let service = service_fn(|request| answer(request, Rc::clone(&context), &refused));
    {
        let mut connection = std::pin::pin!(
            http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(shared.configuration.header_timeout)
                .keep_alive(true)
                .half_close(false)
                // No pipeline_flush: with it, hyper closes without having written a refusal when some of
                // the refused body is still in its buffer.
                .serve_connection(TokioIo::new(&mut socket), service)
        );
        tokio::select! {
            ended = connection.as_mut() => {
                // Hyper answers what is no HTTP by itself, and then ends with an error.
                if ended.is_err_and(|error| error.is_parse()) {
                    refused.set(true);
                }
            }
            () = Rc::clone(&shared).drained() => {
                connection.as_mut().graceful_shutdown();
                // How a connection ends says nothing about a request that was answered.
                let _ = connection.await;
            }
        }
    }
    if refused.get() {
        // An error means that the client has gone, which ends the lingering as well.
        let _ = socket.shutdown().await;
        linger(&mut socket, shared).await;
    }
}

async fn answer(
    request: Request<Incoming>,
    shared: Rc<Shared>,
    refused: &Cell<bool>,
) -> Result<Response<Pieces>, Infallible> {
    let received = Instant::now();
    let (parts, body) = request.into_parts();
    let request = HttpRequest {
        method: parts.method,
        uri: parts.uri,
        headers: parts.headers,
        body: Source::Http1(body),
        received,
    };
    let answered = rest::route(request, &shared).await;
    let mut response = Response::new(Pieces::new(answered.pieces, answered.streamed));
    *response.status_mut() = answered.status;
    *response.headers_mut() = answered.headers;
    if answered.close {
        refused.set(true);
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response)
}

/// A response body in pieces, of known length unless more comes as it is made.
struct Pieces {
    rest: std::vec::IntoIter<Bytes>,
    left: u64,
    streamed: Option<Streamed>,
}

impl Pieces {
    fn new(mut pieces: Vec<Bytes>, streamed: Option<Streamed>) -> Self {
        pieces.retain(|piece| !piece.is_empty());
        let left = pieces.iter().map(|piece| piece.len() as u64).sum();
        Self { rest: pieces.into_iter(), left, streamed }
    }
}

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(piece) = self.rest.next() else {
            let Some(streamed) = &mut self.streamed else { return Poll::Ready(None) };
            let piece = ready!(streamed.poll_piece(cx));
            return Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))));
        };
        self.left -= piece.len() as u64;
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0 && self.streamed.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        if self.streamed.is_some() { SizeHint::default() } else { SizeHint::with_exact(self.left) }
    }
}
