//! TensorFlow Serving over gRPC: prediction by hand, so that tensors are not copied; the rest through [`proto`].
//!
//! Source: `protocol/schema/tensorflow_serving.proto`.

use bytes::{BufMut, Bytes, BytesMut};
use kingpole_values::{ByteString, Datatype, Error, InferRequest, InferResponse, RequestedOutput, Result};

use super::tensor_proto::{self, Filling, number_of};
use crate::grpc::protobuf::{
    LENGTH, Reader, VARINT, put_bytes, put_string, put_tag, put_varint, varint_bytes, wrong_wire,
};
use crate::{MAX_TENSORS, Scatter, ScatterWriter};

/// The generated messages; those of `Predict` are there for reflection and tests.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod proto {
    /// `tensorflow`.
    pub mod tensorflow {
        include!(concat!(env!("OUT_DIR"), "/tensorflow.rs"));

        /// `tensorflow.serving`.
        pub mod serving {
            include!(concat!(env!("OUT_DIR"), "/tensorflow.serving.rs"));
        }
    }
}

/// A model, maybe a version or a label, maybe a signature.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelReference {
    /// The model; empty is the server's default.
    pub model: ByteString,
    /// The version's number or label.
    pub version: Option<ByteString>,
    /// The signature; empty is the default.
    pub signature: ByteString,
}

impl From<proto::tensorflow::serving::ModelSpec> for ModelReference {
    fn from(specification: proto::tensorflow::serving::ModelSpec) -> Self {
        use proto::tensorflow::serving::model_spec::VersionChoice;
        let version = specification.version_choice.map(|choice| match choice {
            VersionChoice::Version(number) => number.to_string().into(),
            VersionChoice::VersionLabel(label) => label.into(),
        });
        Self { model: specification.name.into(), version, signature: specification.signature_name.into() }
    }
}

/// The number of a datatype in TensorFlow's `DataType`.
pub const fn type_number(datatype: Datatype) -> i32 {
    number_of(datatype) as i32
}

/// The name of a datatype in TensorFlow.
pub const fn type_name(datatype: Datatype) -> &'static str {
    match datatype {
        Datatype::Fp32 => "DT_FLOAT",
        Datatype::Fp64 => "DT_DOUBLE",
        Datatype::Int32 => "DT_INT32",
        Datatype::Uint8 => "DT_UINT8",
        Datatype::Int16 => "DT_INT16",
        Datatype::Int8 => "DT_INT8",
        Datatype::Bytes => "DT_STRING",
        Datatype::Int64 => "DT_INT64",
        Datatype::Bool => "DT_BOOL",
        Datatype::Bf16 => "DT_BFLOAT16",
        Datatype::Uint16 => "DT_UINT16",
        Datatype::Fp16 => "DT_HALF",
        Datatype::Uint32 => "DT_UINT32",
        Datatype::Uint64 => "DT_UINT64",
    }
}

/// Decode a `PredictRequest`, and the signature that it asks for. Raw content and names are views of `body`.
///
/// # Errors
/// `INVALID_ARGUMENT` for anything malformed, naming the tensor; `RESOURCE_EXHAUSTED` for more tensors than a
/// message may have, or values that stand for too many others.
#[allow(clippy::needless_pass_by_value)] // the request is a view of the body: this gives it away
pub fn decode_predict_request(body: Bytes) -> Result<(InferRequest, ByteString)> {
    let mut reference = ModelReference::default();
    let mut request = InferRequest::default();
    let mut filling = Filling::new();
    let mut reader = Reader::new(&body);
    while let Some((field, wire)) = reader.tag()? {
        match (field, wire) {
            (1, LENGTH) => read_reference(reader.nested()?, &mut reference)?,
            (2, LENGTH) => {
                check_count(request.inputs.len(), "inputs")?;
                let (name, tensor) = read_entry(reader.nested()?)?;
                let Some(tensor) = tensor else {
                    return Err(Error::invalid(format!("input '{name}' has no tensor")));
                };
                request.inputs.push(tensor_proto::read(tensor, name, &mut filling)?);
            }
            (3, LENGTH) => {
                check_count(request.outputs.len(), "outputs")?;
                let name = reader.string("output_filter")?;
                request.outputs.push(RequestedOutput { name, ..RequestedOutput::default() });
            }
            (1..=3, _) => return Err(wrong_wire("a field of PredictRequest")),
            _ => reader.skip(wire)?,
        }
    }
    request.model = reference.model;
    request.version = reference.version;
    Ok((request, reference.signature))
}

