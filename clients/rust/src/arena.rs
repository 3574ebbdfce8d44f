//! Memory shared with a server on this machine: tensors lie in it and do not travel through the socket.
//!
//! Knows no socket. One arena belongs to one connection and ends with it: a server may go on writing to the memory
//! of a connection that has broken, so what was placed there is not used for another.
//!
//! Source: protocol/spec/shared-memory.md

use std::collections::HashMap;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use kingpole_memory::{ALIGNMENT_BYTES, Mapping, SEALS, view};
use kingpole_values::{ByteString, Code, InferRequest, RequestedOutput, Stage};
use kingpole_wire::frame::{Message, SharedTensor};
use rustix::fs::{MemfdFlags, fcntl_add_seals, ftruncate, memfd_create};

use crate::{Error, Result};

/// The number of the one arena of a connection.
pub(crate) const ARENA: u32 = 0;
/// Shorter tensors travel in the frame: a copy costs less than the bookkeeping.
const SMALLEST_BYTES: usize = 4096;
const PAGE_BYTES: usize = 4096;
const MOST_LEARNED: usize = 1024;

/// Model, version and outputs asked for.
type Key = (ByteString, Option<ByteString>, Vec<ByteString>);

/// A sealed memfd, mapped here and by the server, and which of it is free.
pub(crate) struct Arena {
    mapping: Mapping,
    /// Ascending, none of which touch.
    free: Mutex<Vec<Range<usize>>>,
    /// The size of each output of the last response.
    learned: Mutex<HashMap<Key, Vec<(ByteString, usize)>>>,
}

impl Arena {
    /// New memory, and the descriptor to hand over.
    pub(crate) fn new(nbytes: usize) -> Result<(Arc<Self>, OwnedFd)> {
        let refused = |error: rustix::io::Errno| {
            Error::new(Code::ResourceExhausted, format!("no shared memory of {nbytes} bytes: {error}"))
        };
        let size = nbytes.checked_next_multiple_of(PAGE_BYTES).filter(|&size| size > 0);
        let Some(size) = size else {
            return Err(Error::invalid(format!("shared memory of {nbytes} bytes cannot be")));
        };
        let descriptor = memfd_create("kingpole-client", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
            .map_err(refused)?;
        ftruncate(&descriptor, size as u64).map_err(refused)?;
        // The server maps it only if nobody can change its size any more.
        fcntl_add_seals(&descriptor, SEALS).map_err(refused)?;
        let mapping = Mapping::of(&descriptor)?;
        let (free, learned) = (Mutex::new(vec![Range { start: 0, end: size }]), Mutex::default());
        Ok((Arc::new(Self { mapping, free, learned }), descriptor))
    }

    pub(crate) fn nbytes(&self) -> usize {
        self.mapping.bytes()
    }

    /// Reserve a range; `None` if there is no room.
    pub(crate) fn take(self: &Arc<Self>, nbytes: usize) -> Option<Block> {
        let wanted = nbytes.checked_next_multiple_of(ALIGNMENT_BYTES)?.max(ALIGNMENT_BYTES);
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let at = free.iter().position(|range| range.len() >= wanted)?;
        let offset = free[at].start;
        free[at].start += wanted;
        if free[at].is_empty() {
            free.remove(at);
        }
        Some(Block { arena: Arc::clone(self), offset, nbytes, reserved: wanted })
    }

    fn give_back(&self, range: Range<usize>) {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let at = free.partition_point(|other| other.start < range.start);
        free.insert(at, range);
        if free.get(at + 1).is_some_and(|next| next.start == free[at].end) {
            free[at].end = free.remove(at + 1).end;
        }
        if at > 0 && free[at - 1].end == free[at].start {
            free[at - 1].end = free.remove(at).end;
        }
    }

    /// Put a request's inputs where they are not yet, and reserve room for the outputs if their sizes are known.
    pub(crate) fn place(self: &Arc<Self>, request: &InferRequest) -> (InferRequest, Placement) {
        let mut request = request.clone();
        let outputs = request.outputs.iter().map(|output| output.name.clone()).collect();
        let key = (request.model.clone(), request.version.clone(), outputs);
        let mut placement = Placement {
            arena: Arc::clone(self),
            key,
            inputs: Vec::new(),
            outputs: Vec::new(),
            kept: Vec::new(),
        };
        for (index, tensor) in request.inputs.iter_mut().enumerate() {
            let nbytes = tensor.data.len();
            let (offset, kept) = if let Some(offset) = self.offset(&tensor.data) {
                (offset, tensor.data.clone())
            } else if nbytes < SMALLEST_BYTES {
                continue;
            } else {
                let Some(block) = self.take(nbytes) else { continue };
                self.mapping.write(block.offset, &tensor.data);
                (block.offset, Arc::new(block).bytes(nbytes))
            };
            placement.kept.push(kept);
            placement.inputs.push(shared(index, offset, nbytes));
        }
        self.place_outputs(&mut request, &mut placement);
        (request, placement)
    }

    fn place_outputs(self: &Arc<Self>, request: &mut InferRequest, placement: &mut Placement) {
        let learned = self.learned.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(sizes) = learned.get(&placement.key) else { return };
        if request.outputs.is_empty() {
            let output = |(name, _): &(ByteString, usize)| RequestedOutput {
                name: name.clone(),
                ..RequestedOutput::default()
            };
            request.outputs = sizes.iter().map(output).collect();
        }
        for (index, output) in request.outputs.iter().enumerate() {
            let size = sizes.iter().find(|(name, _)| *name == output.name).map_or(0, |(_, size)| *size);
            if size >= SMALLEST_BYTES
                && let Some(block) = self.take(size)
            {
                placement.outputs.push((index, Arc::new(block)));
            }
        }
    }

    /// Where bytes are that lie in this memory already.
    fn offset(&self, data: &Bytes) -> Option<usize> {
        let offset = data.as_ptr().addr().checked_sub(self.mapping.contents().as_ptr().addr())?;
        let end = offset.checked_add(data.len())?;
        (!data.is_empty() && end <= self.nbytes()).then_some(offset)
    }
}

impl AsRef<Mapping> for Arena {
    fn as_ref(&self) -> &Mapping {
        &self.mapping
    }
}

fn shared(index: usize, offset: usize, nbytes: usize) -> SharedTensor {
    SharedTensor { index, arena: ARENA, offset: offset as u64, nbytes: nbytes as u64 }
}

/// A range of an arena, which is free again when the last that holds it is gone.
pub(crate) struct Block {
    arena: Arc<Arena>,
    offset: usize,
    nbytes: usize,
    reserved: usize,
}

impl Block {
    /// Its first bytes, which keep it.
    fn bytes(self: &Arc<Self>, nbytes: usize) -> Bytes {
        view(self, self.offset..self.offset + nbytes.min(self.nbytes))
    }
}

impl AsRef<Mapping> for Block {
    fn as_ref(&self) -> &Mapping {
        &self.arena.mapping
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.arena.give_back(self.offset..self.offset + self.reserved);
    }
}

/// Where the tensors of one request are; keeps their ranges until it is dropped.
pub(crate) struct Placement {
    arena: Arc<Arena>,
    key: Key,
    inputs: Vec<SharedTensor>,
    outputs: Vec<(usize, Arc<Block>)>,
    kept: Vec<Bytes>,
}

impl Placement {
    /// Where the inputs are that do not travel.
    pub(crate) fn inputs(&self) -> &[SharedTensor] {
        &self.inputs
    }

