//! Frames over gRPC: `kingpole.v1.Inference/Stream`, whose messages are frames and nothing else.

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h2::client::{Builder, ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Method, Request, Version};
use kingpole_values::Code;
use kingpole_wire::Scatter;
use kingpole_wire::frame::FrameReader;
use kingpole_wire::status::code_of_http;
use tokio::time::timeout;

use crate::connect::{Socket, reasons};
use crate::conversation::{Conversation, Ends};
use crate::frames::{STALLED, hand_out};
use crate::outgoing::Outgoing;
use crate::{Error, Result};

const PATH: &str = "/kingpole.v1.Inference/Stream";
/// What one stream may have sent that nobody has taken yet.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
/// All streams together: no limit of their own, so that one that is not read holds up no other.
const CONNECTION_WINDOW_BYTES: u32 = (1 << 31) - 1;
const FRAME_BYTES: u32 = 1 << 20;
const HEADER_BYTES: u32 = 64 << 10;
/// A message's first bytes: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;

/// A connection that speaks HTTP/2.
#[derive(Clone)]
pub(crate) struct Channel {
    sender: SendRequest<Outgoing>,
    /// Where it leads, for errors.
    name: Arc<str>,
    uri: http::Uri,
    headers: HeaderMap,
}

impl Channel {
    /// Begin to speak on a connected socket.
    pub(crate) async fn open(socket: Socket, name: &str, uri: http::Uri, headers: HeaderMap) -> Result<Self> {
        let mut builder = Builder::new();
        builder
            .initial_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_frame_size(FRAME_BYTES)
            .max_header_list_size(HEADER_BYTES)
            .enable_push(false);
        let (sender, connection) =
            builder.handshake(socket).await.map_err(|error| of_h2(name, error).unsent())?;
        // It ends when no stream and no sender is left; its errors reach the streams.
        tokio::spawn(async move { drop(connection.await) });
        Ok(Self { sender, name: name.into(), uri, headers })
    }

    /// Whether it still leads to a server.
    pub(crate) async fn is_usable(&mut self) -> bool {
        std::future::poll_fn(|context| self.sender.poll_ready(context)).await.is_ok()
    }

    async fn call(&mut self) -> Result<(ResponseFuture, SendStream<Outgoing>)> {
        if !self.is_usable().await {
            return Err(Error::unavailable(format!("{} closed the connection", self.name)).unsent());
        }
        let mut request = Request::new(());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        *request.version_mut() = Version::HTTP_2;
        *request.headers_mut() = self.headers.clone();
        self.sender.send_request(request, false).map_err(|error| of_h2(&self.name, error).unsent())
    }

    /// A call on which many requests are open.
    pub(crate) async fn converse(&mut self, limit: usize) -> Result<Conversation> {
        let (response, mut stream) = self.call().await?;
        let (mut conversation, ends) = Conversation::new();
        let Ends { exchanges, mut outbox, cancel } = ends;
        let (failed, name) = (Arc::clone(&exchanges), Arc::clone(&self.name));
        tokio::spawn(async move {
            while let Some(frame) = outbox.recv().await {
                if let Err(error) = send(&mut stream, frame, &name).await {
                    // What the server said about it says more, if it said something.
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                    failed.fail(&error);
                    return;
                }
            }
            let _ = stream.send_data(Outgoing::default(), true);
        });
        let mut source = GrpcSource::new(response, &self.name);
        let reading = async move {
            let mut reader = FrameReader::new(limit);
            let error = loop {
                match std::future::poll_fn(|context| source.poll_more(context, &mut reader)).await {
                    Ok(true) => {}
                    Ok(false) => break Error::unavailable(format!("{} ended the stream", source.name)),
                    Err(error) => break error,
                }
                if let Err(error) = hand_out(&mut reader, &exchanges, &cancel) {
                    break error;
                }
            };
            exchanges.fail(&error);
        };
        conversation.read_by(tokio::spawn(reading).abort_handle());
        Ok(conversation)
    }

