//! Every golden vector of frames, and of responses in Open Inference, through the codec that this client uses.
//!
//! The folder is read as it is, so that a new vector is tested without a change here. Its place is beside the
//! repository's protocol; a published crate has none, and no tests.

use std::path::PathBuf;

use kingpole_client::{Bytes, Parameter, Response, SequenceId, Stage, Tensor};
use kingpole_values::{Error, InferRequest, Parameters};
use kingpole_wire::frame::{
    self, Frame, FrameReader, Message, ModelName, SharedTensor, TensorSpec, encode_error,
    encode_request_in_place, encode_response,
};
use kingpole_wire::rest;
use serde_json::{Value, json};

fn vectors(prefix: &str) -> Vec<(String, Value)> {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../protocol/vectors");
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        if name.starts_with(prefix) && path.extension().is_some_and(|extension| extension == "json") {
            found.push((name, serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap()));
        }
    }
    assert!(found.len() > 20, "only {} vectors of {prefix}", found.len());
    found
}

fn bytes(vector: &Value) -> Bytes {
    let hex = vector["hex"].as_str().unwrap();
    let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(byte).collect::<Vec<u8>>().into()
}

fn check(name: &str, vector: &Value, read: Result<Value, Error>) {
    match read {
        Ok(value) => assert_eq!(value, vector["value"], "{name}"),
        Err(error) => assert_eq!(error.code.name(), vector["error"]["code"], "{name}: {error}"),
    }
}

#[test]
fn frames_decode_whole_to_the_value_or_the_error() {
    for (name, vector) in vectors("frame-") {
        check(&name, &vector, frame::decode(bytes(&vector)).map(|frame| described(&frame)));
    }
}

#[test]
fn frames_decode_the_same_whatever_the_pieces() {
    for (name, vector) in vectors("frame-") {
        for piece_bytes in [1, 3, 61, 64, 1000] {
            let mut reader = FrameReader::new(1 << 20);
            let mut read = Ok(None);
            for piece in bytes(&vector).chunks(piece_bytes) {
                reader.push(piece);
                read = reader.next_frame();
                if !matches!(read, Ok(None)) {
                    break;
                }
            }
            match read.transpose() {
                Some(read) => check(&name, &vector, read.map(|frame| described(&frame))),
                // One that is cut off is one that a stream still waits for.
                None => assert!(name.contains("-cut-") && !reader.is_at_boundary(), "{name}"),
            }
        }
    }
}

#[test]
fn what_is_encoded_again_says_the_same() {
    let mut encoded = 0;
    for (name, vector) in vectors("frame-") {
        let Ok(Frame { exchange, message }) = frame::decode(bytes(&vector)) else { continue };
        let again = match &message {
            Message::Request { request, shared, places } => {
                encode_request_in_place(request, shared, places, exchange)
            }
            Message::Response { response, shared } => encode_response(response, shared, exchange),
            Message::Error(error) => {
                encode_error(&error.error, error.retry_after_ms, error.id.as_deref(), exchange)
            }
            _ => continue,
        };
        encoded += 1;
        assert_eq!(frame::decode(again.into_bytes()), Ok(Frame { exchange, message }), "{name}");
    }
    assert!(encoded > 40, "only {encoded} were encoded");
}

#[test]
fn responses_in_open_inference_decode_to_the_value() {
    for (name, vector) in vectors("http-response-") {
        let length = vector["header_length"].as_u64().map(|length| usize::try_from(length).unwrap());
        let read = rest::decode_infer_response(bytes(&vector), length);
        check(&name, &vector, read.map(|read| json!({"response": response(&read)})));
    }
}

