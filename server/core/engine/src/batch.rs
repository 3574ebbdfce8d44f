//! Joining the inputs of several requests along dimension 0, and giving each its own rows back.

use bytes::{Bytes, BytesMut};
use kingpole_values::{ByteString, Datatype, Error, Parameters, Result, Sequence, Shape, Tensor};
use smallvec::SmallVec;
use tokio::sync::mpsc;

use crate::pending::Pending;
use crate::{ModelSpec, SequencePolicy};

/// One input of a batch, still in the pieces that the clients sent.
#[derive(Clone, Debug)]
pub struct LaneInput {
    /// The input's name.
    pub name: ByteString,
    /// Type of its elements.
    pub datatype: Datatype,
    /// The joined shape.
    pub shape: Shape,
    /// The data of each request, in batch order.
    pub pieces: SmallVec<[Bytes; 4]>,
}

/// A batch for an instance in another process.
#[derive(Clone, Debug)]
pub struct LaneBatch {
    /// Inputs in the specification's order, absent optional ones left out.
    pub inputs: Vec<LaneInput>,
    /// Rows in all.
    pub rows: u32,
    /// Rows of each request.
    pub request_rows: Vec<u32>,
    /// The parameters of each request; empty if none of them has any.
    pub parameters: Vec<Parameters>,
    /// Where the responses of a decoupled model go, one by one; the batch then holds one request. Nobody wants
    /// more of them once the receiver is gone.
    pub parts: Option<mpsc::Sender<Vec<Tensor>>>,
}

/// Responses of a decoupled model that may be on their way from its lane to the client's frontend.
pub(crate) const PARTS_ON_THE_WAY: usize = 4;

impl LaneBatch {
    /// Lay out requests of one model that may share a batch.
    pub(crate) fn of(requests: &[&Pending]) -> Self {
        let head = requests[0];
        let rows: u32 = requests.iter().map(|request| request.rows).sum();
        let inputs = (0..head.inputs.len())
            .filter_map(|index| {
                let first = head.inputs[index].as_ref()?;
                Some(LaneInput {
                    name: first.name.clone(),
                    datatype: first.datatype,
                    shape: joined_shape(&head.model.spec, first, rows),
                    pieces: requests
                        .iter()
                        .filter_map(|request| request.inputs[index].as_ref().map(|t| t.data.clone()))
                        .collect(),
                })
            })
            .collect();
        Self {
            inputs,
            rows,
            request_rows: requests.iter().map(|request| request.rows).collect(),
            parameters: if requests.iter().all(|request| request.parameters.is_empty()) {
                Vec::new()
            } else {
                requests.iter().map(|request| request.parameters.clone()).collect()
            },
            parts: None,
        }
    }
}

/// A request in its row, and what is remembered for it.
pub(crate) struct Row<'a> {
    pub request: &'a Pending,
    pub sequence: &'a Sequence,
    pub states: &'a [Tensor],
}

impl LaneBatch {
    /// Lay out the steps of several sequences, beside what the model is told of them. Rows may be empty, not all.
    pub(crate) fn of_sequences(spec: &ModelSpec, policy: &SequencePolicy, rows: &[Option<Row<'_>>]) -> Self {
        let height = u32::try_from(rows.len()).unwrap_or(u32::MAX);
        let mut inputs = Vec::new();
        let head = rows.iter().flatten().next();
        for index in 0..head.map_or(0, |head| head.request.inputs.len()) {
            let Some(first) = head.and_then(|head| head.request.inputs[index].as_ref()) else { continue };
            let of = |row: &Row<'_>| row.request.inputs[index].as_ref().map(|tensor| tensor.data.clone());
            inputs.push(LaneInput {
                name: first.name.clone(),
                datatype: first.datatype,
                shape: joined_shape(spec, first, height),
                pieces: pieces(rows, of, || empty_row(first)),
            });
        }
        for control in &policy.controls {
            let mut shape: Shape = control.shape.iter().map(|&size| size.max(1)).collect();
            let row_elements = shape.elements().unwrap_or(1);
            if let Some(first) = shape.dimensions_mut().first_mut().filter(|_| spec.max_batch_size > 0) {
                *first = i64::from(height);
            }
            inputs.push(LaneInput {
                name: control.name.clone(),
                datatype: control.datatype,
                shape,
                pieces: pieces(
                    rows,
                    |row| Some(control.say(Some(row.sequence)).repeat(row_elements).into()),
                    || control.say(None).repeat(row_elements).into(),
                ),
            });
        }
        for (index, state) in policy.states.iter().enumerate() {
            let Some(first) = head.and_then(|head| head.states.get(index)) else { continue };
            inputs.push(LaneInput {
                name: state.input.clone(),
                datatype: state.datatype,
                shape: joined_shape(spec, first, height),
                pieces: pieces(
                    rows,
                    |row| row.states.get(index).map(|own| own.data.clone()),
                    || empty_row(first),
                ),
            });
        }
        let parameters = |row: &Option<Row<'_>>| {
            row.as_ref().map_or_else(Parameters::new, |row| row.request.parameters.clone())
        };
        let has_parameters = rows.iter().flatten().any(|row| !row.request.parameters.is_empty());
        Self {
            inputs,
            rows: height,
            request_rows: vec![1; rows.len()],
            parameters: if has_parameters { rows.iter().map(parameters).collect() } else { Vec::new() },
            parts: None,
        }
    }
}

