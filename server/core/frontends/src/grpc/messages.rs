//! The messages of a gRPC request stream.

use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use kingpole_values::Error;

use crate::body::{BodyError, Source};
use crate::budget::{COUNTED_BYTES, Charge};
use crate::coding::Coding;
use crate::connection::Shared;
use crate::gather::Gathered;
use crate::unpack::{Unpack, too_long};

const PREFIX_BYTES: usize = 5;

/// How long a client may take to end its side of a call that was answered, and what it may still send.
const END_TIMEOUT: Duration = Duration::from_secs(10);
const SKIPPED_AT_END_BYTES: usize = 64 << 10;

/// Why there is no message.
pub(crate) struct MessageError {
    pub(crate) error: Error,
    /// Set if only this message is refused, for want of memory, and the next ones can be read: what
    /// had come of it.
    pub(crate) beginning: Option<Bytes>,
}

impl From<Error> for MessageError {
    fn from(error: Error) -> Self {
        Self { error, beginning: None }
    }
}

impl From<MessageError> for Error {
    fn from(refused: MessageError) -> Self {
        refused.error
    }
}

/// Reads messages, each with the limits checked from its announced length.
///
/// A message that came in one piece is a view of it; others are put together in one buffer.
pub(crate) struct Messages {
    source: Source,
    coding: Option<Coding>,
    shared: Rc<Shared>,
    rest: Bytes,
    partial: Option<Partial>,
    /// A compressed message being read, and what is left of it.
    unpacking: Option<Box<(Unpack, Bytes)>>,
    /// Whether the last message was compressed.
    was_packed: bool,
    /// What the stream costs while it is waited for.
    waiting: Option<Charge>,
    /// Bytes of a refused message that are still to come.
    skipped: usize,
}

struct Partial {
    flag: u8,
    length: usize,
    gathered: Gathered,
}

type Result<T> = std::result::Result<T, MessageError>;

impl Messages {
    pub(crate) fn new(source: Source, coding: Option<Coding>, shared: Rc<Shared>) -> Self {
        Self {
            source,
            coding,
            shared,
            rest: Bytes::new(),
            partial: None,
            unpacking: None,
            was_packed: false,
            waiting: None,
            skipped: 0,
        }
    }

    /// No more messages are wanted of a call that has but one. Its end may still be on its way, as some clients send it
    /// by itself: a stream that is dropped before would be reset, and enough of these end the connection.
    pub(crate) fn finish(self) {
        let Source::Http2(stream) = &self.source else { return };
        if stream.is_end_stream() {
            return;
        }
        let mut source = self.source;
        tokio::task::spawn_local(async move {
            let end = async {
                let mut skipped = 0;
                while let Some(Ok(piece)) = std::future::poll_fn(|cx| source.poll_piece(cx)).await {
                    skipped += piece.len();
                    if skipped > SKIPPED_AT_END_BYTES {
                        break;
                    }
                }
            };
            // Who does not end its side in time has its stream reset, which is what dropping it does.
            let _ = tokio::time::timeout(END_TIMEOUT, end).await;
        });
    }

    /// How the last message was compressed.
    pub(crate) fn coding_of_last(&self) -> Option<Coding> {
        self.coding.filter(|_| self.was_packed)
    }