fn described(frame: &Frame) -> Value {
    let message = match &frame.message {
        Message::Request { request: infer, shared: inputs, places } => {
            let mut said = json!({"request": request(infer), "shared": shared(inputs)});
            if !places.is_empty() {
                said["places"] = json!(shared(places));
            }
            said
        }
        Message::Response { response: infer, shared: outputs } => {
            json!({"response": response(infer), "shared": shared(outputs)})
        }
        Message::Error(error) => json!({"error": {
            "code": error.error.code.name(), "message": error.error.message,
            "retry_after_ms": error.retry_after_ms, "id": error.id.as_deref(),
        }}),
        Message::Credit { requests } => json!({"credit": {"requests": requests}}),
        Message::Cancel => json!({"cancel": {}}),
        Message::HandOver { arena, nbytes } => json!({"hand_over": {"arena": arena, "nbytes": nbytes}}),
        Message::Release { arena } => json!({"release": {"arena": arena}}),
        Message::Done => json!({"done": {}}),
        Message::ReadyRequest(name) => json!({"ready_request": model(name)}),
        Message::Ready(ready) => json!({"ready": ready}),
        Message::ServerInfoRequest => json!({"server_info_request": {}}),
        Message::ServerInfo(info) => json!({"server_info": {
            "name": &*info.name, "version": &*info.version, "max_frame_bytes": info.max_frame_bytes,
            "extensions": info.extensions.iter().map(|extension| &**extension).collect::<Vec<_>>(),
        }}),
        Message::MetadataRequest(name) => json!({"metadata_request": model(name)}),
        Message::Metadata(metadata) => json!({"metadata": {
            "name": &*metadata.name, "platform": &*metadata.platform, "description": &*metadata.description,
            "versions": metadata.versions.iter().map(|version| &**version).collect::<Vec<_>>(),
            "inputs": specs(&metadata.inputs), "outputs": specs(&metadata.outputs),
            "max_batch_size": metadata.max_batch_size,
        }}),
        Message::Unknown(kind) => json!({"unknown": kind}),
    };
    json!({"exchange": frame.exchange, "message": message})
}

fn model(name: &ModelName) -> Value {
    json!({"model": &*name.model, "version": name.version.as_deref()})
}

fn shared(places: &[SharedTensor]) -> Vec<Value> {
    let place = |place: &SharedTensor| json!({"index": place.index, "arena": place.arena, "offset": place.offset, "nbytes": place.nbytes});
    places.iter().map(place).collect()
}

fn specs(specs: &[TensorSpec]) -> Vec<Value> {
    let spec = |spec: &TensorSpec| json!({"name": &*spec.name, "datatype": spec.datatype.name(), "shape": spec.shape.to_vec(), "optional": spec.optional});
    specs.iter().map(spec).collect()
}

fn request(request: &InferRequest) -> Value {
    let outputs: Vec<_> = request
        .outputs
        .iter()
        .map(|output| json!({"name": &*output.name, "parameters": parameters(&output.parameters)}))
        .collect();
    let mut said = json!({
        "model": &*request.model, "version": request.version.as_deref(), "id": request.id.as_deref(),
        "timeout_us": request.timeout_us, "priority": request.priority, "inputs": tensors(&request.inputs),
        "outputs": outputs, "parameters": parameters(&request.parameters),
    });
    if let Some(sequence) = &request.sequence {
        let id = match &sequence.id {
            SequenceId::Number(number) => json!(number),
            SequenceId::Text(text) => json!(&**text),
        };
        said["sequence"] = json!({"id": id, "start": sequence.start, "end": sequence.end});
    }
    said
}

fn response(response: &Response) -> Value {
    let mut said = json!({
        "model": &*response.model, "version": &*response.version, "id": response.id.as_deref(),
        "outputs": tensors(&response.outputs), "parameters": parameters(&response.parameters),
    });
    match response.stage {
        Stage::Only => {}
        Stage::Part => said["stage"] = json!("part"),
        Stage::End => said["stage"] = json!("end"),
    }
    said
}

fn tensors(tensors: &[Tensor]) -> Vec<Value> {
    let tensor = |tensor: &Tensor| {
        let hex = tensor.data.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
        json!({"name": &*tensor.name, "datatype": tensor.datatype.name(), "shape": tensor.shape.to_vec(), "data_hex": hex})
    };
    tensors.iter().map(tensor).collect()
}

fn parameters(parameters: &Parameters) -> Vec<Value> {
    let parameter = |(name, value): &(kingpole_client::ByteString, Parameter)| {
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