    /// A call for one request, whose answer may be any number of responses.
    pub(crate) async fn ask(&mut self, request: Scatter) -> Result<GrpcSource> {
        let (response, mut stream) = self.call().await?;
        send(&mut stream, request, &self.name).await?;
        let mut source = GrpcSource::new(response, &self.name);
        // Kept open: its end would tell the server that nobody could cancel any more.
        source.sender = Some(stream);
        Ok(source)
    }
}

/// What every call says.
pub(crate) fn headers(token: Option<&http::HeaderValue>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", http::HeaderValue::from_static("application/grpc"));
    headers.insert("te", http::HeaderValue::from_static("trailers"));
    headers.insert("user-agent", http::HeaderValue::from_static(crate::USER_AGENT));
    if let Some(token) = token {
        headers.insert("authorization", token.clone());
    }
    headers
}

/// Where calls go.
pub(crate) fn uri(is_secure: bool, authority: &str) -> Result<http::Uri> {
    let scheme = if is_secure { "https" } else { "http" };
    format!("{scheme}://{authority}{PATH}")
        .parse()
        .map_err(|error| Error::invalid(format!("the address '{authority}' cannot be read: {error}")))
}

/// Send a frame as one message.
async fn send(stream: &mut SendStream<Outgoing>, frame: Scatter, name: &str) -> Result<()> {
    let Ok(length) = u32::try_from(frame.len()) else {
        return Err(Error::invalid(format!(
            "a request of {} bytes: gRPC carries less than 4 GiB",
            frame.len()
        )));
    };
    let mut prefix = [0; PREFIX_BYTES];
    prefix[1..].copy_from_slice(&length.to_be_bytes());
    let mut message = Outgoing::default();
    message.push(Bytes::copy_from_slice(&prefix));
    message.append(frame);
    // Until there is room for some of it, the messages before it have not left.
    stream.reserve_capacity(message.remaining().min(64 * 1024));
    while stream.capacity() == 0 {
        match timeout(STALLED, std::future::poll_fn(|context| stream.poll_capacity(context))).await {
            Ok(Some(Ok(_))) => {}
            Ok(Some(Err(error))) => return Err(of_h2(name, error)),
            Ok(None) => return Err(Error::unavailable(format!("{name} ended the stream"))),
            Err(_) => return Err(Error::unavailable(format!("{name} stopped reading"))),
        }
    }
    stream.send_data(message, false).map_err(|error| of_h2(name, error))
}

fn of_h2(name: &str, error: h2::Error) -> Error {
    Error::unavailable(format!("the connection to {name} broke: {}", reasons(&error))).caused_by(error)
}

/// What is received of one call.
pub(crate) struct GrpcSource {
    state: State,
    name: Arc<str>,
    /// The prefix that has begun, and what is left of the message after it.
    prefix: ([u8; PREFIX_BYTES], usize),
    left: usize,
    sender: Option<SendStream<Outgoing>>,
}

enum State {
    Head(ResponseFuture),
    Body { stream: RecvStream, ended: bool },
}

impl GrpcSource {
    fn new(response: ResponseFuture, name: &Arc<str>) -> Self {
        let (state, prefix) = (State::Head(response), ([0; PREFIX_BYTES], 0));
        Self { state, name: Arc::clone(name), prefix, left: 0, sender: None }
    }

