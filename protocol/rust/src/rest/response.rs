//! Responses, and what a client needs: requests out, responses in.

use bytes::{BufMut, Bytes, BytesMut};
use kingpole_values::{InferRequest, InferResponse, Parameter, Result, Tensor};

use super::request::{read_tensors, split};
use super::schema::{ResponseJson, Text, parameters, text};
use super::write::Travel;
use super::{RestBody, RestReply, schema, write};
use crate::{RegionRange, ScatterWriter};

/// Encode a response as its request wanted it.
///
/// # Errors
/// `INVALID_ARGUMENT` when JSON was asked for and cannot hold an output (not a finite number, not
/// UTF-8); the text says what to ask for instead.
pub fn encode_infer_response(response: &InferResponse, reply: &RestReply) -> Result<RestBody> {
    encode_infer_response_in_regions(response, reply, &[])
}

/// The same; `regions` says which outputs were written to shared memory, by position.
pub fn encode_infer_response_in_regions(
    response: &InferResponse,
    reply: &RestReply,
    regions: &[(usize, RegionRange)],
) -> Result<RestBody> {
    let mut json = BytesMut::with_capacity(256);
    json.put_u8(b'{');
    if let Some(id) = &response.id {
        write::key(&mut json, "id");
        write::string(&mut json, id);
    }
    write::key(&mut json, "model_name");
    write::string(&mut json, &response.model);
    write::key(&mut json, "model_version");
    write::string(&mut json, &response.version);
    write::parameters(&mut json, &response.parameters)?;
    write::key(&mut json, "outputs");
    let mut binary = Vec::new();
    tensors(&mut json, &response.outputs, &mut binary, |index, output| {
        match regions.iter().find(|(position, _)| *position == index) {
            Some((_, range)) => Travel::Region(range),
            None if reply.is_binary(index, &output.name) => Travel::Binary,
            None => Travel::Json,
        }
    })?;
    json.put_u8(b'}');
    Ok(join(json, &binary))
}

/// Encode a request; its inputs, and the outputs it asks for, binary or JSON.
///
/// The model and version are the caller's to put in the path.
pub fn encode_infer_request(request: &InferRequest, use_binary: bool) -> Result<RestBody> {
    let mut json = BytesMut::with_capacity(256);
    json.put_u8(b'{');
    if let Some(id) = &request.id {
        write::key(&mut json, "id");
        write::string(&mut json, id);
    }
    let mut parameters = request.parameters.clone();
    parameters.extend(crate::parameters::reserved(request));
    if use_binary && request.outputs.is_empty() {
        parameters.push(("binary_data_output".into(), Parameter::Bool(true)));
    }
    write::parameters(&mut json, &parameters)?;
    write::key(&mut json, "inputs");
    let mut binary = Vec::new();
    let travel = if use_binary { Travel::Binary } else { Travel::Json };
    tensors(&mut json, &request.inputs, &mut binary, |_, _| travel)?;
    if !request.outputs.is_empty() {
        write::key(&mut json, "outputs");
        json.put_u8(b'[');
        for (index, output) in request.outputs.iter().enumerate() {
            if index > 0 {
                json.put_u8(b',');
            }
            json.put_u8(b'{');
            write::key(&mut json, "name");
            write::string(&mut json, &output.name);
            let mut parameters = output.parameters.clone();
            parameters.push(("binary_data".into(), Parameter::Bool(use_binary)));
            write::parameters(&mut json, &parameters)?;
            json.put_u8(b'}');
        }
        json.put_u8(b']');
    }
    json.put_u8(b'}');
    Ok(join(json, &binary))
}

/// Decode a response's body; `header_length` as for requests.
pub fn decode_infer_response(body: Bytes, header_length: Option<usize>) -> Result<InferResponse> {
    let (json, mut binary) = split(body, header_length)?;
    let fields: ResponseJson<'_> = schema::read(&json)?;
    let name = |name: Option<Text<'_>>| name.map(|name| text(&json, name.0)).transpose();
    Ok(InferResponse {
        model: name(fields.model_name)?.unwrap_or_default(),
        version: name(fields.model_version)?.unwrap_or_default(),
        id: name(fields.id)?,
        outputs: read_tensors(
            fields.outputs.unwrap_or_default().0,
            &json,
            &mut binary,
            "output",
            &mut Vec::new(),
        )?,
        parameters: parameters(&json, fields.parameters)?,
        ..InferResponse::default()
    })
}

fn tensors<'a>(
    json: &mut BytesMut,
    tensors: &[Tensor],
    binary: &mut Vec<Bytes>,
    travel: impl Fn(usize, &Tensor) -> Travel<'a>,
) -> Result<()> {
    json.put_u8(b'[');
    for (index, tensor) in tensors.iter().enumerate() {
        if index > 0 {
            json.put_u8(b',');
        }
        let travel = travel(index, tensor);
        write::tensor(json, tensor, travel)?;
        if matches!(travel, Travel::Binary) {
            binary.push(tensor.data.clone());
        }
    }
    json.put_u8(b']');
    Ok(())
}

/// The JSON and the binary tensors; the header's length is only said if binary bytes follow.
fn join(json: BytesMut, binary: &[Bytes]) -> RestBody {
    let binary_bytes: usize = binary.iter().map(Bytes::len).sum();
    if binary_bytes == 0 {
        return RestBody { body: json.freeze().into(), header_length: None };
    }
    let header_length = json.len();
    let mut writer = ScatterWriter::new(header_length + binary_bytes);
    writer.put(&json.freeze());
    for tensor in binary {
        writer.put(tensor);
    }
    RestBody { body: writer.finish(), header_length: Some(header_length) }
}