    /// Where outputs are wanted.
    pub(crate) fn places(&self) -> impl Iterator<Item = SharedTensor> {
        self.outputs.iter().map(|(index, block)| shared(*index, block.offset, block.nbytes))
    }

    /// The bytes of an output that the server says is there; `None` if it was not asked for there.
    pub(crate) fn find(&self, place: &SharedTensor) -> Option<Bytes> {
        let nbytes = usize::try_from(place.nbytes).ok()?;
        let is_there = |block: &&(usize, Arc<Block>)| {
            place.arena == ARENA && block.1.offset as u64 == place.offset && nbytes <= block.1.nbytes
        };
        self.outputs.iter().find(is_there).map(|(_, block)| block.bytes(nbytes))
    }

    /// Remember how large the outputs were, for the next request like this one.
    pub(crate) fn learn(&self, answer: Option<&Message>) {
        let mut learned = self.arena.learned.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(Message::Response { response, .. }) = answer else {
            // Whatever is wrong now: the next one asks for what the caller says, and nothing else.
            learned.remove(&self.key);
            return;
        };
        if response.stage != Stage::Only {
            return;
        }
        if learned.len() >= MOST_LEARNED && !learned.contains_key(&self.key) {
            learned.clear();
        }
        let sizes: Vec<_> =
            response.outputs.iter().map(|output| (output.name.clone(), output.data.len())).collect();
        if sizes.iter().any(|(_, size)| *size >= SMALLEST_BYTES) {
            // Names of their own: views would keep the frame, and maybe this memory, for ever.
            let owned = |(name, size): (ByteString, usize)| (ByteString::from(&*name), size);
            learned.insert(self.key.clone(), sizes.into_iter().map(owned).collect());
        } else {
            learned.remove(&self.key);
        }
    }
}

/// Room in the memory shared with a server, to be filled and then sent without another copy.
///
/// Made by [`Client::shared_buffer`](crate::Client::shared_buffer).
pub struct SharedBuffer(Block);

impl SharedBuffer {
    pub(crate) fn new(block: Block) -> Self {
        Self(block)
    }

