//! gRPC over HTTP/2: which method was called, and with which metadata.

mod health;
mod infer;
pub(crate) mod messages;
mod open_inference;
mod reflection;
pub(crate) mod reply;
mod services;
mod settings;
mod stream;

use std::rc::Rc;
use std::task::Context;
use std::time::Instant;

use bytes::Bytes;
use h2::server::SendResponse;
use http::{HeaderMap, Method, request};
use kingpole_values::{Code, Error, Parameters, Result};

use crate::body::Source;
use crate::coding::{Coding, SUPPORTED};
use crate::connection::Shared;
use crate::forward::forwarded;
use crate::http2::unless_reset;
use crate::migration::tensorflow_grpc;
use crate::{HeaderPattern, StreamDialect};
use infer::{Form, InferCall};
use messages::Messages;
use reply::Reply;

/// What a call's metadata says to us.
#[derive(Default)]
pub(crate) struct Metadata {
    coding: Option<Coding>,
    /// Whether the client reads answers in the coding of its requests.
    accepts_own_coding: bool,
    pub(crate) timeout_us: Option<u64>,
    /// What of it is passed on to models.
    pub(crate) forwarded: Parameters,
}

/// Begin to answer one call. Returns at once; what is not there yet goes on in a task of its own.
pub(crate) fn serve(
    cx: &mut Context<'_>,
    shared: &Rc<Shared>,
    parts: &request::Parts,
    body: Source,
    respond: SendResponse<Bytes>,
    received: Instant,
) {
    let reply = Reply::new(respond);
    let metadata = match read_metadata(&parts.headers, shared.configuration.grpc_headers.as_ref()) {
        Ok(metadata) => metadata,
        Err(error) => {
            shared.engine.count_refused(error.code);
            return match error.code {
                Code::Unimplemented => reply.unknown_coding(&error),
                _ => reply.error(&error),
            };
        }
    };
    let messages = Messages::new(body, metadata.coding, Rc::clone(shared));
    let path = parts.uri.path();
    let form = match path {
        "/inference.GRPCInferenceService/ModelInfer" => Form::Protobuf,
        "/kingpole.v1.Inference/Infer" => Form::Frame,
        _ => return serve_other(shared, parts, messages, reply, metadata),
    };
    InferCall { form, messages, metadata, received }.begin(cx, shared, reply);
}

fn serve_other(
    shared: &Rc<Shared>,
    parts: &request::Parts,
    messages: Messages,
    reply: Reply,
    metadata: Metadata,
) {
    let path = parts.uri.path();
    if parts.method != Method::POST {
        return reply.error(&Error::new(Code::Unimplemented, "gRPC calls are POST requests"));
    }
    let shared = Rc::clone(shared);
    match path {
        "/inference.GRPCInferenceService/ModelStreamInfer" => {
            let dialect = match stream_dialect(&parts.headers, shared.configuration.stream_dialect) {
                Ok(dialect) => dialect,
                Err(error) => return reply.error(&error),
            };
            tokio::task::spawn_local(stream::serve(shared, dialect, messages, reply, metadata));
        }
        "/kingpole.v1.Inference/Stream" => {
            tokio::task::spawn_local(stream::serve(
                shared,
                stream::Dialect::Frame,
                messages,
                reply,
                metadata,
            ));
        }
        "/grpc.health.v1.Health/Watch" => {
            tokio::task::spawn_local(health::watch(shared, messages, reply));
        }
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
        | "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo" => {
            tokio::task::spawn_local(reflection::serve(messages, reply));
        }
        _ if path.starts_with(tensorflow_grpc::SERVICES) => {
            let path = path.to_owned();
            tokio::task::spawn_local(tensorflow_grpc::serve(shared, path, messages, reply, metadata));
        }
        _ => {
            let path = path.to_owned();
            tokio::task::spawn_local(unary(shared, path, messages, reply, metadata));
        }
    }
}