fn pieces<'a>(
    rows: &[Option<Row<'a>>],
    of: impl Fn(&Row<'a>) -> Option<Bytes>,
    empty: impl Fn() -> Bytes,
) -> SmallVec<[Bytes; 4]> {
    rows.iter().map(|row| row.as_ref().and_then(&of).unwrap_or_else(&empty)).collect()
}

/// Zeros, or empty strings, of the same size as a row that is there.
fn empty_row(like: &Tensor) -> Bytes {
    let bytes = match like.datatype.element_bytes() {
        Some(_) => like.data.len(),
        // An empty string is its length, 4 bytes of zero.
        None => 4 * like.shape.elements().unwrap_or(0),
    };
    vec![0; bytes].into()
}

fn joined_shape(spec: &ModelSpec, first: &Tensor, rows: u32) -> Shape {
    let mut shape = first.shape.clone();
    if spec.max_batch_size > 0 {
        shape.dimensions_mut()[0] = i64::from(rows);
    }
    shape
}

/// At what multiple every input of a batch must start.
const ALIGNMENT_BYTES: usize = 64;

/// Join the inputs of a batch for execution on this thread.
///
/// A single request whose bytes happen to be aligned is passed as it is, unless they may change: frameworks
/// check an index and then follow it, or sort, and trust that what they read stays the same.
pub(crate) fn join_inline(requests: &[Pending]) -> Vec<Tensor> {
    let head = &requests[0];
    let rows: u32 = requests.iter().map(|request| request.rows).sum();
    (0..head.inputs.len())
        .filter_map(|index| {
            let first = head.inputs[index].as_ref()?;
            let data = match requests {
                [only]
                    if first.data.as_ptr().addr().is_multiple_of(ALIGNMENT_BYTES)
                        && !only.inputs_may_change =>
                {
                    first.data.clone()
                }
                _ => join_pieces(requests, index),
            };
            let shape = joined_shape(&head.model.spec, first, rows);
            Some(Tensor { name: first.name.clone(), datatype: first.datatype, shape, data })
        })
        .collect()
}

fn join_pieces(requests: &[Pending], index: usize) -> Bytes {
    let pieces = || requests.iter().filter_map(|request| request.inputs[index].as_ref().map(|t| &t.data));
    let length = pieces().map(Bytes::len).sum::<usize>();
    // Room to move the start, and no more is written than the pieces: zeroing first costs as much as half of joining.
    let mut memory = BytesMut::with_capacity(length + ALIGNMENT_BYTES);
    let start = memory.as_ptr().addr();
    let padding = start.next_multiple_of(ALIGNMENT_BYTES) - start;
    memory.resize(padding, 0);
    pieces().for_each(|piece| memory.extend_from_slice(piece));
    memory.freeze().slice(padding..)
}

/// Bring a batch's outputs into the specification's order and check that they are what it declares.
///
/// `rows` are those of the batch; `None` for one of a decoupled model's responses, which may have any.
///
/// # Errors
/// `INTERNAL`: the backend broke its word. Names the output, what was expected and what came.
pub(crate) fn check_outputs(
    spec: &ModelSpec,
    mut outputs: Vec<Tensor>,
    rows: Option<u32>,
) -> Result<Vec<Tensor>> {
    for (position, declared) in spec.outputs.iter().enumerate() {
        // Mostly each is where it belongs already; a model may also give more than is declared.
        let found = (position..outputs.len()).find(|&index| outputs[index].name == declared.name);
        let Some(found) = found else {
            return Err(Error::internal(format!(
                "model '{}' did not give output '{}'",
                spec.name, declared.name
            )));
        };
        outputs.swap(position, found);
    }
    outputs.truncate(spec.outputs.len());
    for (declared, output) in spec.outputs.iter().zip(&outputs) {
        // Frameworks declare an output whose rank they do not know like a scalar: then any shape will do.
        let shape_fits = declared.shape.is_empty()
            || output.shape.len() == declared.shape.len()
                && output
                    .shape
                    .iter()
                    .zip(declared.shape.iter())
                    .all(|(&given, &wanted)| given >= 0 && (wanted < 0 || given == wanted));
        let rows_fit = match rows {
            Some(rows) if spec.max_batch_size > 0 => output.shape.first() == Some(&i64::from(rows)),
            _ => true,
        };
        if output.datatype != declared.datatype || !shape_fits || !rows_fit {
            let batch = rows.map_or_else(String::new, |rows| format!(" for a batch of {rows} rows"));
            return Err(Error::internal(format!(
                "model '{}' gave output '{}' as {} {}{batch}, expected {} {}",
                spec.name, declared.name, output.datatype, output.shape, declared.datatype, declared.shape
            )));
        }
        output.check_size().map_err(|error| {
            Error::internal(format!("model '{}' gave a wrong output: {}", spec.name, error.message))
        })?;
    }
    Ok(outputs)
}

/// Hands out the rows of a batch's outputs, request by request, without copying.
pub(crate) struct Splitter<'a> {
    spec: &'a ModelSpec,
    outputs: &'a [Tensor],
    /// Bytes already handed out, for each output.
    offsets: SmallVec<[usize; 4]>,
    batch_rows: u32,
}