    /// Receive into the reader; whether there was something.
    pub(crate) fn poll_more(
        &mut self,
        context: &mut Context<'_>,
        reader: &mut FrameReader,
    ) -> Poll<Result<bool>> {
        loop {
            match &mut self.state {
                State::Head(response) => {
                    let response = ready!(std::pin::Pin::new(response).poll(context));
                    let response = response.map_err(|error| of_h2(&self.name, error))?;
                    check_head(response.status(), response.headers(), &self.name)?;
                    self.state = State::Body { stream: response.into_body(), ended: false };
                }
                State::Body { stream, ended: false } => match ready!(stream.poll_data(context)) {
                    Some(chunk) => {
                        let chunk = chunk.map_err(|error| of_h2(&self.name, error))?;
                        // Taken from the window as soon as it is taken from the stream.
                        let _ = stream.flow_control().release_capacity(chunk.len());
                        self.take(chunk, reader)?;
                        return Poll::Ready(Ok(true));
                    }
                    None => {
                        if let State::Body { ended, .. } = &mut self.state {
                            *ended = true;
                        }
                    }
                },
                State::Body { stream, ended: true } => {
                    let trailers = ready!(stream.poll_trailers(context));
                    let trailers = trailers.map_err(|error| of_h2(&self.name, error))?;
                    let status = trailers.map_or(Ok(()), |trailers| check_status(&trailers, &self.name));
                    return Poll::Ready(status.map(|()| false));
                }
            }
        }
    }

    /// Take the messages' prefixes away: what is left is frames, one after another.
    fn take(&mut self, mut chunk: Bytes, reader: &mut FrameReader) -> Result<()> {
        while !chunk.is_empty() {
            if self.left > 0 {
                let piece = chunk.split_to(self.left.min(chunk.len()));
                self.left -= piece.len();
                reader.push(&piece);
                continue;
            }
            let (prefix, have) = &mut self.prefix;
            prefix[*have] = chunk.get_u8();
            *have += 1;
            if *have == PREFIX_BYTES {
                *have = 0;
                if prefix[0] != 0 {
                    return Err(Error::internal(format!("{} sent a compressed message", self.name)));
                }
                self.left = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
            }
        }
        Ok(())
    }
}

fn check_head(status: http::StatusCode, headers: &HeaderMap, name: &str) -> Result<()> {
    check_status(headers, name)?;
    if status != http::StatusCode::OK {
        let code = code_of_http(status.as_u16());
        return Err(Error::new(code, format!("{name} answered with HTTP status {status}, not with gRPC")));
    }
    Ok(())
}

/// What headers or trailers say of the call's end.
fn check_status(headers: &HeaderMap, name: &str) -> Result<()> {
    let Some(status) = headers.get("grpc-status") else { return Ok(()) };
    let number = status.to_str().ok().and_then(|text| text.parse::<u8>().ok());
    if number == Some(0) {
        return Ok(());
    }
    let said = headers.get("grpc-message").map_or(&b""[..], http::HeaderValue::as_bytes);
    let text = percent_encoding::percent_decode(said).decode_utf8_lossy();
    let text = if text.is_empty() { "no reason given" } else { &text };
    let Some(code) = number.and_then(Code::from_number) else {
        return Err(Error::internal(format!("{name} ended the call with status {status:?}: {text}")));
    };
    Err(Error::new(
        code,
        match code {
            Code::Unavailable => format!("{name}: {text}"),
            Code::Unimplemented => {
                format!(
                    "{text}; {name} takes no frames over gRPC: over http this client also speaks Open Inference"
                )
            }
            _ => text.to_owned(),
        },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_an_error_with_the_servers_text() {
        let mut headers = HeaderMap::new();
        assert!(check_status(&headers, "s").is_ok());
        headers.insert("grpc-status", http::HeaderValue::from_static("0"));
        assert!(check_status(&headers, "s").is_ok());
        headers.insert("grpc-status", http::HeaderValue::from_static("5"));
        headers.insert("grpc-message", http::HeaderValue::from_static("no %27m%C3%BC%27"));
        let error = check_status(&headers, "s").unwrap_err();
        assert_eq!((error.code(), error.message()), (Code::NotFound, "no 'mü'"));
        headers.insert("grpc-status", http::HeaderValue::from_static("99"));
        assert_eq!(check_status(&headers, "s").unwrap_err().code(), Code::Internal);
    }
}
