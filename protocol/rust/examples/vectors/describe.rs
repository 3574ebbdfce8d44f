//! What the bytes of a vector say, as JSON: the value that every decoder must get from them. Knows no case.

use std::fmt::Write as _;

use bytes::Bytes;
use kingpole_values::{
    Code, Error, InferRequest, InferResponse, Parameter, Parameters, Sequence, SequenceId, Stage, Tensor,
};
use kingpole_wire::frame::{self, Message, ModelName};
use kingpole_wire::graphpipe::{self, GraphpipeRequest, GraphpipeSpec};
use kingpole_wire::{grpc, rest};
use serde_json::{Value, json};

/// What a vector's bytes say.
pub fn decode(
    protocol: &str,
    kind: &str,
    bytes: Bytes,
    header_length: Option<usize>,
) -> Result<Value, Error> {
    Ok(match (protocol, kind) {
        ("frame", _) => frame_value(&frame::decode(bytes)?),
        ("grpc", "request") => {
            let decoded = grpc::decode_infer_request(bytes)?;
            json!({"request": request(&decoded.request), "used_contents": decoded.used_contents})
        }
        ("grpc", _) => json!({"response": response(&grpc::decode_infer_response(bytes)?)}),
        ("http", "request") => {
            let decoded = rest::decode_infer_request(bytes, header_length)?;
            json!({"request": request(&decoded.request), "binary_data_output": decoded.reply.binary_default})
        }
        ("http", _) => json!({"response": response(&rest::decode_infer_response(bytes, header_length)?)}),
        ("graphpipe", "request") => match graphpipe::decode_request(bytes)? {
            GraphpipeRequest::Metadata => json!({"metadata_request": {}}),
            GraphpipeRequest::Infer { request: infer, config } => {
                json!({"request": request(&infer), "config": config.as_deref()})
            }
        },
        ("graphpipe", "metadata") => {
            let metadata = graphpipe::decode_metadata_response(bytes)?;
            json!({"metadata": {
                "name": &*metadata.name,
                "version": &*metadata.version,
                "server": &*metadata.server,
                "description": &*metadata.description,
                "inputs": metadata.inputs.iter().map(graphpipe_spec).collect::<Vec<_>>(),
                "outputs": metadata.outputs.iter().map(graphpipe_spec).collect::<Vec<_>>(),
            }})
        }
        ("graphpipe", _) => {
            let decoded = graphpipe::decode_response(bytes)?;
            let errors: Vec<_> = decoded
                .errors
                .iter()
                .map(|(code, message)| json!({"code": code, "message": &**message}))
                .collect();
            json!({"outputs": tensors(&decoded.outputs), "errors": errors})
        }
        _ => return Err(Error::new(Code::Internal, "no such protocol")),
    })
}

fn frame_value(frame: &frame::Frame) -> Value {
    let name = |name: &ModelName| json!({"model": &*name.model, "version": name.version.as_deref()});
    let places = |shared: &[frame::SharedTensor]| -> Vec<Value> {
        let place = |place: &frame::SharedTensor| json!({"index": place.index, "arena": place.arena, "offset": place.offset, "nbytes": place.nbytes});
        shared.iter().map(place).collect()
    };
    let message = match &frame.message {
        Message::Request { request: infer, shared, places: wanted } => {
            let mut described = json!({"request": request(infer), "shared": places(shared)});
            if !wanted.is_empty() {
                described["places"] = json!(places(wanted));
            }
            described
        }
        Message::Response { response: infer, shared } => {
            json!({"response": response(infer), "shared": places(shared)})
        }
        Message::Error(error) => json!({"error": {
            "code": error.error.code.name(),
            "message": error.error.message,
            "retry_after_ms": error.retry_after_ms,
            "id": error.id.as_deref(),
        }}),
        Message::Credit { requests } => json!({"credit": {"requests": requests}}),
        Message::Cancel => json!({"cancel": {}}),
        Message::HandOver { arena, nbytes } => json!({"hand_over": {"arena": arena, "nbytes": nbytes}}),
        Message::Release { arena } => json!({"release": {"arena": arena}}),
        Message::Done => json!({"done": {}}),
        Message::ReadyRequest(model) => json!({"ready_request": name(model)}),
        Message::Ready(ready) => json!({"ready": ready}),
        Message::ServerInfoRequest => json!({"server_info_request": {}}),
        Message::ServerInfo(info) => json!({"server_info": {
            "name": &*info.name,
            "version": &*info.version,
            "extensions": info.extensions.iter().map(|extension| &**extension).collect::<Vec<_>>(),
            "max_frame_bytes": info.max_frame_bytes,
        }}),
        Message::MetadataRequest(model) => json!({"metadata_request": name(model)}),
        Message::Metadata(metadata) => json!({"metadata": {
            "name": &*metadata.name,
            "versions": metadata.versions.iter().map(|version| &**version).collect::<Vec<_>>(),
            "platform": &*metadata.platform,
            "inputs": metadata.inputs.iter().map(spec).collect::<Vec<_>>(),
            "outputs": metadata.outputs.iter().map(spec).collect::<Vec<_>>(),
            "max_batch_size": metadata.max_batch_size,
            "description": &*metadata.description,
        }}),
        Message::Unknown(kind) => json!({"unknown": kind}),
    };
    json!({"exchange": frame.exchange, "message": message})
}

