//! Laying out a batch: each input's pieces joined along dimension 0, in one arena.

use std::sync::Arc;

use bytes::Bytes;
use kingpole_values::{ByteString, Datatype, Error, Parameters, Result, Shape, Tensor};

use super::arena::{ALIGNMENT_BYTES, ArenaPool, PooledArena};
use super::shared::Lent;

/// An input of a batch, as it came: one piece per request.
#[derive(Clone, Debug)]
pub struct BatchInput {
    /// Its name.
    pub name: ByteString,
    /// Type of the elements.
    pub datatype: Datatype,
    /// The shape of the whole: dimension 0 counts the rows of all requests.
    pub shape: Shape,
    /// What each request gave, in the order of the batch.
    pub pieces: Vec<Bytes>,
}

impl From<Tensor> for BatchInput {
    fn from(tensor: Tensor) -> Self {
        let Tensor { name, datatype, shape, data } = tensor;
        Self { name, datatype, shape, pieces: vec![data] }
    }
}

/// A batch for a worker.
#[derive(Clone, Debug, Default)]
pub struct ExecuteRequest {
    /// The loaded model.
    pub handle: u32,
    /// Inputs, in the order of the specification; absent optional ones left out.
    pub inputs: Vec<BatchInput>,
    /// Rows of the batch.
    pub rows: u32,
    /// Rows of each request in it.
    pub request_rows: Vec<u32>,
    /// Bytes that the outputs are thought to take. Too few costs the worker an arena of its own.
    pub output_bytes: usize,
    /// Parameters of each request; empty if none has any.
    pub parameters: Vec<Parameters>,
}

/// A batch that was executed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Executed {
    /// Outputs, in the order in which the model gave them. Each may be a view of shared memory.
    pub outputs: Vec<Tensor>,
    /// How long the model itself took, by the worker's clock.
    pub execute_us: u64,
    /// Bytes of all outputs: what the next batch's `output_bytes` may be learned from.
    pub output_bytes: usize,
}

/// One of a batch's several responses.
#[derive(Debug)]
pub struct Part {
    /// Its outputs; small ones were copied, others are views of the worker's memory.
    pub outputs: Vec<Tensor>,
    /// The worker may use its memory again, and go on, when this is dropped.
    pub(super) _memory: Arc<Lent>,
}

/// Where the parts of a batch lie.
pub(super) struct Layout {
    pub arena: PooledArena,
    /// Offset and bytes of each input.
    pub inputs: Vec<(usize, usize)>,
    /// Offset and bytes of what the worker may write to.
    pub free: (usize, usize),
}

/// Copy a batch's inputs into an arena, each byte once.
pub(super) fn lay_out(pool: &Arc<ArenaPool>, request: &ExecuteRequest) -> Result<Layout> {
    let too_large = || Error::exhausted("a batch is too large");
    let mut inputs = Vec::with_capacity(request.inputs.len());
    let mut end = 0usize;
    for input in &request.inputs {
        let bytes = joined_bytes(input)?;
        inputs.push((end, bytes));
        end = end
            .checked_add(bytes)
            .and_then(|end| end.checked_next_multiple_of(ALIGNMENT_BYTES))
            .ok_or_else(too_large)?;
    }
    // Each output starts at a multiple of 64 as well; a few lines of slack cover that.
    let wanted = request
        .output_bytes
        .checked_add(end)
        .and_then(|bytes| bytes.checked_add(16 * ALIGNMENT_BYTES))
        .ok_or_else(too_large)?;
    let mut arena = pool.take(wanted)?;
    let memory = arena.contents_mut();
    for (input, &(offset, _)) in request.inputs.iter().zip(&inputs) {
        let mut place = offset;
        for piece in &input.pieces {
            memory[place..place + piece.len()].copy_from_slice(piece);
            place += piece.len();
        }
    }
    let free = (end, memory.len() - end);
    Ok(Layout { arena, inputs, free })
}

/// Bytes of all pieces, checked against the shape of the whole.
fn joined_bytes(input: &BatchInput) -> Result<usize> {
    let bytes = input
        .pieces
        .iter()
        .try_fold(0usize, |sum, piece| sum.checked_add(piece.len()))
        .ok_or_else(|| Error::exhausted("a batch is too large"))?;
    let fits = match (input.shape.elements(), input.datatype.element_bytes()) {
        (None, _) => false,
        (Some(elements), Some(element_bytes)) => elements.checked_mul(element_bytes) == Some(bytes),
        // The engine's validator has counted the elements of each request.
        (Some(_), None) => true,
    };
    if fits {
        Ok(bytes)
    } else {
        Err(Error::invalid(format!(
            "input '{}': the pieces have {bytes} bytes, which {} {} does not need",
            input.name, input.datatype, input.shape
        )))
    }
}
