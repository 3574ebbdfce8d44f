//! Bytes in pieces: what an encoder gives, so that a big tensor is never copied into a message.

use bytes::{BufMut, Bytes, BytesMut};
use smallvec::SmallVec;

/// Below this a message is one chunk: copying is cheaper than another write.
const SINGLE_CHUNK_BYTES: usize = 16 * 1024;
/// Below this a tensor is copied into the chunk before it.
const INLINE_BYTES: usize = 2 * 1024;

/// A message in pieces, to be written one after another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scatter {
    chunks: SmallVec<[Bytes; 4]>,
    nbytes: usize,
}

impl Scatter {
    /// Total bytes of all chunks.
    pub fn len(&self) -> usize {
        self.nbytes
    }

    /// Whether there are no bytes at all.
    pub fn is_empty(&self) -> bool {
        self.nbytes == 0
    }

    /// The chunks, in order; none is empty.
    pub fn chunks(&self) -> &[Bytes] {
        &self.chunks
    }

    /// The chunks, in order, to put others of the same bytes in their place.
    pub fn chunks_mut(&mut self) -> &mut [Bytes] {
        &mut self.chunks
    }

    /// The chunks, in order.
    pub fn into_chunks(self) -> SmallVec<[Bytes; 4]> {
        self.chunks
    }

    /// All chunks joined. Free when there is one.
    pub fn into_bytes(mut self) -> Bytes {
        match self.chunks.len() {
            0 => Bytes::new(),
            1 => self.chunks.remove(0),
            _ => {
                let mut joined = BytesMut::with_capacity(self.nbytes);
                for chunk in &self.chunks {
                    joined.put_slice(chunk);
                }
                joined.freeze()
            }
        }
    }
}

impl From<Bytes> for Scatter {
    fn from(chunk: Bytes) -> Self {
        let nbytes = chunk.len();
        Self { chunks: SmallVec::from_iter((nbytes > 0).then_some(chunk)), nbytes }
    }
}

/// Collects a [`Scatter`]: small parts are copied together, big ones kept as they are.
#[derive(Debug)]
pub struct ScatterWriter {
    scatter: Scatter,
    current: BytesMut,
    single: bool,
}

impl ScatterWriter {
    /// A writer for a message of about this many bytes.
    pub fn new(expected_bytes: usize) -> Self {
        let single = expected_bytes < SINGLE_CHUNK_BYTES;
        Self {
            scatter: Scatter::default(),
            current: BytesMut::with_capacity(if single { expected_bytes } else { 1024 }),
            single,
        }
    }

    /// The buffer to append small parts to.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.current
    }

    /// Bytes written so far.
    pub fn len(&self) -> usize {
        self.scatter.nbytes + self.current.len()
    }

    /// Whether nothing was written yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Append bytes; without copying them if they are many.
    pub fn put(&mut self, bytes: &Bytes) {
        if self.single || bytes.len() < INLINE_BYTES {
            self.current.put_slice(bytes);
            return;
        }
        self.flush();
        self.scatter.nbytes += bytes.len();
        self.scatter.chunks.push(bytes.clone());
    }

    /// The message.
    pub fn finish(mut self) -> Scatter {
        self.flush();
        self.scatter
    }

    fn flush(&mut self) {
        if !self.current.is_empty() {
            let chunk = self.current.split().freeze();
            self.scatter.nbytes += chunk.len();
            self.scatter.chunks.push(chunk);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_big_part_is_not_copied_and_a_small_one_is() {
        let big = Bytes::from(vec![7; 100_000]);
        let mut writer = ScatterWriter::new(big.len() + 3);
        writer.put(&Bytes::from_static(b"abc"));
        writer.put(&big);
        let scatter = writer.finish();
        assert_eq!(scatter.len(), 100_003);
        assert_eq!(scatter.chunks().len(), 2);
        assert_eq!(scatter.chunks()[1].as_ptr(), big.as_ptr());
    }

    #[test]
    fn a_small_message_is_one_chunk() {
        let mut writer = ScatterWriter::new(9000);
        writer.put(&Bytes::from(vec![1; 8000]));
        writer.put(&Bytes::from(vec![2; 1000]));
        assert_eq!(writer.finish().chunks().len(), 1);
    }
}