async fn unary(
    shared: Rc<Shared>,
    path: String,
    mut messages: Messages,
    mut reply: Reply,
    metadata: Metadata,
) {
    let late = |what| Error::new(Code::DeadlineExceeded, what);
    let body_timeout = shared.configuration.body_timeout;
    let call = async {
        let message = std::future::poll_fn(|cx| messages.poll_message(cx));
        let message = tokio::time::timeout(body_timeout, message).await;
        let message = message.map_err(|_| late("the client took too long to send its request"))?;
        let message =
            message.unwrap_or_else(|| Err(Error::invalid("the call has no request message").into()))?;
        services::answer(&shared, &path, message).await
    };
    let call = async {
        match metadata.timeout_us.map(std::time::Duration::from_micros) {
            // Loading a model takes what it takes.
            None => call.await,
            Some(limit) => match tokio::time::timeout(limit, call).await {
                Ok(answered) => answered,
                Err(_) => Err(late("the call took longer than its timeout")),
            },
        }
    };
    let answered = {
        let call = std::pin::pin!(call);
        unless_reset(call, reply.respond()).await
    };
    match answered {
        None => {}
        Some(Ok(message)) => {
            reply.message([reply::frame(&message)]);
            messages.finish();
        }
        Some(Err(error)) => reply.error(&error),
    }
}

/// What the messages of a `ModelStreamInfer` call are: what it says itself, else what the server was told.
fn stream_dialect(headers: &HeaderMap, otherwise: StreamDialect) -> Result<stream::Dialect> {
    let dialect = match headers.get("kingpole-stream-dialect") {
        None => otherwise,
        Some(name) => StreamDialect::from_name(name.as_bytes()).ok_or_else(|| {
            let name = String::from_utf8_lossy(name.as_bytes());
            Error::invalid(format!("kingpole-stream-dialect is '{name}', expected triton or open-inference"))
        })?,
    };
    let errors_end_the_stream =
        headers.get("triton_grpc_error").is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"true"));
    Ok(stream::Dialect::OpenInference { dialect, errors_end_the_stream })
}

fn read_metadata(headers: &HeaderMap, passed_on: Option<&HeaderPattern>) -> Result<Metadata> {
    let coding = match headers.get("grpc-encoding") {
        None => None,
        Some(name) if name == "identity" => None,
        Some(name) => Some(Coding::from_name(name.as_bytes()).ok_or_else(|| {
            let name = String::from_utf8_lossy(name.as_bytes());
            let message =
                format!("grpc-encoding '{name}' is not supported; use one of identity, {SUPPORTED}");
            Error::new(Code::Unimplemented, message)
        })?),
    };
    let timeout_us = match headers.get("grpc-timeout") {
        None => None,
        Some(value) => Some(parse_timeout(value.as_bytes()).ok_or_else(|| {
            Error::invalid(format!(
                "grpc-timeout '{}' is malformed",
                String::from_utf8_lossy(value.as_bytes())
            ))
        })?),
    };
    if timeout_us == Some(0) {
        return Err(Error::new(Code::DeadlineExceeded, "the deadline passed before the request arrived"));
    }
    let accepts_own_coding = coding.is_some_and(|coding| accepts(headers, coding));
    Ok(Metadata { coding, accepts_own_coding, timeout_us, forwarded: forwarded(passed_on, headers) })
}

/// Whether answers may be in the coding of the requests: yes, unless the client says which it reads.
fn accepts(headers: &HeaderMap, coding: Coding) -> bool {
    let Some(accepted) = headers.get("grpc-accept-encoding") else { return true };
    let mut names = accepted.as_bytes().split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
    names.any(|name| Coding::from_name(name) == Some(coding))
}

/// A `grpc-timeout`: up to eight digits and a unit. Rounded up to microseconds.
///
/// Source: gRPC over HTTP/2, "Timeout".
fn parse_timeout(value: &[u8]) -> Option<u64> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let amount = digits.iter().fold(0, |amount, digit| amount * 10 + u64::from(digit - b'0'));
    Some(match unit {
        b'H' => amount * 3_600_000_000,
        b'M' => amount * 60_000_000,
        b'S' => amount * 1_000_000,
        b'm' => amount * 1_000,
        b'u' => amount,
        b'n' => amount.div_ceil(1_000),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_as_grpc_writes_them() {
        assert_eq!(parse_timeout(b"100m"), Some(100_000));
        assert_eq!(parse_timeout(b"1n"), Some(1));
        assert_eq!(parse_timeout(b"0u"), Some(0));
        assert_eq!(parse_timeout(b"99999999H"), Some(99_999_999 * 3_600_000_000));
        for bad in [&b""[..], b"m", b"1", b"123456789m", b"-1m", b"1x", b"1.5S"] {
            assert_eq!(parse_timeout(bad), None, "{bad:?}");
        }
    }
}