impl<'a> Splitter<'a> {
    /// `outputs` must have passed [`check_outputs`].
    pub fn new(spec: &'a ModelSpec, outputs: &'a [Tensor], batch_rows: u32) -> Self {
        Self { spec, outputs, offsets: SmallVec::from_elem(0, outputs.len()), batch_rows }
    }

    /// The next `rows` rows of the outputs in `selected`, in that order.
    pub fn next(&mut self, rows: u32, selected: &[u16]) -> Vec<Tensor> {
        let ranges: SmallVec<[(usize, usize); 4]> = (0..self.outputs.len())
            .map(|index| {
                let start = self.offsets[index];
                let end = start + self.bytes_of(index, start, rows);
                self.offsets[index] = end;
                (start, end)
            })
            .collect();
        selected
            .iter()
            .map(|&index| {
                let index = usize::from(index);
                let output = &self.outputs[index];
                let mut shape = output.shape.clone();
                if self.spec.max_batch_size > 0 {
                    shape.dimensions_mut()[0] = i64::from(rows);
                }
                let (start, end) = ranges[index];
                Tensor {
                    name: self.spec.outputs[index].name.clone(),
                    datatype: output.datatype,
                    shape,
                    data: output.data.slice(start..end),
                }
            })
            .collect()
    }

    fn bytes_of(&self, index: usize, start: usize, rows: u32) -> usize {
        let output = &self.outputs[index];
        if self.spec.max_batch_size == 0 || rows == self.batch_rows {
            return output.data.len() - start;
        }
        if output.datatype.element_bytes().is_some() {
            return output.data.len() / self.batch_rows as usize * rows as usize;
        }
        let row_elements = output.shape.elements().unwrap_or(0) / self.batch_rows as usize;
        kingpole_values::split_byte_strings(&output.data[start..])
            .take(row_elements * rows as usize)
            .map(|element| element.map_or(0, |bytes| bytes.len() + 4))
            .sum()
    }
}
