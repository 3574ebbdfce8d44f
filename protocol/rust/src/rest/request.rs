//! A request's body to values.

use bytes::Bytes;
use kingpole_values::{
    ByteString, Datatype, Error, InferRequest, Parameter, Parameters, RequestedOutput, Result, Shape, Tensor,
};

use super::schema::{RequestJson, TensorJson, parameters, text};
use super::{RestInferRequest, RestReply, elements, schema, single_pass};
use crate::regions::{RegionRange, Regions, take_range};

/// Decode a request's body. Binary tensors and strings without escapes are views of `body`.
///
/// `header_length` is what the header of that name says: `None` when it is absent and the whole body
/// is JSON, `Some(0)` when the body is one tensor's bytes.
///
/// # Errors
/// `INVALID_ARGUMENT` for anything malformed, naming the tensor.
pub fn decode_infer_request(body: Bytes, header_length: Option<usize>) -> Result<RestInferRequest> {
    if header_length == Some(0) {
        return Ok(raw_request(body));
    }
    let (json, mut binary) = split(body, header_length)?;
    let fields = match single_pass::read(&json) {
        Some(fields) => fields,
        None => schema::read::<RequestJson<'_>>(&json)?,
    };
    let Some(inputs) = fields.inputs else {
        return Err(Error::invalid("the request has no 'inputs'"));
    };
    let mut request = InferRequest {
        id: fields.id.map(|id| text(&json, id.0)).transpose()?.filter(|id| !id.is_empty()),
        parameters: parameters(&json, fields.parameters)?,
        ..InferRequest::default()
    };
    let mut regions = Regions::default();
    request.inputs = read_tensors(inputs.0, &json, &mut binary, "input", &mut regions.inputs)?;
    let mut reply = RestReply {
        binary_default: take_flag(&mut request.parameters, "binary_data_output", "the request")?
            .unwrap_or(false),
        outputs: Vec::new(),
    };
    for (index, output) in fields.outputs.unwrap_or_default().0.into_iter().enumerate() {
        let Some(name) = output.name else {
            return Err(Error::invalid(format!("output {index} has no 'name'")));
        };
        let name = text(&json, name.0)?;
        let mut parameters = parameters(&json, output.parameters)?;
        if let Some(range) = take_range(&mut parameters, "output", &name)? {
            regions.outputs.push((index, range));
        }
        reply.outputs.push((name.clone(), take_flag(&mut parameters, "binary_data", &name)?));
        request.outputs.push(RequestedOutput { name, parameters });
    }
    crate::parameters::lift_reserved(&mut request)?;
    // Over HTTP the end is the end of the body.
    crate::parameters::take_empty_final_response(&mut request)?;
    Ok(RestInferRequest { request, reply, regions, raw: false })
}

/// A request whose body is one tensor's bytes: one unnamed input, all outputs binary.
///
/// The input's datatype and shape say "bytes"; the frontend puts in those of the model's specification.
pub fn raw_request(body: Bytes) -> RestInferRequest {
    let input = Tensor {
        name: ByteString::new(),
        datatype: Datatype::Uint8,
        shape: Shape::new(&[i64::try_from(body.len()).unwrap_or(i64::MAX)]),
        data: body,
    };
    RestInferRequest {
        request: InferRequest { inputs: vec![input], ..InferRequest::default() },
        reply: RestReply { binary_default: true, outputs: Vec::new() },
        regions: Regions::default(),
        raw: true,
    }
}

/// The JSON and what follows it.
pub(super) fn split(mut body: Bytes, header_length: Option<usize>) -> Result<(Bytes, Bytes)> {
    let Some(header_length) = header_length else { return Ok((body, Bytes::new())) };
    if header_length > body.len() {
        return Err(Error::invalid(format!(
            "Inference-Header-Content-Length is {header_length}, but the body has {} bytes",
            body.len()
        )));
    }
    let json = body.split_to(header_length);
    Ok((json, body))
}

