//! `ModelInferResponse`, and its envelope on a stream.

use bytes::{BufMut, Bytes, BytesMut};
use kingpole_values::{Error, InferResponse, Result, Tensor};
use smallvec::SmallVec;

use super::contents::field_of;
use super::protobuf::{LENGTH, Reader, put_bytes, put_string, put_tag, put_varint, varint_bytes, wrong_wire};
use super::request::{
    TensorParts, check_tensors, join_tensors, raw_bytes, read_parameter, write_parameters, write_raw,
    write_tensor,
};
use crate::{RegionRange, Scatter, ScatterWriter};

/// What stands before the `ModelInferResponse`.
#[derive(Clone, Copy)]
struct Envelope {
    /// gRPC's 5 bytes: not compressed, and the length.
    prefix: bool,
    /// `ModelStreamInferResponse.infer_response`.
    stream: bool,
}

/// Encode a `ModelInferResponse`; with typed contents if `mirror_contents` and every output can be.
pub fn encode_infer_response(response: &InferResponse, mirror_contents: bool) -> Scatter {
    encode(response, mirror_contents, Envelope { prefix: false, stream: false }, &[])
}

/// As [`encode_infer_response`], after the 5 bytes that stand before each gRPC message. `regions` says which
/// outputs were written to shared memory, by position.
pub fn encode_infer_response_message(
    response: &InferResponse,
    mirror_contents: bool,
    regions: &[(usize, RegionRange)],
) -> Scatter {
    encode(response, mirror_contents, Envelope { prefix: true, stream: false }, regions)
}

/// A `ModelStreamInferResponse` holding the response, after the 5 bytes of a gRPC message. `regions` as above.
pub fn encode_stream_response_message(
    response: &InferResponse,
    mirror_contents: bool,
    regions: &[(usize, RegionRange)],
) -> Scatter {
    encode(response, mirror_contents, Envelope { prefix: true, stream: true }, regions)
}

/// A `ModelStreamInferResponse` holding an error, after the 5 bytes of a gRPC message.
///
/// The request's id, if it had one, goes where clients look for it: in an otherwise empty response.
pub fn encode_stream_error_message(error: &Error, id: Option<&str>) -> Bytes {
    let mut message = BytesMut::with_capacity(64 + error.message.len());
    message.put_bytes(0, 5);
    put_string(&mut message, 1, &error.message);
    if let Some(id) = id {
        let mut response = BytesMut::new();
        put_string(&mut response, 3, id);
        put_bytes(&mut message, 2, &response);
    }
    let length = message.len() - 5;
    message[1..5].copy_from_slice(&grpc_length(length));
    message.freeze()
}

fn grpc_length(length: usize) -> [u8; 4] {
    // A message of 4 GiB cannot be said in gRPC; servers bound responses far below that.
    u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes()
}

fn encode(
    response: &InferResponse,
    mirror_contents: bool,
    envelope: Envelope,
    regions: &[(usize, RegionRange)],
) -> Scatter {
    let use_contents = mirror_contents
        && regions.is_empty()
        && response.outputs.iter().all(|output| field_of(output.datatype).is_some());
    let mut head = BytesMut::with_capacity(256);
    put_string(&mut head, 1, &response.model);
    put_string(&mut head, 2, &response.version);
    put_string(&mut head, 3, response.id.as_deref().unwrap_or_default());
    write_parameters(&mut head, 4, &response.parameters);
    for (index, output) in response.outputs.iter().enumerate() {
        let region = regions.iter().find(|(position, _)| *position == index).map(|(_, range)| range);
        write_tensor(&mut head, 5, output, use_contents, region);
    }
    let raw: &[Tensor] = if use_contents { &[] } else { &response.outputs };
    let nbytes = head.len() + raw_bytes(raw);
    let mut writer = ScatterWriter::new(nbytes + 16);
    let buffer = writer.buffer();
    if envelope.prefix {
        let wrapped = if envelope.stream { nbytes + 1 + varint_bytes(nbytes as u64) } else { nbytes };
        buffer.put_u8(0);
        buffer.put_slice(&grpc_length(wrapped));
    }
    if envelope.stream {
        put_tag(buffer, 2, LENGTH);
        put_varint(buffer, nbytes as u64);
    }
    buffer.put_slice(&head);
    write_raw(&mut writer, 6, raw);
    writer.finish()
}

/// Decode a `ModelInferResponse`, raw or with typed contents.
#[allow(clippy::needless_pass_by_value)] // the response is a view of the body: this gives it away
pub fn decode_infer_response(body: Bytes) -> Result<InferResponse> {
    let mut response = InferResponse::default();
    let mut outputs: SmallVec<[TensorParts<'_>; 4]> = SmallVec::new();
    let mut raw: SmallVec<[Bytes; 4]> = SmallVec::new();
    let mut reader = Reader::new(&body);
    while let Some((field, wire)) = reader.tag()? {
        match (field, wire) {
            (1, LENGTH) => response.model = reader.string("model_name")?,
            (2, LENGTH) => response.version = reader.string("model_version")?,
            (3, LENGTH) => response.id = Some(reader.string("id")?).filter(|id| !id.is_empty()),
            (4, LENGTH) => read_parameter(reader.nested()?, &mut response.parameters)?,
            (5, LENGTH) => {
                check_tensors(outputs.len(), "outputs")?;
                outputs.push(TensorParts::read(reader.nested()?)?);
            }
            (6, LENGTH) => {
                check_tensors(raw.len(), "raw_output_contents")?;
                raw.push(reader.bytes()?);
            }
            (1..=6, _) => return Err(wrong_wire("a field of ModelInferResponse")),
            _ => reader.skip(wire)?,
        }
    }
    response.outputs = join_tensors(outputs, raw, "raw_output_contents")?;
    Ok(response)
}
