//! Messages on their way out: buffers one after another, none of which is copied. Knows no transport.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io::IoSlice;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use kingpole_wire::Scatter;

/// Buffers to write, of which none is empty.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    chunks: VecDeque<Bytes>,
    nbytes: usize,
}

impl Outgoing {
    pub(crate) fn push(&mut self, chunk: Bytes) {
        if !chunk.is_empty() {
            self.nbytes += chunk.len();
            self.chunks.push_back(chunk);
        }
    }

    pub(crate) fn append(&mut self, scatter: Scatter) {
        for chunk in scatter.into_chunks() {
            self.push(chunk);
        }
    }
}

impl From<Scatter> for Outgoing {
    fn from(scatter: Scatter) -> Self {
        let mut outgoing = Self::default();
        outgoing.append(scatter);
        outgoing
    }
}

impl Buf for Outgoing {
    fn remaining(&self) -> usize {
        self.nbytes
    }

    fn chunk(&self) -> &[u8] {
        self.chunks.front().map_or(&[], |chunk| chunk)
    }

    fn advance(&mut self, mut nbytes: usize) {
        assert!(nbytes <= self.nbytes, "no more is advanced than there is");
        self.nbytes -= nbytes;
        while nbytes > 0 {
            let Some(chunk) = self.chunks.front_mut() else { break };
            let step = nbytes.min(chunk.len());
            chunk.advance(step);
            nbytes -= step;
            if chunk.is_empty() {
                self.chunks.pop_front();
            }
        }
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut used = 0;
        for (slice, chunk) in slices.iter_mut().zip(&self.chunks) {
            *slice = IoSlice::new(chunk);
            used += 1;
        }
        used
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let chunk = self.chunks.pop_front();
        self.nbytes -= chunk.as_ref().map_or(0, Bytes::len);
        Poll::Ready(chunk.map(|chunk| Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.chunks.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.nbytes as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_leave_in_order_whatever_is_taken_at_once() {
        for step in [1, 2, 3, 7, 100] {
            let mut outgoing = Outgoing::default();
            for chunk in [&b"abc"[..], b"", b"d", b"efgh"] {
                outgoing.push(Bytes::from_static(chunk));
            }
            let mut read: Vec<u8> = Vec::new();
            while outgoing.has_remaining() {
                let mut slices = [IoSlice::new(&[]); 2];
                let used = outgoing.chunks_vectored(&mut slices);
                let seen: Vec<u8> = slices[..used].iter().flat_map(|slice| slice.to_vec()).collect();
                let taken = step.min(seen.len());
                read.extend_from_slice(&seen[..taken]);
                outgoing.advance(taken);
            }
            assert_eq!(read, b"abcdefgh");
        }
    }
}