/// Read tensors; the binary ones one after another from `binary`, which they must use up. Those in shared
/// memory are told in `regions`.
pub(super) fn read_tensors(
    tensors: Vec<TensorJson<'_>>,
    json: &Bytes,
    binary: &mut Bytes,
    kind: &str,
    regions: &mut Vec<(usize, RegionRange)>,
) -> Result<Vec<Tensor>> {
    let mut read = Vec::with_capacity(tensors.len());
    for (index, tensor) in tensors.into_iter().enumerate() {
        let Some(name) = tensor.name else {
            return Err(Error::invalid(format!("{kind} {index} has no 'name'")));
        };
        let name = text(json, name.0)?;
        let Some(datatype) = tensor.datatype else {
            return Err(Error::invalid(format!("{kind} '{name}' has no 'datatype'")));
        };
        let Some(datatype) = Datatype::from_name(&datatype.0) else {
            return Err(Error::invalid(format!("{kind} '{name}': unknown datatype '{}'", datatype.0)));
        };
        let Some(shape) = tensor.shape else {
            return Err(Error::invalid(format!("{kind} '{name}' has no 'shape'")));
        };
        let shape = Shape::new(&shape.0);
        let mut parameters = parameters(json, tensor.parameters)?;
        let range = take_range(&mut parameters, kind, &name)?;
        let in_text = tensor.data.is_some() || tensor.elements.is_some();
        let data = match take_size(&mut parameters, &name)? {
            size if range.is_some() => {
                if size.is_some() || in_text {
                    return Err(Error::invalid(format!(
                        "{kind} '{name}' is in shared memory and has 'data' or 'binary_data_size' as well"
                    )));
                }
                regions.extend(range.map(|range| (index, range)));
                Bytes::new()
            }
            Some(_) if in_text => {
                return Err(Error::invalid(format!(
                    "{kind} '{name}' has both 'data' and 'binary_data_size'"
                )));
            }
            Some(nbytes) if nbytes <= binary.len() => binary.split_to(nbytes),
            Some(nbytes) => {
                return Err(Error::invalid(format!(
                    "{kind} '{name}': binary_data_size is {nbytes}, but only {} bytes are left in the body",
                    binary.len()
                )));
            }
            None => {
                let elements = match (tensor.elements, tensor.data) {
                    (Some(elements), _) => elements,
                    (None, Some(data)) => {
                        let foreseen = shape.elements().unwrap_or(0);
                        elements::read(data.get().as_bytes(), &name, datatype, foreseen)?.0
                    }
                    (None, None) => {
                        return Err(Error::invalid(format!(
                            "{kind} '{name}' has neither 'data' nor 'binary_data_size'"
                        )));
                    }
                };
                elements.check(&name, &shape)?
            }
        };
        read.push(Tensor { name, datatype, shape, data });
    }
    if !binary.is_empty() {
        return Err(Error::invalid(format!(
            "{} bytes are left in the body after the last {kind}",
            binary.len()
        )));
    }
    Ok(read)
}

fn take(parameters: &mut Parameters, name: &str) -> Option<Parameter> {
    let position = parameters.iter().position(|(other, _)| other == name)?;
    Some(parameters.remove(position).1)
}

fn take_flag(parameters: &mut Parameters, name: &str, owner: &str) -> Result<Option<bool>> {
    match take(parameters, name) {
        None => Ok(None),
        Some(Parameter::Bool(flag)) => Ok(Some(flag)),
        Some(_) => Err(Error::invalid(format!("parameter '{name}' of {owner} must be true or false"))),
    }
}

fn take_size(parameters: &mut Parameters, tensor: &str) -> Result<Option<usize>> {
    let size = match take(parameters, "binary_data_size") {
        None => return Ok(None),
        Some(Parameter::Int64(size)) => usize::try_from(size).ok(),
        Some(_) => None,
    };
    size.map(Some).ok_or_else(|| {
        Error::invalid(format!("tensor '{tensor}': binary_data_size must be an integer of at least 0"))
    })
}
