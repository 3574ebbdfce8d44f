//! The way a call is answered: headers, messages, trailers.

use std::task::{Context, Poll, Waker};

use bytes::{BufMut, Bytes, BytesMut};
use h2::SendStream;
use h2::server::SendResponse;
use http::{HeaderMap, HeaderValue, Response, header};
use kingpole_values::Error;

use crate::coding::{Coding, GRPC_SUPPORTED};
use crate::http2::{Gone, Paced};

const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const OK: HeaderValue = HeaderValue::from_static("0");
const STATUS: header::HeaderName = header::HeaderName::from_static("grpc-status");
const ENCODING: header::HeaderName = header::HeaderName::from_static("grpc-encoding");
const ACCEPTED: header::HeaderName = header::HeaderName::from_static("grpc-accept-encoding");
const MESSAGE: header::HeaderName = header::HeaderName::from_static("grpc-message");

/// gRPC's bytes before a message.
pub(crate) const PREFIX_BYTES: usize = 5;

fn put_prefix(framed: &mut BytesMut, flag: u8, length: usize) {
    framed.put_u8(flag);
    // No message of ours comes near 4 GiB; gRPC cannot say more.
    framed.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
}

fn prefix(flag: u8, length: usize) -> Bytes {
    let mut prefix = BytesMut::with_capacity(PREFIX_BYTES);
    put_prefix(&mut prefix, flag, length);
    prefix.freeze()
}

/// Put gRPC's 5 bytes before a message: not compressed, and the length.
pub(crate) fn frame(message: &[u8]) -> Bytes {
    let mut framed = BytesMut::with_capacity(PREFIX_BYTES + message.len());
    put_prefix(&mut framed, 0, message.len());
    framed.put_slice(message);
    framed.freeze()
}

fn opening() -> Response<()> {
    let mut headers = HeaderMap::with_capacity(4);
    headers.insert(header::CONTENT_TYPE, GRPC);
    let mut response = Response::new(());
    *response.headers_mut() = headers;
    response
}

/// Longer messages may pass what clients accept as headers, and then nothing of the error arrives.
const MAX_MESSAGE_BYTES: usize = 2048;

fn put_status(headers: &mut HeaderMap, error: &Error) {
    headers.insert(STATUS, HeaderValue::from(u16::from(kingpole_wire::status::grpc(error.code))));
    let mut escaped = String::with_capacity(error.message.len());
    for byte in error.message.bytes().take(MAX_MESSAGE_BYTES) {
        if (b' '..=b'~').contains(&byte) && byte != b'%' {
            escaped.push(char::from(byte));
        } else {
            const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
            escaped.push('%');
            escaped.push(char::from(DIGITS[usize::from(byte >> 4)]));
            escaped.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
    }
    // Only visible ASCII is left, which a header value accepts.
    if let Ok(value) = HeaderValue::try_from(escaped) {
        headers.insert(MESSAGE, value);
    }
}

/// A call that was not answered yet. If its stream is gone, answering does nothing.
pub(crate) struct Reply(SendResponse<Bytes>);

impl Reply {
    pub(crate) fn new(respond: SendResponse<Bytes>) -> Self {
        Self(respond)
    }

    pub(crate) fn respond(&mut self) -> &mut SendResponse<Bytes> {
        &mut self.0
    }

    /// Whether the client has reset the stream or left.
    pub(crate) fn is_cancelled(&mut self) -> bool {
        self.0.poll_reset(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    /// Ready once the client has reset the stream or left; until then `cx` is told of it.
    pub(crate) fn poll_cancelled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.poll_reset(cx).map(|_| ())
    }

    /// Answer with one message, given in pieces with its 5 bytes in front.
    pub(crate) fn message(mut self, pieces: impl IntoIterator<Item = Bytes>) {
        let Ok(mut stream) = self.0.send_response(opening(), false) else { return };
        for piece in pieces {
            if stream.send_data(piece, false).is_err() {
                return;
            }
        }
        finish(&mut stream, None);
    }

    /// Answer with one compressed message.
    pub(crate) fn packed_message(mut self, coding: Coding, packed: Bytes) {
        let mut response = opening();
        response.headers_mut().insert(ENCODING, coding.header());
        let Ok(mut stream) = self.0.send_response(response, false) else { return };
        if stream.send_data(prefix(1, packed.len()), false).is_ok() && stream.send_data(packed, false).is_ok()
        {
            finish(&mut stream, None);
        }
    }

    /// Answer with an error and nothing else.
    pub(crate) fn error(mut self, error: &Error) {
        let mut response = opening();
        put_status(response.headers_mut(), error);
        // A stream that is gone has nobody to tell.
        let _ = self.0.send_response(response, true);
    }

    /// Answer to a call in an unknown coding: the error says which are known, as gRPC asks.
    pub(crate) fn unknown_coding(mut self, error: &Error) {
        let mut response = opening();
        put_status(response.headers_mut(), error);
        response.headers_mut().insert(ACCEPTED, HeaderValue::from_static(GRPC_SUPPORTED));
        // A stream that is gone has nobody to tell.
        let _ = self.0.send_response(response, true);
    }

    /// Answer with a stream of messages; `None` if the client has gone.
    pub(crate) fn stream(mut self) -> Option<ReplyStream> {
        let stream = self.0.send_response(opening(), false).ok()?;
        Some(ReplyStream(Paced::new(stream)))
    }
}

fn finish(stream: &mut SendStream<Bytes>, error: Option<&Error>) {
    let mut trailers = HeaderMap::with_capacity(2);
    match error {
        None => {
            trailers.insert(STATUS, OK);
        }
        Some(error) => put_status(&mut trailers, error),
    }
    // A stream that is gone has nobody to tell.
    let _ = stream.send_trailers(trailers);
}

/// Messages to a client, no faster than it reads them.
pub(crate) struct ReplyStream(Paced);

impl ReplyStream {
    /// Take the next piece to send. Only when `poll_sent` says that the last one is gone.
    pub(crate) fn begin(&mut self, piece: Bytes) {
        self.0.begin(piece);
    }

    /// Ready once everything begun was handed to the connection within the client's window.
    pub(crate) fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        self.0.poll_sent(cx)
    }

    /// Ready once the client has reset the stream or left.
    pub(crate) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.poll_gone(cx)
    }

    /// Send one whole message, framed already.
    pub(crate) async fn send(&mut self, framed: Bytes) -> Result<(), Gone> {
        self.begin(framed);
        std::future::poll_fn(|cx| self.poll_sent(cx)).await
    }

    /// End the call: well, or with an error.
    pub(crate) fn finish(mut self, error: Option<&Error>) {
        finish(self.0.stream(), error);
    }
}
