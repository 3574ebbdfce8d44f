//! Reading a request's body: one place that checks limits, for every protocol over HTTP.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use h2::RecvStream;
use http::{HeaderMap, header};
use http_body::Body as _;
use hyper::body::Incoming;
use kingpole_values::{Code, Error, Result};

use crate::FrontendConfiguration;
use crate::unpack::{Coding, Unpack, too_long};

/// Where a body comes from.
pub(crate) enum Source {
    Http1(Incoming),
    Http2(RecvStream),
}

impl Source {
    /// The next piece of the body; `None` at its end.
    pub(crate) fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes>>> {
        match self {
            Self::Http2(stream) => match ready!(stream.poll_data(cx)) {
                Some(Ok(piece)) => {
                    // The piece is ours now; the limit, not flow control, bounds what we keep. An error
                    // means that the stream is gone, which the next poll says.
                    let _ = stream.flow_control().release_capacity(piece.len());
                    Poll::Ready(Some(Ok(piece)))
                }
                Some(Err(_)) => Poll::Ready(Some(Err(gone()))),
                None => Poll::Ready(None),
            },
            Self::Http1(incoming) => loop {
                match ready!(Pin::new(&mut *incoming).poll_frame(cx)) {
                    Some(Ok(frame)) => {
                        if let Ok(piece) = frame.into_data() {
                            return Poll::Ready(Some(Ok(piece)));
                        }
                        // Trailers carry nothing that we read.
                    }
                    Some(Err(_)) => return Poll::Ready(Some(Err(gone()))),
                    None => return Poll::Ready(None),
                }
            },
        }
    }
}

fn gone() -> Error {
    Error::new(Code::Cancelled, "the client left before its request was complete")
}

