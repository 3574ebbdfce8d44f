//! `ModelInferRequest`.

use bytes::{Bytes, BytesMut};
use kingpole_values::{
    ByteString, Datatype, Error, InferRequest, Parameter, Parameters, RequestedOutput, Result, Shape, Tensor,
};
use smallvec::SmallVec;

use super::contents::{field_of, read_contents, write_contents};
use super::protobuf::{
    FIXED64, LENGTH, Reader, VARINT, malformed, put_bytes, put_string, put_tag, put_varint, varint_bytes,
    wrong_wire,
};
use crate::regions::{RegionRange, Regions, range_parameters, take_range};
use crate::{MAX_PARAMETERS, MAX_TENSORS, Scatter, ScatterWriter};

/// An inference asked for over gRPC, and how its tensors came.
#[derive(Clone, Debug, PartialEq)]
pub struct GrpcInferRequest {
    /// The request.
    pub request: InferRequest,
    /// Where tensors in shared memory are.
    pub regions: Regions,
    /// Whether tensors came in typed `contents`: a mirroring server answers in the same way.
    pub used_contents: bool,
    /// Whether the end of a stream of responses is to be told by one without outputs.
    pub empty_final_response: bool,
}

/// Decode a `ModelInferRequest`. Raw contents and strings are views of `body`.
///
/// # Errors
/// `INVALID_ARGUMENT` for anything malformed; `RESOURCE_EXHAUSTED` for more tensors or parameters
/// than a message may have.
#[allow(clippy::needless_pass_by_value)] // the request is a view of the body: this gives it away
pub fn decode_infer_request(body: Bytes) -> Result<GrpcInferRequest> {
    let mut request = InferRequest::default();
    let mut inputs: SmallVec<[TensorParts<'_>; 4]> = SmallVec::new();
    let mut raw: SmallVec<[Bytes; 4]> = SmallVec::new();
    let mut wanted = Vec::new();
    let mut reader = Reader::new(&body);
    while let Some((field, wire)) = reader.tag()? {
        match (field, wire) {
            (1, LENGTH) => request.model = reader.string("model_name")?,
            (2, LENGTH) => request.version = Some(reader.string("model_version")?).filter(|v| !v.is_empty()),
            (3, LENGTH) => request.id = Some(reader.string("id")?).filter(|id| !id.is_empty()),
            (4, LENGTH) => read_parameter(reader.nested()?, &mut request.parameters)?,
            (5, LENGTH) => {
                check_tensors(inputs.len(), "inputs")?;
                inputs.push(TensorParts::read(reader.nested()?)?);
            }
            (6, LENGTH) => {
                check_tensors(request.outputs.len(), "outputs")?;
                let (output, range) = read_requested_output(reader.nested()?)?;
                wanted.extend(range.map(|range| (request.outputs.len(), range)));
                request.outputs.push(output);
            }
            (7, LENGTH) => {
                check_tensors(raw.len(), "raw_input_contents")?;
                raw.push(reader.bytes()?);
            }
            (1..=7, _) => return Err(wrong_wire("a field of ModelInferRequest")),
            _ => reader.skip(wire)?,
        }
    }
    crate::parameters::lift_reserved(&mut request)?;
    let empty_final_response = crate::parameters::take_empty_final_response(&mut request)?;
    let mut regions = Regions { inputs: Vec::new(), outputs: wanted };
    for (index, input) in inputs.iter_mut().enumerate() {
        if let Some(range) = take_range(&mut input.parameters, "input", &input.name)? {
            if !input.contents.is_empty() {
                return Err(Error::invalid(format!(
                    "input '{}' is in shared memory and has contents",
                    input.name
                )));
            }
            regions.inputs.push((index, range));
        }
    }
    if !regions.inputs.is_empty() && !raw.is_empty() {
        // There is an entry for each input that is not in shared memory.
        for (index, _) in &regions.inputs {
            raw.insert((*index).min(raw.len()), Bytes::new());
        }
    }
    let used_contents = inputs.iter().any(|input| !input.contents.is_empty());
    request.inputs = join_tensors(inputs, raw, "raw_input_contents")?;
    Ok(GrpcInferRequest { request, regions, used_contents, empty_final_response })
}

/// Encode a `ModelInferRequest`, raw, or with typed contents where every input can be.
pub fn encode_infer_request(request: &InferRequest, use_contents: bool) -> Scatter {
    let use_contents = use_contents && request.inputs.iter().all(|input| field_of(input.datatype).is_some());
    let mut head = BytesMut::with_capacity(256);
    put_string(&mut head, 1, &request.model);
    put_string(&mut head, 2, request.version.as_deref().unwrap_or_default());
    put_string(&mut head, 3, request.id.as_deref().unwrap_or_default());
    write_parameters(&mut head, 4, &request.parameters);
    write_parameters(&mut head, 4, &crate::parameters::reserved(request));
    for input in &request.inputs {
        write_tensor(&mut head, 5, input, use_contents, None);
    }
    for output in &request.outputs {
        let mut message = BytesMut::new();
        put_string(&mut message, 1, &output.name);
        write_parameters(&mut message, 2, &output.parameters);
        put_bytes(&mut head, 6, &message);
    }
    let raw: &[Tensor] = if use_contents { &[] } else { &request.inputs };
    let mut writer = ScatterWriter::new(head.len() + raw_bytes(raw));
    writer.buffer().extend_from_slice(&head);
    write_raw(&mut writer, 7, raw);
    writer.finish()
}

/// Bytes that [`write_raw`] appends.
pub(super) fn raw_bytes(tensors: &[Tensor]) -> usize {
    tensors.iter().map(|tensor| 1 + varint_bytes(tensor.data.len() as u64) + tensor.data.len()).sum()
}

pub(super) fn write_raw(writer: &mut ScatterWriter, field: u32, tensors: &[Tensor]) {
    for tensor in tensors {
        put_tag(writer.buffer(), field, LENGTH);
        put_varint(writer.buffer(), tensor.data.len() as u64);
        writer.put(&tensor.data);
    }
}

pub(super) fn write_tensor(
    buffer: &mut BytesMut,
    field: u32,
    tensor: &Tensor,
    use_contents: bool,
    region: Option<&RegionRange>,
) {
    let mut message = BytesMut::with_capacity(64);
    put_string(&mut message, 1, &tensor.name);
    put_string(&mut message, 2, tensor.datatype.name());
    if !tensor.shape.is_empty() {
        let mut packed: SmallVec<[u8; 64]> = SmallVec::new();
        for &dimension in tensor.shape.iter() {
            #[allow(clippy::cast_sign_loss)] // two's complement is what protobuf means
            let mut value = dimension as u64;
            while value >= 0x80 {
                packed.push((value & 0x7f) as u8 | 0x80);
                value >>= 7;
            }
            packed.push((value & 0x7f) as u8);
        }
        put_bytes(&mut message, 3, &packed);
    }
    if let Some(range) = region {
        write_parameters(&mut message, 4, &range_parameters(range));
    }
    if use_contents {
        put_bytes(&mut message, 5, &write_contents(tensor.datatype, &tensor.data));
    }
    put_bytes(buffer, field, &message);
}

pub(super) fn write_parameters(buffer: &mut BytesMut, field: u32, parameters: &Parameters) {
    for (name, parameter) in parameters {
        let mut value = BytesMut::with_capacity(16);
        match parameter {
            Parameter::Bool(flag) => {
                put_tag(&mut value, 1, VARINT);
                put_varint(&mut value, u64::from(*flag));
            }
            Parameter::Int64(number) => {
                put_tag(&mut value, 2, VARINT);
                #[allow(clippy::cast_sign_loss)] // two's complement is what protobuf means
                put_varint(&mut value, *number as u64);
            }
            Parameter::String(text) => put_bytes(&mut value, 3, text.as_bytes()),
            Parameter::Double(number) => {
                put_tag(&mut value, 4, FIXED64);
                value.extend_from_slice(&number.to_le_bytes());
            }
            Parameter::Uint64(number) => {
                put_tag(&mut value, 5, VARINT);
                put_varint(&mut value, *number);
            }
        }
        let mut entry = BytesMut::with_capacity(32);
        put_string(&mut entry, 1, name);
        put_bytes(&mut entry, 2, &value);
        put_bytes(buffer, field, &entry);
    }
}

/// A tensor as it is announced; its elements may come later.
pub(super) struct TensorParts<'a> {
    name: ByteString,
    datatype: Datatype,
    shape: Shape,
    parameters: Parameters,
    contents: SmallVec<[Reader<'a>; 1]>,
}

impl<'a> TensorParts<'a> {
    /// `InferInputTensor` and `InferOutputTensor` have the same fields.
    pub(super) fn read(mut reader: Reader<'a>) -> Result<Self> {
        let mut name = ByteString::new();
        let mut datatype = ByteString::new();
        let mut shape = Shape::default();
        let mut parameters = Parameters::new();
        let mut contents = SmallVec::new();
        while let Some((field, wire)) = reader.tag()? {
            match (field, wire) {
                (1, LENGTH) => name = reader.string("a tensor's name")?,
                (2, LENGTH) => datatype = reader.string("a tensor's datatype")?,
                (3, LENGTH) => {
                    let mut packed = reader.nested()?;
                    while !packed.is_empty() {
                        push_dimension(&mut shape, packed.varint()?, &name)?;
                    }
                }
                (3, VARINT) => push_dimension(&mut shape, reader.varint()?, &name)?,
                (4, LENGTH) => read_parameter(reader.nested()?, &mut parameters)?,
                (5, LENGTH) => contents.push(reader.nested()?),
                (1..=5, _) => return Err(wrong_wire("a tensor's field")),
                _ => reader.skip(wire)?,
            }
        }
        let Some(datatype) = Datatype::from_name(&datatype) else {
            return Err(Error::invalid(format!("tensor '{name}': unknown datatype '{datatype}'")));
        };
        Ok(Self { name, datatype, shape, parameters, contents })
    }
}

fn push_dimension(shape: &mut Shape, dimension: u64, name: &str) -> Result<()> {
    if shape.len() >= Shape::MAX_RANK {
        return Err(Error::invalid(format!("tensor '{name}': more than {} dimensions", Shape::MAX_RANK)));
    }
    #[allow(clippy::cast_possible_wrap)] // two's complement is what protobuf means
    shape.push(dimension as i64);
    Ok(())
}

/// Give each announced tensor its elements, from raw contents or from its own.
pub(super) fn join_tensors(
    parts: SmallVec<[TensorParts<'_>; 4]>,
    raw: SmallVec<[Bytes; 4]>,
    raw_field: &'static str,
) -> Result<Vec<Tensor>> {
    if raw.is_empty() {
        return parts
            .into_iter()
            .map(|part| {
                let mut data = BytesMut::new();
                for contents in part.contents {
                    read_contents(contents, &part.name, part.datatype, &mut data)?;
                }
                Ok(Tensor {
                    name: part.name,
                    datatype: part.datatype,
                    shape: part.shape,
                    data: data.freeze(),
                })
            })
            .collect();
    }
    if let Some(part) = parts.iter().find(|part| !part.contents.is_empty()) {
        return Err(Error::invalid(format!(
            "tensor '{}': contents and {raw_field} cannot be mixed",
            part.name
        )));
    }
    if raw.len() != parts.len() {
        return Err(Error::invalid(format!(
            "expected one entry of {raw_field} for each of {} tensors, got {}",
            parts.len(),
            raw.len()
        )));
    }
    Ok(parts
        .into_iter()
        .zip(raw)
        .map(|(part, data)| Tensor { name: part.name, datatype: part.datatype, shape: part.shape, data })
        .collect())
}

fn read_requested_output(mut reader: Reader<'_>) -> Result<(RequestedOutput, Option<RegionRange>)> {
    let mut output = RequestedOutput::default();
    while let Some((field, wire)) = reader.tag()? {
        match (field, wire) {
            (1, LENGTH) => output.name = reader.string("an output's name")?,
            (2, LENGTH) => read_parameter(reader.nested()?, &mut output.parameters)?,
            (1..=2, _) => return Err(wrong_wire("a requested output's field")),
            _ => reader.skip(wire)?,
        }
    }
    let range = take_range(&mut output.parameters, "output", &output.name)?;
    Ok((output, range))
}

/// Read one entry of a parameter map; a name that comes again replaces the former value.
pub(super) fn read_parameter(mut entry: Reader<'_>, parameters: &mut Parameters) -> Result<()> {
    let mut name = ByteString::new();
    let mut value = None;
    while let Some((field, wire)) = entry.tag()? {
        match (field, wire) {
            (1, LENGTH) => name = entry.string("a parameter's name")?,
            (2, LENGTH) => value = read_parameter_value(entry.nested()?)?,
            (1..=2, _) => return Err(wrong_wire("a parameter")),
            _ => entry.skip(wire)?,
        }
    }
    let Some(value) = value else {
        return Err(Error::invalid(format!("parameter '{name}' has no value")));
    };
    if let Some((_, former)) = parameters.iter_mut().find(|(other, _)| *other == name) {
        *former = value;
    } else if parameters.len() >= MAX_PARAMETERS {
        return Err(Error::exhausted(format!("more than {MAX_PARAMETERS} parameters")));
    } else {
        parameters.push((name, value));
    }
    Ok(())
}

fn read_parameter_value(mut reader: Reader<'_>) -> Result<Option<Parameter>> {
    let mut value = None;
    while let Some((field, wire)) = reader.tag()? {
        value = Some(match (field, wire) {
            (1, VARINT) => Parameter::Bool(reader.varint()? != 0),
            #[allow(clippy::cast_possible_wrap)] // two's complement is what protobuf means
            (2, VARINT) => Parameter::Int64(reader.varint()? as i64),
            (3, LENGTH) => Parameter::String(reader.string("a parameter's value")?),
            (4, FIXED64) => Parameter::Double(f64::from_le_bytes(reader.fixed()?)),
            (5, VARINT) => Parameter::Uint64(reader.varint()?),
            (1..=5, _) => return Err(malformed("a parameter's value has the wrong wire type")),
            _ => {
                reader.skip(wire)?;
                continue;
            }
        });
    }
    Ok(value)
}

pub(super) fn check_tensors(already: usize, what: &str) -> Result<()> {
    if already >= MAX_TENSORS {
        return Err(Error::exhausted(format!("more than {MAX_TENSORS} {what}")));
    }
    Ok(())
}
