//! Values to bodies. A tensor's bytes are not copied: they go after everything else.

use bytes::{BufMut, Bytes};
use kingpole_values::{
    Code, Datatype, Error, InferRequest, InferResponse, Result, Tensor, split_byte_strings,
};

use super::flat::{Field, Writer, to_u32};
use super::{GraphpipeMetadata, GraphpipeSpec, type_number};
use crate::{Scatter, ScatterWriter};

/// Where payloads start: at multiples of this, counted from the start of the body.
const PAYLOAD_ALIGNMENT: usize = 16;
/// Room for names and shapes beside the tensors, within what 31-bit offsets can reach.
const MAX_TENSOR_BYTES: usize = (1 << 31) - (1 << 24);

/// Encode an inference request. `config` is free text for the server.
///
/// # Errors
/// `UNIMPLEMENTED` for BF16, which `GraphPipe` does not have; `INVALID_ARGUMENT` above 2 GiB.
pub fn encode_request(request: &InferRequest, config: &str) -> Result<Scatter> {
    check(&request.inputs)?;
    let mut writer = Writer::new();
    let root = writer.table(0, &[Field::Byte(1), Field::Offset]);
    let places = writer.table(root[1], &[Field::Offset; 4]);
    writer.string(places[0], config.as_bytes());
    let is_named = request.inputs.iter().any(|input| !input.name.is_empty());
    let named: &[Tensor] = if is_named { &request.inputs } else { &[] };
    strings(&mut writer, places[1], named.iter().map(|input| &input.name.as_bytes()[..]));
    strings(&mut writer, places[3], request.outputs.iter().map(|output| &output.name.as_bytes()[..]));
    Ok(tensors(writer, places[2], &request.inputs))
}

/// A request for metadata.
pub fn encode_metadata_request() -> Bytes {
    let mut writer = Writer::new();
    let root = writer.table(0, &[Field::Byte(2), Field::Offset]);
    writer.table(root[1], &[]);
    writer.head.into()
}

/// Encode the answer to an inference.
///
/// # Errors
/// As for [`encode_request`].
pub fn encode_infer_response(response: &InferResponse) -> Result<Scatter> {
    check(&response.outputs)?;
    let mut writer = Writer::new();
    let root = writer.table(0, &[Field::Offset]);
    Ok(tensors(writer, root[0], &response.outputs))
}

/// An answer with an error in it, for the clients that look there: most see only HTTP's status.
pub fn encode_error_response(error: &Error) -> Bytes {
    let mut writer = Writer::new();
    let root = writer.table(0, &[Field::Offset, Field::Offset]);
    writer.offsets(root[0], 0);
    let errors = writer.offsets(root[1], 1);
    let places = writer.table(errors, &[Field::Long(error.code.number().into()), Field::Offset]);
    writer.string(places[1], error.message.as_bytes());
    writer.head.into()
}

/// Encode the answer to a request for metadata; every string and shape is there, as clients need it.
pub fn encode_metadata_response(metadata: &GraphpipeMetadata) -> Bytes {
    let mut writer = Writer::new();
    let root = writer.table(0, &[Field::Offset; 6]);
    writer.string(root[0], metadata.name.as_bytes());
    writer.string(root[1], metadata.version.as_bytes());
    writer.string(root[2], metadata.server.as_bytes());
    writer.string(root[3], metadata.description.as_bytes());
    specs(&mut writer, root[4], &metadata.inputs);
    specs(&mut writer, root[5], &metadata.outputs);
    writer.head.into()
}

fn specs(writer: &mut Writer, from: usize, specs: &[GraphpipeSpec]) {
    let start = writer.offsets(from, specs.len());
    for (index, spec) in specs.iter().enumerate() {
        let number = spec.datatype.and_then(type_number).unwrap_or(0);
        let places = writer
            .table(start + 4 * index, &[Field::Offset, Field::Offset, Field::Offset, Field::Byte(number)]);
        writer.string(places[0], spec.name.as_bytes());
        writer.string(places[1], spec.description.as_bytes());
        writer.longs(places[2], &spec.shape);
    }
}

fn check(tensors: &[Tensor]) -> Result<()> {
    let mut nbytes = 0usize;
    for tensor in tensors {
        if type_number(tensor.datatype).is_none() {
            return Err(Error::new(
                Code::Unimplemented,
                format!("tensor '{}': GraphPipe has no type for {}", tensor.name, tensor.datatype),
            ));
        }
        nbytes = nbytes.saturating_add(tensor.data.len()).saturating_add(PAYLOAD_ALIGNMENT);
        if tensor.datatype == Datatype::Bytes {
            // Each string takes an offset, a NUL and padding besides.
            nbytes = nbytes.saturating_add(tensor.data.len().saturating_mul(2));
        }
    }
    if nbytes > MAX_TENSOR_BYTES {
        return Err(Error::invalid("a GraphPipe message cannot pass 2 GiB"));
    }
    Ok(())
}

fn strings<'a>(writer: &mut Writer, from: usize, elements: impl ExactSizeIterator<Item = &'a [u8]>) {
    let start = writer.offsets(from, elements.len());
    for (index, element) in elements.enumerate() {
        writer.string(start + 4 * index, element);
    }
}

/// Write the tensors that the offset at `from` points to, and finish.
fn tensors(mut writer: Writer, from: usize, tensors: &[Tensor]) -> Scatter {
    let start = writer.offsets(from, tensors.len());
    let mut payloads: Vec<(usize, &Bytes)> = Vec::with_capacity(tensors.len());
    for (index, tensor) in tensors.iter().enumerate() {
        let number = Field::Byte(type_number(tensor.datatype).unwrap_or(0));
        if tensor.datatype == Datatype::Bytes {
            let places =
                writer.table(start + 4 * index, &[number, Field::Offset, Field::Absent, Field::Offset]);
            writer.longs(places[1], &tensor.shape);
            let elements: Vec<&[u8]> = split_byte_strings(&tensor.data).map_while(Result::ok).collect();
            strings(&mut writer, places[3], elements.into_iter());
        } else {
            let places = writer.table(start + 4 * index, &[number, Field::Offset, Field::Offset]);
            writer.longs(places[1], &tensor.shape);
            payloads.push((places[2], &tensor.data));
        }
    }
    // Where each payload's vector will be, so that the tables can point there before they are sent.
    let mut at = writer.head.len();
    for (from, payload) in &payloads {
        at = (at + 4).next_multiple_of(PAYLOAD_ALIGNMENT) - 4;
        writer.point(*from, at);
        at += 4 + payload.len();
    }
    let mut scatter = ScatterWriter::new(at);
    scatter.buffer().put_slice(&writer.head);
    for (_, payload) in &payloads {
        let vector = (scatter.len() + 4).next_multiple_of(PAYLOAD_ALIGNMENT) - 4;
        let padding = vector - scatter.len();
        scatter.buffer().put_bytes(0, padding);
        scatter.buffer().put_u32_le(to_u32(payload.len()));
        scatter.put(payload);
    }
    scatter.finish()
}