    /// The next message; `None` once the client has ended its side.
    pub(crate) fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes>>> {
        loop {
            if let Some(unpacking) = &mut self.unpacking {
                let (unpack, rest) = &mut **unpacking;
                match unpack.turn(rest) {
                    Ok(false) => {
                        // Others have their turn first.
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                    turned => return Poll::Ready(Some(self.unpacked(turned))),
                }
            }
            match self.take() {
                Ok(Some(message)) => return Poll::Ready(Some(Ok(message))),
                Ok(None) if self.unpacking.is_some() => continue,
                Ok(None) => {}
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
            let Poll::Ready(piece) = self.source.poll_piece(cx) else {
                return match self.wait() {
                    Ok(()) => Poll::Pending,
                    Err(error) => Poll::Ready(Some(Err(error))),
                };
            };
            match piece {
                Some(Ok(piece)) => {
                    if let Err(refused) = self.push(piece) {
                        return Poll::Ready(Some(Err(refused)));
                    }
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                None if self.rest.is_empty() && self.partial.is_none() && self.skipped == 0 => {
                    return Poll::Ready(None);
                }
                None => {
                    (self.rest, self.partial, self.skipped) = (Bytes::new(), None, 0);
                    return Poll::Ready(Some(Err(Error::invalid("the gRPC message is cut off").into())));
                }
            }
        }
    }

    fn wait(&mut self) -> Result<()> {
        if self.partial.is_none() && self.waiting.is_none() {
            let mut charge = self.shared.memory.open();
            charge.wait()?;
            self.waiting = Some(charge);
        }
        Ok(())
    }

    fn push(&mut self, mut piece: Bytes) -> Result<()> {
        let skipped = piece.len().min(self.skipped);
        piece.advance(skipped);
        self.skipped -= skipped;
        let mut pushed = Ok(());
        if let Some(mut partial) = self.partial.take() {
            let missing = partial.length - partial.gathered.len();
            let taken = piece.split_to(piece.len().min(missing));
            match partial.gathered.add(&taken) {
                Ok(()) => self.partial = Some(partial),
                Err(error) => {
                    self.skipped = missing - taken.len();
                    pushed = Err(MessageError { error, beginning: Some(partial.gathered.abandon()) });
                }
            }
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
        pushed
    }

    /// A message if one is complete.
    fn take(&mut self) -> Result<Option<Bytes>> {
        if let Some(partial) = self.partial.take_if(|partial| partial.gathered.len() == partial.length) {
            return self.begin(partial.flag, partial.gathered.finish());
        }
        if self.partial.is_some() {
            return Ok(None);
        }
        let Some(&[flag, a, b, c, d]) = self.rest.first_chunk::<PREFIX_BYTES>() else { return Ok(None) };
        let (length, limit) =
            (u32::from_be_bytes([a, b, c, d]) as usize, self.shared.configuration.max_body_bytes);
        if length > limit {
            return Err(too_long(limit).into());
        }
        self.rest.advance(PREFIX_BYTES);
        if self.rest.len() >= length {
            let whole = self.rest.split_to(length);
            let whole = self.charge(whole)?;
            return self.begin(flag, whole);
        }
        let charge = self.waiting.take().unwrap_or_else(|| self.shared.memory.open());
        let mut gathered = Gathered::new(length, charge);
        let beginning = std::mem::take(&mut self.rest);
        if let Err(error) = gathered.add(&beginning) {
            self.skipped = length - beginning.len();
            return Err(MessageError { error, beginning: Some(beginning) });
        }
        self.partial = Some(Partial { flag, length, gathered });
        Ok(None)
    }

    /// Charge a message that was there whole, if it is long.
    fn charge(&self, whole: Bytes) -> Result<Bytes> {
        if whole.len() < COUNTED_BYTES {
            return Ok(whole);
        }
        let mut charge = self.shared.memory.open();
        match charge.cover(whole.len()) {
            Ok(()) => Ok(charge.hold(whole)),
            Err(error) => Err(MessageError { error, beginning: Some(whole) }),
        }
    }

    /// A whole message, or the beginning of its decompression.
    fn begin(&mut self, flag: u8, whole: Bytes) -> Result<Option<Bytes>> {
        self.was_packed = flag == 1;
        match (flag, self.coding) {
            (0, _) => Ok(Some(whole)),
            (1, Some(coding)) => {
                let limit = self.shared.configuration.max_body_bytes;
                let unpack = Unpack::new(coding, limit, self.shared.memory.open());
                self.unpacking = Some(Box::new((unpack, whole)));
                Ok(None)
            }
            (1, None) => {
                Err(Error::internal("the message is compressed, but no grpc-encoding says how").into())
            }
            (other, _) => {
                Err(Error::internal(format!("the gRPC message has the unknown flag {other}")).into())
            }
        }
    }

    /// The message of which the last turn was taken.
    fn unpacked(&mut self, turned: std::result::Result<bool, BodyError>) -> Result<Bytes> {
        let finished = match self.unpacking.take() {
            Some(unpacking) => turned.and_then(|_| unpacking.0.finish()),
            None => Ok(Bytes::new()),
        };
        finished.map_err(|refused| match refused {
            // What is compressed has no beginning that can be read.
            BodyError::NoRoom(error) => MessageError { error, beginning: Some(Bytes::new()) },
            refused => Error::from(refused).into(),
        })
    }
}