fn spec(spec: &frame::TensorSpec) -> Value {
    json!({
        "name": &*spec.name,
        "datatype": spec.datatype.name(),
        "shape": spec.shape.to_vec(),
        "optional": spec.optional,
    })
}

fn graphpipe_spec(spec: &GraphpipeSpec) -> Value {
    json!({
        "name": &*spec.name,
        "description": &*spec.description,
        "datatype": spec.datatype.map(kingpole_values::Datatype::name),
        "shape": spec.shape.to_vec(),
    })
}

fn request(request: &InferRequest) -> Value {
    let outputs: Vec<_> = request
        .outputs
        .iter()
        .map(|output| json!({"name": &*output.name, "parameters": parameters(&output.parameters)}))
        .collect();
    let mut described = json!({
        "model": &*request.model,
        "version": request.version.as_deref(),
        "id": request.id.as_deref(),
        "timeout_us": request.timeout_us,
        "priority": request.priority,
        "inputs": tensors(&request.inputs),
        "outputs": outputs,
        "parameters": parameters(&request.parameters),
    });
    if let Some(Sequence { id, start, end }) = &request.sequence {
        let id = match id {
            SequenceId::Number(number) => json!(number),
            SequenceId::Text(text) => json!(&**text),
        };
        described["sequence"] = json!({"id": id, "start": start, "end": end});
    }
    described
}

fn response(response: &InferResponse) -> Value {
    let mut described = json!({
        "model": &*response.model,
        "version": &*response.version,
        "id": response.id.as_deref(),
        "outputs": tensors(&response.outputs),
        "parameters": parameters(&response.parameters),
    });
    match response.stage {
        Stage::Only => {}
        Stage::Part => described["stage"] = json!("part"),
        Stage::End => described["stage"] = json!("end"),
    }
    described
}

fn tensors(tensors: &[Tensor]) -> Vec<Value> {
    let tensor = |tensor: &Tensor| {
        json!({
            "name": &*tensor.name,
            "datatype": tensor.datatype.name(),
            "shape": tensor.shape.to_vec(),
            "data_hex": hex(&tensor.data),
        })
    };
    tensors.iter().map(tensor).collect()
}

fn parameters(parameters: &Parameters) -> Vec<Value> {
    let parameter = |(name, value): &(kingpole_values::ByteString, Parameter)| {
        let (kind, value) = match value {
            Parameter::Bool(value) => ("bool", json!(value)),
            Parameter::Int64(value) => ("int64", json!(value)),
            Parameter::Uint64(value) => ("uint64", json!(value)),
            Parameter::Double(value) => ("double", json!(value)),
            Parameter::String(value) => ("string", json!(&**value)),
        };
        json!({"name": &**name, "kind": kind, "value": value})
    };
    parameters.iter().map(parameter).collect()
}

/// Bytes as hexadecimal text.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
