//! Kingpole frames: as HTTP bodies, as gRPC messages and on a stream of their own.

mod arenas;
mod conversation;
mod stream;

use std::time::Instant;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderValue, Method, StatusCode, header};
use kingpole_values::{ByteString, Code, Error, InferRequest, InferResponse, Result};
use kingpole_wire::Scatter;
use kingpole_wire::frame::{self, Message, SharedTensor};

use crate::body::{self, BodyError};
use crate::budget::COUNTED_BYTES;
use crate::connection::Shared;
use crate::message::{HttpRequest, HttpResponse};
use crate::respond;
use crate::rest::not_allowed;
use crate::streamed::{Form, Streamed};

pub(crate) use arenas::Arenas;
pub(crate) use conversation::{CREDIT, Conversation, Outgoing, grant};
pub(crate) use kingpole_wire::frame::{MAGIC, MEDIA_TYPE};
pub(crate) use stream::serve;

/// Where clients post frames; the content type alone decides, so that any other path would do.
pub(crate) const INFER_PATH: &str = "/v1/infer";
/// Frames one after another, in the answer to one request.
const STREAM_MEDIA_TYPE: &str = "application/x-kingpole-stream";

/// When a refused client should try again.
const RETRY_AFTER_MS: u32 = 1000;

/// A request that is one frame, and its exchange.
pub(crate) fn decode_request(message: Bytes) -> Result<(InferRequest, u64)> {
    let frame = frame::decode(message)?;
    match frame.message {
        Message::Request { request, shared, places } => {
            refuse_shared(&shared, &places)?;
            Ok((request, frame.exchange))
        }
        _ => Err(Error::invalid("the frame is not a Request")),
    }
}

fn refuse_shared(inputs: &[SharedTensor], places: &[SharedTensor]) -> Result<()> {
    if inputs.is_empty() && places.is_empty() { Ok(()) } else { Err(no_shared_memory()) }
}

fn no_shared_memory() -> Error {
    Error::new(Code::Unimplemented, "shared memory is offered on streams of frames over Unix sockets only")
}

/// An Error frame.
pub(crate) fn encode_error(error: &Error, id: Option<&str>, exchange: u64) -> Scatter {
    let retry_after_ms = match error.code {
        Code::ResourceExhausted | Code::Unavailable => RETRY_AFTER_MS,
        _ => 0,
    };
    frame::encode_error(error, retry_after_ms, id, exchange)
}

/// An Error frame that no second try changes.
fn encode_final_error(error: &Error, exchange: u64) -> Scatter {
    frame::encode_error(error, 0, None, exchange)
}

/// A frame as a gRPC message: 5 bytes in front.
pub(crate) fn grpc_message(frame: Scatter) -> Vec<Bytes> {
    let length = u32::try_from(frame.len()).unwrap_or(u32::MAX);
    let mut first =
        BytesMut::with_capacity(5 + frame.chunks().first().map_or(0, Bytes::len).min(COUNTED_BYTES));
    first.put_u8(0);
    first.put_u32(length);
    let mut pieces = frame.into_chunks();
    // Longer ones may be charged for as long as they live, so that they are not copied.
    if pieces.first().is_some_and(|piece| piece.len() < COUNTED_BYTES) {
        first.put_slice(&pieces.remove(0));
    }
    let mut message = vec![first.freeze()];
    message.extend(pieces);
    message
}

/// Answer what came to [`INFER_PATH`] and is no frame.
pub(crate) fn refuse_other(request: &HttpRequest) -> HttpResponse {
    if request.method != Method::POST {
        return not_allowed(request, "POST");
    }
    let message = format!("a frame is expected here, with the content type {MEDIA_TYPE}");
    HttpResponse::error(StatusCode::UNSUPPORTED_MEDIA_TYPE, &message)
}

/// Answer a frame that came as an HTTP body with a frame.
pub(crate) async fn over_http(request: HttpRequest, shared: &Shared) -> HttpResponse {
    let HttpRequest { headers, body, received, .. } = request;
    let body = match body::read(body, &headers, shared).await {
        Ok(body) => body,
        Err(refused) => return write_body_error(refused, shared),
    };
    let decoded = decode_request(body).and_then(|(mut request, exchange)| {
        respond::shorten(&mut request, respond::timeout_us(&headers)?);
        Ok((request, exchange))
    });
    let (mut request, exchange) = match decoded {
        Ok(decoded) => decoded,
        Err(error) => {
            shared.engine.count_refused(error.code);
            return write_error(&error, None, 0);
        }
    };
    if let Some(pattern) = &shared.configuration.http_headers {
        pattern.forward(&headers, &mut request.parameters);
    }
    let takes_many = headers.get_all(header::ACCEPT).iter().any(|value| value == STREAM_MEDIA_TYPE);
    if takes_many {
        stream(shared, request, exchange, received).await
    } else {
        infer(shared, request, exchange, received).await
    }
}

/// Frames one after another, the last of which says so, if the client can read them.
async fn stream(shared: &Shared, request: InferRequest, exchange: u64, received: Instant) -> HttpResponse {
    let id = request.id.clone();
    let responses = respond::stream(&shared.engine, request, received);
    let form = Frames { exchange, id: id.clone() };
    match Streamed::open(responses, form, &shared.memory).await {
        Ok(streamed) => {
            let kind = HeaderValue::from_static(STREAM_MEDIA_TYPE);
            HttpResponse::new(StatusCode::OK, kind, Vec::new()).streaming(streamed)
        }
        Err(error) => write_error(&error, id.as_deref(), exchange),
    }
}

struct Frames {
    exchange: u64,
    id: Option<ByteString>,
}

impl Form for Frames {
    fn response(&self, response: &InferResponse) -> Result<Scatter> {
        Ok(frame::encode_response(response, &[], self.exchange))
    }

    fn error(&self, error: &Error) -> Scatter {
        encode_error(error, self.id.as_deref(), self.exchange)
    }
}

async fn infer(shared: &Shared, request: InferRequest, exchange: u64, received: Instant) -> HttpResponse {
    let id = request.id.clone();
    let held = respond::infer(&shared.engine, request, received).await.and_then(|response| {
        let mut frame = frame::encode_response(&response, &[], exchange);
        shared.memory.hold_answer(frame.chunks_mut())?;
        Ok(frame)
    });
    match held {
        Ok(frame) => write(StatusCode::OK, frame),
        Err(error) => write_error(&error, id.as_deref(), exchange),
    }
}

fn write(status: StatusCode, frame: Scatter) -> HttpResponse {
    HttpResponse::new(status, HeaderValue::from_static(MEDIA_TYPE), frame.into_chunks().into_vec())
}

fn write_body_error(refused: BodyError, shared: &Shared) -> HttpResponse {
    match refused {
        BodyError::TooLong(error) => {
            shared.engine.count_refused(error.code);
            write(StatusCode::PAYLOAD_TOO_LARGE, encode_final_error(&error, 0)).closing()
        }
        BodyError::NoRoom(error) => {
            shared.engine.count_refused(error.code);
            write_error(&error, None, 0)
        }
        refused => {
            let error = Error::from(refused);
            shared.engine.count_refused(error.code);
            write_error(&error, None, 0).closing()
        }
    }
}

fn write_error(error: &Error, id: Option<&str>, exchange: u64) -> HttpResponse {
    write(crate::status::of(error.code), encode_error(error, id, exchange))
}
