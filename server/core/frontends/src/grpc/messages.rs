//! The messages of a gRPC request stream.

use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use kingpole_values::Error;

use crate::body::{BodyError, Source};
use crate::budget::{COUNTED_BYTES, Charge};
use crate::connection::Shared;
use crate::gather::Gathered;
use crate::unpack::{Coding, Unpack, too_long};

const PREFIX_BYTES: usize = 5;

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
        Self { source, coding, shared, rest: Bytes::new(), partial: None, waiting: None, skipped: 0 }
    }

    /// The next message; `None` once the client has ended its side.
    pub(crate) fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes>>> {
        loop {
            match self.take() {
                Ok(Some(message)) => return Poll::Ready(Some(Ok(message))),
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
            return self.unpack(partial.flag, partial.gathered.finish()).map(Some);
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
            return self.charge(whole).and_then(|whole| self.unpack(flag, whole)).map(Some);
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

    fn unpack(&self, flag: u8, whole: Bytes) -> Result<Bytes> {
        let limit = self.shared.configuration.max_body_bytes;
        match (flag, self.coding) {
            (0, _) => Ok(whole),
            (1, Some(coding)) => {
                let unpacked = Unpack::whole(coding, &whole, limit, self.shared.memory.open());
                unpacked.map_err(|refused| match refused {
                    // What is compressed has no beginning that can be read.
                    BodyError::NoRoom(error) => MessageError { error, beginning: Some(Bytes::new()) },
                    refused => Error::from(refused).into(),
                })
            }
            (1, None) => {
                Err(Error::internal("the message is compressed, but no grpc-encoding says how").into())
            }
            (other, _) => {
                Err(Error::internal(format!("the gRPC message has the unknown flag {other}")).into())
            }
        }
    }
}