fn check_count(already: usize, what: &str) -> Result<()> {
    if already >= MAX_TENSORS {
        return Err(Error::exhausted(format!("more than {MAX_TENSORS} {what}")));
    }
    Ok(())
}

fn read_reference(mut reader: Reader<'_>, reference: &mut ModelReference) -> Result<()> {
    while let Some((field, wire)) = reader.tag()? {
        match (field, wire) {
            (1, LENGTH) => reference.model = reader.string("a model's name")?,
            (2, LENGTH) => {
                let mut wrapped = reader.nested()?;
                let mut number = 0;
                while let Some((field, wire)) = wrapped.tag()? {
                    match (field, wire) {
                        (1, VARINT) => number = wrapped.varint()?,
                        (1, _) => return Err(wrong_wire("a version")),
                        _ => wrapped.skip(wire)?,
                    }
                }
                #[allow(clippy::cast_possible_wrap)] // two's complement is what protobuf means
                let number = number as i64;
                reference.version = Some(number.to_string().into());
            }
            (3, LENGTH) => reference.signature = reader.string("a signature's name")?,
            (4, LENGTH) => reference.version = Some(reader.string("a version's label")?),
            (1..=4, _) => return Err(wrong_wire("a field of ModelSpec")),
            _ => reader.skip(wire)?,
        }
    }
    Ok(())
}

/// One entry of the map of inputs.
fn read_entry(mut entry: Reader<'_>) -> Result<(ByteString, Option<Reader<'_>>)> {
    let mut name = ByteString::new();
    let mut tensor = None;
    while let Some((field, wire)) = entry.tag()? {
        match (field, wire) {
            (1, LENGTH) => name = entry.string("a tensor's name")?,
            (2, LENGTH) => tensor = Some(entry.nested()?),
            (1..=2, _) => return Err(wrong_wire("an entry of inputs")),
            _ => entry.skip(wire)?,
        }
    }
    if name.is_empty() {
        return Err(Error::invalid("an input has no name"));
    }
    Ok((name, tensor))
}

/// A `PredictResponse` after the 5 bytes of a gRPC message. Tensors go as `tensor_content`, strings as `string_val`.
pub fn encode_predict_response_message(response: &InferResponse, signature: &str) -> Scatter {
    let outputs: Vec<_> = response
        .outputs
        .iter()
        .map(|output| {
            let (head, content) = tensor_proto::write(output);
            let mut entry = BytesMut::with_capacity(head.len() + 64);
            put_string(&mut entry, 1, &output.name);
            put_tag(&mut entry, 2, LENGTH);
            put_varint(&mut entry, (head.len() + content.len()) as u64);
            entry.put_slice(&head);
            (entry, content)
        })
        .collect();
    let mut reference = BytesMut::new();
    put_string(&mut reference, 1, &response.model);
    if let Ok(version @ 0..) = response.version.parse::<i64>() {
        let mut wrapped = BytesMut::new();
        put_tag(&mut wrapped, 1, VARINT);
        put_varint(&mut wrapped, version.unsigned_abs());
        put_bytes(&mut reference, 2, &wrapped);
    }
    put_string(&mut reference, 3, signature);
    let entry_bytes = |(entry, content): &(BytesMut, Bytes)| {
        let nbytes = entry.len() + content.len();
        1 + varint_bytes(nbytes as u64) + nbytes
    };
    let reference_bytes = 1 + varint_bytes(reference.len() as u64) + reference.len();
    let nbytes = outputs.iter().map(entry_bytes).sum::<usize>() + reference_bytes;
    let mut writer = ScatterWriter::new(nbytes + 5);
    writer.buffer().put_u8(0);
    // A message of 4 GiB cannot be said in gRPC; servers bound responses far below that.
    writer.buffer().put_u32(u32::try_from(nbytes).unwrap_or(u32::MAX));
    for (entry, content) in outputs {
        put_tag(writer.buffer(), 1, LENGTH);
        put_varint(writer.buffer(), (entry.len() + content.len()) as u64);
        writer.buffer().put_slice(&entry);
        writer.put(&content);
    }
    put_bytes(writer.buffer(), 2, &reference);
    writer.finish()
}