/// The announced length of a body, if it is announced.
fn announced(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Why a body was not read.
#[derive(Debug)]
pub(crate) enum BodyError {
    /// Longer than the limit; the rest was not read.
    TooLong(Error),
    /// A content coding that we do not know.
    Coding(String),
    /// Corrupt, or the client left.
    Other(Error),
}

impl From<Error> for BodyError {
    fn from(error: Error) -> Self {
        if error.code == Code::ResourceExhausted { Self::TooLong(error) } else { Self::Other(error) }
    }
}

impl BodyError {
    /// The same as an error that knows no HTTP.
    pub(crate) fn into_error(self) -> Error {
        match self {
            Self::TooLong(error) | Self::Other(error) => error,
            Self::Coding(name) => Error::invalid(unknown_coding(&name)),
        }
    }
}

pub(crate) fn unknown_coding(name: &str) -> String {
    format!("Content-Encoding '{name}' is not supported; use gzip, deflate or none")
}

/// Read a whole HTTP body, decompressed, within the configured time and size, on the wire and after.
pub(crate) async fn read(
    source: Source,
    headers: &HeaderMap,
    configuration: &FrontendConfiguration,
) -> std::result::Result<Bytes, BodyError> {
    let reading = read_all(source, headers, configuration.max_body_bytes);
    tokio::time::timeout(configuration.body_timeout, reading).await.unwrap_or_else(|_| {
        let message = "the client took too long to send its request";
        Err(BodyError::Other(Error::new(Code::DeadlineExceeded, message)))
    })
}

async fn read_all(
    mut source: Source,
    headers: &HeaderMap,
    limit: usize,
) -> std::result::Result<Bytes, BodyError> {
    let announced = announced(headers);
    if announced.is_some_and(|length| length > limit as u64) {
        return Err(too_long(limit).into());
    }
    let coding = match headers.get(header::CONTENT_ENCODING) {
        None => None,
        Some(name) if name.as_bytes().eq_ignore_ascii_case(b"identity") => None,
        Some(name) => Some(
            Coding::from_name(name.as_bytes())
                .ok_or_else(|| BodyError::Coding(String::from_utf8_lossy(name.as_bytes()).into_owned()))?,
        ),
    };
    let mut next = async || std::future::poll_fn(|cx| source.poll_piece(cx)).await;
    if let Some(coding) = coding {
        let mut unpack = Unpack::new(coding, limit);
        let mut received = 0;
        while let Some(piece) = next().await {
            let piece = piece?;
            received += piece.len();
            if received > limit {
                return Err(too_long(limit).into());
            }
            unpack.feed(&piece)?;
        }
        return Ok(unpack.finish()?);
    }
    let Some(first) = next().await else { return Ok(Bytes::new()) };
    let first = first?;
    if first.len() > limit {
        return Err(too_long(limit).into());
    }
    if announced == Some(first.len() as u64) {
        return Ok(first);
    }
    let Some(second) = next().await else { return Ok(first) };
    let capacity = announced.and_then(|length| usize::try_from(length).ok());
    let mut whole = BytesMut::with_capacity(capacity.unwrap_or(first.len() * 4).min(limit));
    whole.extend_from_slice(&first);
    drop(first);
    let mut piece = Some(second);
    while let Some(bytes) = piece {
        let bytes = bytes?;
        if bytes.len() > limit - whole.len() {
            return Err(too_long(limit).into());
        }
        whole.extend_from_slice(&bytes);
        piece = next().await;
    }
    Ok(whole.freeze())
}

/// The most memory that is set aside for a message on the strength of its announced length.
const MAX_FORESEEN_BYTES: usize = 1 << 20;

const PREFIX_BYTES: usize = 5;

/// The messages of a gRPC request stream.
///
/// A message that came in one piece is a view of it; others are put together in one buffer of the
/// announced length, which is checked first.
pub(crate) struct Messages {
    source: Source,
    coding: Option<Coding>,
    limit: usize,
    rest: Bytes,
    partial: Option<(BytesMut, usize)>,
}

impl Messages {
    pub(crate) fn new(source: Source, coding: Option<Coding>, limit: usize) -> Self {
        Self { source, coding, limit, rest: Bytes::new(), partial: None }
    }

    /// The next message; `None` once the client has ended its side.
    pub(crate) fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes>>> {
        loop {
            match self.take() {
                Ok(Some(message)) => return Poll::Ready(Some(Ok(message))),
                Ok(None) => {}
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
            match ready!(self.source.poll_piece(cx)) {
                Some(Ok(piece)) => self.push(piece),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None if self.rest.is_empty() && self.partial.is_none() => return Poll::Ready(None),
                None => {
                    (self.rest, self.partial) = (Bytes::new(), None);
                    return Poll::Ready(Some(Err(Error::invalid("the gRPC message is cut off"))));
                }
            }
        }
    }

    fn push(&mut self, mut piece: Bytes) {
        if let Some((partial, length)) = &mut self.partial {
            let taken = piece.split_to(piece.len().min(*length - partial.len()));
            partial.extend_from_slice(&taken);
        }
        if self.rest.is_empty() {
            self.rest = piece;
        } else {
            // At most the few bytes of a prefix that was cut.
            let mut joined = BytesMut::with_capacity(self.rest.len() + piece.len());
            joined.extend_from_slice(&self.rest);
            joined.extend_from_slice(&piece);
            self.rest = joined.freeze();
        }
    }

    /// A message if one is complete.
    fn take(&mut self) -> Result<Option<Bytes>> {
        if let Some((partial, length)) = &mut self.partial {
            if partial.len() < *length {
                return Ok(None);
            }
            let whole = std::mem::take(partial).freeze();
            self.partial = None;
            return self.unpack(whole).map(Some);
        }
        let Some(&[_, a, b, c, d]) = self.rest.first_chunk::<PREFIX_BYTES>() else { return Ok(None) };
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if length > self.limit {
            return Err(too_long(self.limit));
        }
        let length = PREFIX_BYTES + length;
        if self.rest.len() >= length {
            let whole = self.rest.split_to(length);
            return self.unpack(whole).map(Some);
        }
        // What is announced need not come: room for more than this is made as it arrives.
        let mut partial = BytesMut::with_capacity(length.min(MAX_FORESEEN_BYTES));
        partial.extend_from_slice(&self.rest);
        self.rest = Bytes::new();
        self.partial = Some((partial, length));
        Ok(None)
    }

    fn unpack(&self, mut whole: Bytes) -> Result<Bytes> {
        let flag = whole[0];
        whole.advance(PREFIX_BYTES);
        match (flag, self.coding) {
            (0, _) => Ok(whole),
            (1, Some(coding)) => Unpack::whole(coding, &whole, self.limit),
            (1, None) => Err(Error::internal("the message is compressed, but no grpc-encoding says how")),
            (other, _) => Err(Error::internal(format!("the gRPC message has the unknown flag {other}"))),
        }
    }
}