    /// Its size.
    pub fn len(&self) -> usize {
        self.0.nbytes
    }

    /// Whether it has no bytes at all.
    pub fn is_empty(&self) -> bool {
        self.0.nbytes == 0
    }

    /// Write bytes at an offset.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` if they pass its end.
    pub fn write(&mut self, offset: usize, bytes: &[u8]) -> Result<()> {
        if offset.checked_add(bytes.len()).is_none_or(|end| end > self.0.nbytes) {
            return Err(Error::invalid(format!(
                "{} bytes at {offset} pass the end of a buffer of {}",
                bytes.len(),
                self.0.nbytes
            )));
        }
        self.0.arena.mapping.write(self.0.offset + offset, bytes);
        Ok(())
    }

    /// Its bytes, for a [`Tensor`](crate::Tensor); room in the memory again when the last of them is gone.
    pub fn freeze(self) -> Bytes {
        let nbytes = self.0.nbytes;
        Arc::new(self.0).bytes(nbytes)
    }
}

impl std::fmt::Debug for SharedBuffer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("SharedBuffer").field("len", &self.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use kingpole_values::{InferResponse, Tensor};

    use super::*;

    fn request(nbytes: usize) -> InferRequest {
        let tensor = Tensor::new("x", &[i64::try_from(nbytes).unwrap()], vec![7u8; nbytes]).unwrap();
        InferRequest { model: "m".into(), inputs: vec![tensor], ..InferRequest::default() }
    }

    #[test]
    fn ranges_are_free_again_when_the_last_view_is_gone() {
        let (arena, _descriptor) = Arena::new(8192).unwrap();
        let blocks: Vec<_> = (0..3).map(|_| Arc::new(arena.take(2048).unwrap())).collect();
        let seen = blocks[1].bytes(5);
        assert!(arena.take(4096).is_none());
        drop(blocks);
        assert!(arena.take(4097).is_none(), "a view keeps the middle");
        drop(seen);
        assert_eq!(arena.free.lock().unwrap()[..], [Range { start: 0, end: 8192 }]);
    }

    #[test]
    fn big_inputs_are_placed_once_and_small_ones_travel() {
        let (arena, _descriptor) = Arena::new(1 << 20).unwrap();
        let (small, placement) = arena.place(&request(100));
        assert!(placement.inputs().is_empty() && small == request(100));
        let (_, placement) = arena.place(&request(5000));
        assert_eq!(placement.inputs(), [shared(0, 0, 5000)]);
        assert_eq!(arena.mapping.contents()[..5000], [7; 5000]);
        let mut buffer = SharedBuffer::new(arena.take(6000).unwrap());
        buffer.write(1, &[1, 2]).unwrap();
        assert!(buffer.write(5999, &[1, 2]).is_err());
        let mut there = request(1);
        there.inputs[0].data = buffer.freeze();
        let (_, placed) = arena.place(&there);
        assert_eq!(placed.inputs(), [shared(0, 5056, 6000)], "it is there already");
    }

    #[test]
    fn outputs_are_wanted_where_the_last_ones_would_have_fitted() {
        let (arena, _descriptor) = Arena::new(1 << 20).unwrap();
        let (_, placement) = arena.place(&request(10));
        assert_eq!(placement.places().count(), 0);
        let outputs = vec![Tensor::new("y", &[9000], vec![1u8; 9000]).unwrap()];
        let response = InferResponse { outputs, ..InferResponse::default() };
        placement.learn(Some(&Message::Response { response, shared: vec![] }));
        let (asked, placement) = arena.place(&request(10));
        assert_eq!(asked.outputs[0].name, "y");
        assert_eq!(placement.places().collect::<Vec<_>>(), [shared(0, 0, 9000)]);
        assert_eq!(placement.find(&shared(0, 0, 8999)).unwrap().len(), 8999);
        for lie in [shared(0, 0, 9001), shared(0, 64, 1), SharedTensor { arena: 1, ..shared(0, 0, 1) }] {
            assert!(placement.find(&lie).is_none(), "{lie:?}");
        }
        placement.learn(None);
        assert!(arena.place(&request(10)).0.outputs.is_empty());
    }
}
