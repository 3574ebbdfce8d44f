//! Reading a request's body: one place that checks limits, for every protocol over HTTP.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use http::{HeaderMap, header};
use http_body::Body as _;
use hyper::body::Incoming;
use kingpole_values::{Code, Error, Result};

use crate::FrontendConfiguration;
use crate::budget::{Account, Charge};
use crate::coding::{Coding, SUPPORTED};
use crate::connection::Shared;
use crate::gather::Gathered;
use crate::unpack::{Unpack, too_long};

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
    /// Longer than the limit, which no second try changes; the rest was not read.
    TooLong(Error),
    /// The server holds as much as it may. Nothing was done, so that the client may try again.
    NoRoom(Error),
    /// A content coding that we do not know.
    Coding(String),
    /// Corrupt, too slow, or the client left.
    Other(Error),
}

impl From<Error> for BodyError {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

impl From<BodyError> for Error {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::TooLong(error) | BodyError::NoRoom(error) | BodyError::Other(error) => error,
            BodyError::Coding(name) => Self::invalid(unknown_coding(&name)),
        }
    }
}

pub(crate) fn unknown_coding(name: &str) -> String {
    format!("Content-Encoding '{name}' is not supported; use one of {SUPPORTED}, or none")
}

/// Read a whole HTTP body, decompressed, within the configured time, size and memory.
pub(crate) async fn read(
    mut source: Source,
    headers: &HeaderMap,
    shared: &Shared,
) -> std::result::Result<Bytes, BodyError> {
    let configuration = &shared.configuration;
    let reading = read_all(&mut source, headers, configuration, &shared.memory);
    let read = tokio::time::timeout(configuration.body_timeout, reading).await.unwrap_or_else(|_| {
        let message = "the client took too long to send its request";
        Err(BodyError::Other(Error::new(Code::DeadlineExceeded, message)))
    });
    match read {
        // A client that waits to be told to go on need not send its body after a refusal.
        Err(BodyError::NoRoom(error)) if headers.contains_key(header::EXPECT) => Err(BodyError::Other(error)),
        Err(BodyError::NoRoom(error)) => {
            pass_over(source, configuration.body_timeout);
            Err(BodyError::NoRoom(error))
        }
        read => read,
    }
}

/// The most of a refused body that is read and thrown away so that its connection can go on.
const PASSED_OVER_BYTES: usize = 64 << 20;

/// Let an HTTP/1.1 connection go on after a refusal: what comes of the body is thrown away.
fn pass_over(mut source: Source, timeout: Duration) {
    if matches!(source, Source::Http2(_)) {
        return;
    }
    tokio::task::spawn_local(async move {
        let reading = async {
            let mut passed = 0;
            while let Some(Ok(piece)) = std::future::poll_fn(|cx| source.poll_piece(cx)).await {
                passed += piece.len();
                if passed > PASSED_OVER_BYTES {
                    break;
                }
            }
        };
        // Too much or too slow: dropping the body closes its connection.
        let _ = tokio::time::timeout(timeout, reading).await;
    });
}

/// A body being read; what of it is waited for, or long, is charged.
struct Reading<'a> {
    source: &'a mut Source,
    charge: Charge,
}

impl Reading<'_> {
    async fn next(&mut self) -> std::result::Result<Option<Bytes>, BodyError> {
        let Self { source, charge } = self;
        std::future::poll_fn(|cx| match source.poll_piece(cx) {
            // Of HTTP/1.1 there is one for each connection, and connections are limited.
            Poll::Pending if matches!(source, Source::Http2(_)) => match charge.wait() {
                Ok(()) => Poll::Pending,
                Err(error) => Poll::Ready(Err(BodyError::NoRoom(error))),
            },
            piece => piece.map(|piece| piece.transpose().map_err(BodyError::Other)),
        })
        .await
    }
}

async fn read_all(
    source: &mut Source,
    headers: &HeaderMap,
    configuration: &FrontendConfiguration,
    memory: &Arc<Account>,
) -> std::result::Result<Bytes, BodyError> {
    let limit = configuration.max_body_bytes;
    let announced = announced(headers);
    if announced.is_some_and(|length| length > limit as u64) {
        return Err(BodyError::TooLong(too_long(limit)));
    }
    let coding = match headers.get(header::CONTENT_ENCODING) {
        None => None,
        Some(name) if name.as_bytes().eq_ignore_ascii_case(b"identity") => None,
        Some(name) => Some(
            Coding::from_name(name.as_bytes())
                .ok_or_else(|| BodyError::Coding(String::from_utf8_lossy(name.as_bytes()).into_owned()))?,
        ),
    };
    let mut reading = Reading { source, charge: memory.open() };
    if let Some(coding) = coding {
        let mut unpack = Unpack::new(coding, limit, memory.open());
        let mut received = 0;
        while let Some(piece) = reading.next().await? {
            received += piece.len();
            if received > limit {
                return Err(BodyError::TooLong(too_long(limit)));
            }
            unpack.feed(piece).await?;
        }
        return unpack.finish();
    }
    let Some(first) = reading.next().await? else { return Ok(Bytes::new()) };
    if first.len() > limit {
        return Err(BodyError::TooLong(too_long(limit)));
    }
    let announced = announced.and_then(|length| usize::try_from(length).ok());
    let second = if announced == Some(first.len()) { None } else { reading.next().await? };
    let Some(second) = second else {
        reading.charge.cover(first.len()).map_err(BodyError::NoRoom)?;
        return Ok(reading.charge.hold(first));
    };
    let mut whole = Gathered::new(
        announced.unwrap_or(first.len() * 4),
        std::mem::replace(&mut reading.charge, memory.open()),
    );
    whole.add(&first).map_err(BodyError::NoRoom)?;
    drop(first);
    let mut piece = Some(second);
    while let Some(bytes) = piece {
        if bytes.len() > limit - whole.len() {
            return Err(BodyError::TooLong(too_long(limit)));
        }
        whole.add(&bytes).map_err(BodyError::NoRoom)?;
        piece = reading.next().await?;
    }
    Ok(whole.finish())
}
