//! Frames out of a stream of bytes that comes in pieces of any size.

use bytes::{Buf, Bytes, BytesMut};
use kingpole_values::{Error, Result};

use super::layout::{PRELUDE_BYTES, Prelude, payload_ranges, read_header};
use super::{Frame, decode};

/// The most room made at once for a frame that only announced itself.
const RESERVE_BYTES: usize = 4 << 20;

/// The exchange of a frame whose header is there, from the frame's beginning.
pub fn peek_exchange(beginning: &[u8]) -> Option<u64> {
    let prelude = Prelude::read(beginning).ok()??;
    let header = beginning.get(PRELUDE_BYTES..PRELUDE_BYTES + prelude.header_bytes)?;
    Some(read_header(header).ok()?.exchange())
}

/// Collects bytes and gives frames.
///
/// A frame's size is known, and checked against the limit, as soon as its header is there. After an
/// error the stream is lost: every later call gives the same error.
#[derive(Debug)]
pub struct FrameReader {
    buffer: BytesMut,
    max_frame_bytes: usize,
    /// Size of the frame at the buffer's start, once its header was read.
    frame_bytes: Option<usize>,
    /// Bytes of a frame given up by [`Self::skip_frame`] that are still to come.
    skipped: usize,
    failed: Option<Error>,
}

impl FrameReader {
    /// A reader that refuses frames above `max_frame_bytes`.
    pub fn new(max_frame_bytes: usize) -> Self {
        Self { buffer: BytesMut::new(), max_frame_bytes, frame_bytes: None, skipped: 0, failed: None }
    }

    /// Append received bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.failed.is_none() {
            self.buffer.extend_from_slice(bytes);
        }
    }

    /// The buffer, to receive into without a copy.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// Whether the stream may end here: no frame has begun.
    pub fn is_at_boundary(&self) -> bool {
        self.buffer.is_empty() && self.skipped == 0 && self.failed.is_none()
    }

    /// The next whole frame, or `None` until more bytes are pushed.
    pub fn next_frame(&mut self) -> Result<Option<Frame>> {
        let decoded = self.next_frame_bytes().and_then(|frame| frame.map(decode).transpose());
        if let Err(error) = &decoded {
            self.failed.get_or_insert_with(|| error.clone());
        }
        decoded
    }

    /// The same, not decoded.
    pub fn next_frame_bytes(&mut self) -> Result<Option<Bytes>> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let result = self.advance();
        if let Err(error) = &result {
            self.failed = Some(error.clone());
            self.buffer = BytesMut::new();
        }
        result
    }

    /// Give up the frame at the buffer's start and pass over the rest of it. Gives its exchange; `None`,
    /// with nothing given up, as long as its header is not there.
    pub fn skip_frame(&mut self) -> Option<u64> {
        let frame_bytes = self.frame_bytes?;
        let exchange = peek_exchange(&self.buffer)?;
        self.frame_bytes = None;
        self.skipped = frame_bytes;
        self.pass_over();
        Some(exchange)
    }

    fn pass_over(&mut self) {
        let passed = self.skipped.min(self.buffer.len());
        self.skipped -= passed;
        if passed == self.buffer.len() {
            self.buffer = BytesMut::new();
        } else {
            self.buffer.advance(passed);
        }
    }

    fn advance(&mut self) -> Result<Option<Bytes>> {
        if self.skipped > 0 {
            self.pass_over();
        }
        let frame_bytes = match self.frame_bytes {
            Some(frame_bytes) => frame_bytes,
            None => match self.measure()? {
                Some(frame_bytes) => *self.frame_bytes.insert(frame_bytes),
                None => return Ok(None),
            },
        };
        if self.buffer.len() < frame_bytes {
            let missing = frame_bytes - self.buffer.len();
            self.buffer.reserve(missing.min(RESERVE_BYTES));
            return Ok(None);
        }
        self.frame_bytes = None;
        Ok(Some(self.buffer.split_to(frame_bytes).freeze()))
    }

    /// The size of the frame that has begun, if its header is there.
    fn measure(&self) -> Result<Option<usize>> {
        let Some(prelude) = Prelude::read(&self.buffer)? else { return Ok(None) };
        self.check_limit(prelude.payloads_at())?;
        let Some(header) = self.buffer.get(PRELUDE_BYTES..PRELUDE_BYTES + prelude.header_bytes) else {
            return Ok(None);
        };
        let (_, frame_bytes) = payload_ranges(prelude, &read_header(header)?)?;
        self.check_limit(frame_bytes)?;
        Ok(Some(frame_bytes))
    }

    fn check_limit(&self, frame_bytes: usize) -> Result<()> {
        if frame_bytes > self.max_frame_bytes {
            return Err(Error::exhausted(format!(
                "a frame of {frame_bytes} bytes; at most {} are taken",
                self.max_frame_bytes
            )));
        }
        Ok(())
    }
}
