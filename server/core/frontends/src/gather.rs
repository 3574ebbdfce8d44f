//! Bytes that come in pieces, put together in one buffer and charged as they come.

use bytes::{Bytes, BytesMut};
use kingpole_values::Result;

use crate::budget::Charge;

/// The most room that is made at once on the strength of an announcement: what is announced need not come.
const FORESEEN_BYTES: usize = 1 << 20;

pub(crate) struct Gathered {
    bytes: BytesMut,
    announced: usize,
    charge: Charge,
}

impl Gathered {
    /// Nothing yet, of what was announced as so many bytes.
    pub(crate) fn new(announced: usize, charge: Charge) -> Self {
        Self { bytes: BytesMut::new(), announced, charge }
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Append a piece. If there is no room for it, what was gathered stays as it is.
    pub(crate) fn add(&mut self, piece: &[u8]) -> Result<()> {
        let have = self.bytes.len();
        self.charge.cover(have + piece.len())?;
        if self.bytes.capacity() - have < piece.len() {
            // At most twice of what has come, or a fixed start.
            let left = self.announced.saturating_sub(have).min(have.max(FORESEEN_BYTES));
            self.bytes.reserve(left.max(piece.len()));
        }
        self.bytes.extend_from_slice(piece);
        Ok(())
    }

    /// The whole, charged until its last view is dropped.
    pub(crate) fn finish(self) -> Bytes {
        self.charge.hold(self.bytes.freeze())
    }

    /// What has come, charged no more.
    pub(crate) fn abandon(self) -> Bytes {
        self.bytes.freeze()
    }
}
