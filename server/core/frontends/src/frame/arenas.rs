//! The shared memory that one connection has handed over. Knows frames' places, and no socket.
//!
//! The memory stays the client's, who may write to it whenever it likes. Its size cannot change (it is a sealed
//! memfd), so touching it is safe; what is read twice may differ. Therefore:
//! - bytes that are judged are copied first: BOOL (0 or 1) and BYTES (lengths). So are short tensors, for speed;
//! - all others are only measured, against their shape, which is in the frame; they are views, and
//!   `inputs_may_change` tells whoever executes with them to copy them before. Batches for workers always are.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use kingpole_memory::{LARGEST_BYTES, Mapping, view};
use kingpole_values::{Code, Datatype, Error, InferRequest, InferResponse, Result, Stage};
use kingpole_wire::frame::SharedTensor;

use crate::budget::{COUNTED_BYTES, Charge, MappingSlot};
use crate::connection::Shared;
use crate::regions::within_a_body;
use crate::unix::Descriptors;

/// Arenas that one connection may have handed over at once.
const MAX_ARENAS: usize = 16;

/// The arenas of one connection. All go with it, but for those that a request still uses.
pub(crate) struct Arenas {
    shared: Rc<Shared>,
    descriptors: Descriptors,
    held: HashMap<u32, Arc<Arena>>,
}

struct Arena {
    mapping: Mapping,
    /// The whole counts as held: the server's touch makes pages of it exist.
    _charge: Charge,
    _slot: MappingSlot,
}

impl AsRef<Mapping> for Arena {
    fn as_ref(&self) -> &Mapping {
        &self.mapping
    }
}

/// Where an output goes if it fits.
pub(crate) struct Place {
    output: usize,
    arena: Arc<Arena>,
    number: u32,
    range: Range<usize>,
}

impl Arenas {
    pub(crate) fn new(shared: Rc<Shared>, descriptors: Descriptors) -> Self {
        Self { shared, descriptors, held: HashMap::new() }
    }

    /// Take an arena whose descriptor came with its frame.
    pub(crate) fn take(&mut self, number: u32, nbytes: u64) -> Result<()> {
        // Taken even if the rest is refused: it is this frame's.
        let descriptor = self.descriptors.take();
        let held = self.held.len();
        let Entry::Vacant(place) = self.held.entry(number) else {
            return Err(Error::new(Code::AlreadyExists, format!("arena {number} was handed over already")));
        };
        if held >= MAX_ARENAS {
            return Err(Error::exhausted(format!("{MAX_ARENAS} arenas of this connection are held already")));
        }
        let Some(descriptor) = descriptor else {
            return Err(Error::invalid(format!("no file descriptor came with arena {number}")));
        };
        let Some(size) = usize::try_from(nbytes).ok().filter(|&size| size <= LARGEST_BYTES) else {
            return Err(Error::exhausted(format!(
                "an arena of {nbytes} bytes; at most {LARGEST_BYTES} are taken"
            )));
        };
        let memory = &self.shared.memory;
        let slot = memory.take_mapping()?;
        let mut charge = memory.open();
        charge.cover(size)?;
        let mapping = Mapping::of(&descriptor).map_err(|error| of_arena(number, &error))?;
        if mapping.bytes() != size {
            let message =
                format!("arena {number} was said to have {nbytes} bytes, it has {}", mapping.bytes());
            return Err(Error::invalid(message));
        }
        place.insert(Arc::new(Arena { mapping, _charge: charge, _slot: slot }));
        Ok(())
    }

    /// Give an arena back. It is unmapped when no request uses it any more.
    pub(crate) fn release(&mut self, number: u32) -> Result<()> {
        self.held.remove(&number).map(|_| ()).ok_or_else(|| unknown(number))
    }

    fn locate(&self, place: &SharedTensor) -> Result<(&Arc<Arena>, Range<usize>)> {
        let arena = self.held.get(&place.arena).ok_or_else(|| unknown(place.arena))?;
        let end = place.offset.checked_add(place.nbytes);
        match end.filter(|&end| end <= arena.mapping.bytes() as u64) {
            // The mapping's size is a `usize`, and neither is above it.
            #[allow(clippy::cast_possible_truncation)]
            Some(end) => Ok((arena, place.offset as usize..end as usize)),
            None => Err(Error::invalid(format!(
                "{} bytes at {} pass the end of arena {}, which has {}",
                place.nbytes,
                place.offset,
                place.arena,
                arena.mapping.bytes()
            ))),
        }
    }

    /// Give a request its inputs, and find where its outputs go.
    pub(crate) fn fill(
        &self,
        request: &mut InferRequest,
        inputs: &[SharedTensor],
        places: &[SharedTensor],
    ) -> Result<Vec<Place>> {
        let mut total = 0;
        for input in inputs {
            let tensor = &mut request.inputs[input.index];
            let located = self.locate(input);
            let (arena, range) = located.map_err(|error| {
                Error::new(error.code, format!("input '{}': {}", tensor.name, error.message))
            })?;
            let nbytes = within_a_body(&mut total, input.nbytes, &self.shared)?;
            let is_judged = matches!(tensor.datatype, Datatype::Bool | Datatype::Bytes);
            if is_judged || nbytes < COUNTED_BYTES {
                let mut charge = self.shared.memory.open();
                charge.cover(nbytes)?;
                tensor.data = charge.hold(arena.mapping.copy(range));
            } else {
                tensor.data = view(arena, range);
                request.inputs_may_change = true;
            }
        }
        let found = places.iter().map(|place| {
            let (arena, range) = self.locate(place).map_err(|error| {
                let name = &request.outputs[place.index].name;
                Error::new(error.code, format!("output '{name}': {}", error.message))
            })?;
            Ok(Place { output: place.index, arena: Arc::clone(arena), number: place.arena, range })
        });
        found.collect()
    }
}

/// Write the outputs to their places; what does not fit stays in the response. Gives where those are that do.
pub(crate) fn write(places: &[Place], response: &InferResponse) -> Vec<SharedTensor> {
    // One of several responses would overwrite the one before.
    if response.stage != Stage::Only {
        return Vec::new();
    }
    let mut written = Vec::with_capacity(places.len());
    for place in places {
        let Some(output) = response.outputs.get(place.output) else { continue };
        if output.data.len() > place.range.len() {
            continue;
        }
        place.arena.mapping.write(place.range.start, &output.data);
        written.push(SharedTensor {
            index: place.output,
            arena: place.number,
            offset: place.range.start as u64,
            nbytes: output.data.len() as u64,
        });
    }
    written
}

fn unknown(number: u32) -> Error {
    Error::new(Code::NotFound, format!("arena {number} was not handed over on this connection"))
}

fn of_arena(number: u32, error: &Error) -> Error {
    Error::new(error.code, format!("arena {number}: {}", error.message))
}
