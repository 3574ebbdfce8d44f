//! Every case: what it is called, and its bytes.

use bytes::Bytes;
use kingpole_values::{
    Code, Datatype, Error, InferRequest, InferResponse, Sequence, SequenceId, Stage, Tensor,
};
use kingpole_wire::{Scatter, frame, graphpipe, grpc, rest};
use serde_json::json;

use crate::describe::{decode, hex};
use crate::recorded::RECORDED;
use crate::sample;

/// One vector.
pub struct Case {
    pub name: String,
    /// `frame`, `grpc`, `http` or `graphpipe`.
    pub protocol: &'static str,
    /// `request`, `response`, or for `GraphPipe` `metadata`; a frame says itself what it is.
    pub kind: &'static str,
    pub bytes: Bytes,
    /// What the header of that name says, for `http`.
    pub header_length: Option<usize>,
    /// Whether every encoder gives these very bytes for the value.
    pub canonical: bool,
}

/// The vector's file: the bytes, and their value or error.
pub fn vector(case: &Case) -> String {
    let mut vector = json!({
        "protocol": case.protocol,
        "kind": case.kind,
        "canonical": case.canonical,
        "header_length": case.header_length,
        "hex": hex(&case.bytes),
    });
    match decode(case.protocol, case.kind, case.bytes.clone(), case.header_length) {
        Ok(value) => vector["value"] = value,
        Err(error) => vector["error"] = json!({"code": error.code.name(), "message": error.message}),
    }
    let mut text = serde_json::to_string_pretty(&vector).expect("JSON of strings and numbers");
    text.push('\n');
    text
}

/// Every case, in the order of its name.
pub fn all() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, tensor) in tensors() {
        with_tensor(&mut cases, &name, &tensor);
    }
    for code in Code::ALL {
        let error = Error::new(code, format!("an error of code {code}"));
        let name = format!("frame-error-{}", code.name().to_lowercase().replace('_', "-"));
        frame_case(&mut cases, &name, &frame::encode_error(&error, 250, Some("id-1"), 7));
    }
    half_precision(&mut cases);
    frame_messages(&mut cases);
    sequences(&mut cases);
    malformed_frames(&mut cases);
    malformed_others(&mut cases);
    for (name, kind, hex) in RECORDED {
        let name = format!("graphpipe-recorded-{}", name.replace('_', "-"));
        add(&mut cases, name, "graphpipe", kind, from_hex(hex), None, false);
    }
    cases.sort_by(|left, right| left.name.cmp(&right.name));
    cases
}

fn tensors() -> Vec<(String, Tensor)> {
    let mut tensors: Vec<(String, Tensor)> = Datatype::ALL
        .into_iter()
        .map(|datatype| (datatype.name().to_lowercase(), sample::tensor(datatype, &[2, 3])))
        .collect();
    tensors.push(("scalar".to_owned(), sample::tensor(Datatype::Fp32, &[])));
    tensors.push(("zero-size".to_owned(), sample::tensor(Datatype::Fp32, &[0, 3])));
    tensors.push(("no-strings".to_owned(), sample::tensor(Datatype::Bytes, &[0])));
    tensors
}

fn with_tensor(cases: &mut Vec<Case>, name: &str, tensor: &Tensor) {
    let (request, response) = (sample::request(tensor.clone()), sample::response(tensor.clone()));
    frame_case(cases, &format!("frame-request-{name}"), &frame::encode_request(&request, &[], 7));
    frame_case(cases, &format!("frame-response-{name}"), &frame::encode_response(&response, &[], 7));
    for (way, contents) in [("raw", false), ("typed", true)] {
        let bytes = grpc::encode_infer_request(&request, contents).into_bytes();
        add(cases, format!("grpc-request-{way}-{name}"), "grpc", "request", bytes, None, false);
        let bytes = grpc::encode_infer_response(&response, contents).into_bytes();
        add(cases, format!("grpc-response-{way}-{name}"), "grpc", "response", bytes, None, false);
    }
    for (way, binary) in [("json", false), ("binary", true)] {
        let body = rest::encode_infer_request(&request, binary).expect("the sample is plain");
        let bytes = body.body.into_bytes();
        add(cases, format!("http-request-{way}-{name}"), "http", "request", bytes, body.header_length, false);
        let reply = rest::RestReply { binary_default: binary, outputs: Vec::new() };
        let body = rest::encode_infer_response(&response, &reply).expect("the sample is plain");
        let bytes = body.body.into_bytes();
        add(
            cases,
            format!("http-response-{way}-{name}"),
            "http",
            "response",
            bytes,
            body.header_length,
            true,
        );
    }
    if let Ok(scatter) = graphpipe::encode_request(&request, "") {
        add(
            cases,
            format!("graphpipe-request-{name}"),
            "graphpipe",
            "request",
            scatter.into_bytes(),
            None,
            false,
        );
        let answer = InferResponse { outputs: vec![tensor.clone()], ..InferResponse::default() };
        let bytes = graphpipe::encode_infer_response(&answer).expect("as the request").into_bytes();
        add(cases, format!("graphpipe-response-{name}"), "graphpipe", "response", bytes, None, false);
    }
}

fn in_sequence(id: SequenceId, start: bool) -> InferRequest {
    let sequence = Some(Sequence { id, start, end: !start });
    InferRequest { sequence, ..sample::request(sample::tensor(Datatype::Fp32, &[1])) }
}

/// Requests of a sequence, where it travels as parameters.
fn sequences(cases: &mut Vec<Case>) {
    for (name, id) in
        [("number", SequenceId::Number(42)), ("text", SequenceId::Text("conversation-1".into()))]
    {
        let request = in_sequence(id, true);
        let bytes = grpc::encode_infer_request(&request, false).into_bytes();
        add(cases, format!("grpc-request-sequence-{name}"), "grpc", "request", bytes, None, false);
        let body = rest::encode_infer_request(&request, false).expect("the sample is plain");
        let bytes = body.body.into_bytes();
        add(
            cases,
            format!("http-request-sequence-{name}"),
            "http",
            "request",
            bytes,
            body.header_length,
            false,
        );
    }
}

/// Numbers between two values of FP16 and BF16, at their limits, and the shortest text of some values.
fn half_precision(cases: &mut Vec<Case>) {
    let numbers = [
        (
            "fp16",
            "FP16",
            "[0.1,2049,2051,1.00048828125000000000001,65519.99,-65504,2.9802322387695312e-8,6e-8]",
        ),
        ("bf16", "BF16", "[0.1,257,259,1.00390625000000000000001,3.39e38,-3.3895314e38,4e-41,9e-41]"),
    ];
    for (name, datatype, data) in numbers {
        let json =
            format!(r#"{{"inputs":[{{"name":"x","datatype":"{datatype}","shape":[2,4],"data":{data}}}]}}"#);
        add(cases, format!("http-request-json-{name}-rounded"), "http", "request", json.into(), None, false);
    }
    let values: [(&str, Datatype, [u16; 6]); 2] = [
        ("fp16", Datatype::Fp16, [0x2e66, 0x3555, 0x7bff, 0x0001, 0x8000, 0xc000]),
        ("bf16", Datatype::Bf16, [0x3dcd, 0x3eab, 0x7f7f, 0x0001, 0x8000, 0xc000]),
    ];
    for (name, datatype, bits) in values {
        let data: Vec<u8> = bits.iter().flat_map(|bits| bits.to_le_bytes()).collect();
        let tensor = Tensor { data: data.into(), ..sample::tensor(datatype, &[2, 3]) };
        let reply = rest::RestReply::default();
        let body = rest::encode_infer_response(&sample::response(tensor), &reply).expect("finite values");
        let bytes = body.body.into_bytes();
        add(cases, format!("http-response-json-{name}-shortest"), "http", "response", bytes, None, true);
    }
}

fn frame_messages(cases: &mut Vec<Case>) {
    let model = frame::ModelName { model: "m".into(), version: Some("3".into()) };
    let place = frame::SharedTensor { index: 0, arena: 4, offset: 128, nbytes: 24 };
    let wanted = frame::SharedTensor { index: 0, arena: 4, offset: 192, nbytes: 24 };
    let shared = sample::request(sample::tensor(Datatype::Fp32, &[2, 3]));
    let in_arena = sample::response(sample::tensor(Datatype::Fp32, &[2, 3]));
    let spec = frame::TensorSpec {
        name: "x".into(),
        datatype: Datatype::Fp32,
        shape: [-1, 3].into_iter().collect(),
        optional: false,
    };
    let metadata = frame::Metadata {
        name: "m".into(),
        versions: vec!["1".into(), "3".into()],
        platform: "onnx".into(),
        inputs: vec![spec.clone()],
        outputs: vec![spec],
        max_batch_size: 8,
        description: "A model".into(),
    };
    let info = frame::ServerInfo {
        name: "kingpole".into(),
        version: "0.1.0".into(),
        extensions: vec!["model_repository".into()],
        max_frame_bytes: 1 << 30,
    };
    let named = SequenceId::Text("conversation-1".into());
    let part = InferResponse { stage: Stage::Part, ..sample::response(sample::tensor(Datatype::Fp32, &[1])) };
    let end = InferResponse { model: "m".into(), stage: Stage::End, ..InferResponse::default() };
    let messages = [
        ("request-shared", frame::encode_request(&shared, &[place], 7)),
        ("request-sequence", frame::encode_request(&in_sequence(SequenceId::Number(u64::MAX), true), &[], 7)),
        ("request-sequence-text", frame::encode_request(&in_sequence(named, false), &[], 7)),
        ("response-part", frame::encode_response(&part, &[], 7)),
        ("response-end", frame::encode_response(&end, &[], 7)),
        ("request-empty", frame::encode_request(&kingpole_values::InferRequest::default(), &[], 0)),
        ("request-in-place", frame::encode_request_in_place(&shared, &[place], &[wanted], 7)),
        ("response-shared", frame::encode_response(&in_arena, &[place], 7)),
        ("hand-over", frame::encode_hand_over(4, 1 << 20, 7)),
        ("release", frame::encode_release(4, 7)),
        ("done", frame::encode_done(7)),
        ("credit", frame::encode_credit(16)),
        ("credit-cancelled", frame::encode_cancelled(7)),
        ("cancel", frame::encode_cancel(7)),
        ("ready-request", frame::encode_ready_request(&model, 7)),
        ("ready", frame::encode_ready(true, 7)),
        ("server-info-request", frame::encode_server_info_request(7)),
        ("server-info", frame::encode_server_info(&info, 7)),
        ("metadata-request", frame::encode_metadata_request(&model, 7)),
        ("metadata", frame::encode_metadata(&metadata, 7)),
    ];
    for (name, scatter) in messages {
        frame_case(cases, &format!("frame-{name}"), &scatter);
    }
}

fn malformed_frames(cases: &mut Vec<Case>) {
    let request = sample::request(sample::tensor(Datatype::Fp32, &[2, 3]));
    let good = frame::encode_request(&request, &[], 7).into_bytes().to_vec();
    let changed = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        Bytes::from(bytes)
    };
    let faults: [(&str, Bytes); 7] = [
        ("cut-in-prelude", Bytes::copy_from_slice(&good[..11])),
        ("cut-in-header", Bytes::copy_from_slice(&good[..40])),
        ("cut-in-payload", Bytes::copy_from_slice(&good[..good.len() - 64])),
        ("wrong-version", changed(&|bytes| bytes[7] = 9)),
        ("not-a-frame", Bytes::from_static(b"GET / HTTP/1.1\r\n\r\n")),
        ("payload-count", changed(&|bytes| bytes[12] = 3)),
        ("header-too-long", changed(&|bytes| bytes[8..12].fill(0xff))),
    ];
    for (name, bytes) in faults {
        add(cases, format!("frame-malformed-{name}"), "frame", "frame", bytes, None, false);
    }
    let garbled = changed(&|bytes| bytes[16..24].fill(0xff));
    add(cases, "frame-malformed-header-garbled".to_owned(), "frame", "frame", garbled, None, false);
}

fn malformed_others(cases: &mut Vec<Case>) {
    let tensor = |rest: &str| format!(r#"{{"inputs":[{{"name":"x",{rest}}}]}}"#);
    let http = [
        ("cut", r#"{"inputs":["#.to_owned()),
        ("no-inputs", "{}".to_owned()),
        ("integer-id", r#"{"id":1,"inputs":[]}"#.to_owned()),
        ("no-datatype", tensor(r#""shape":[1],"data":[1]"#)),
        ("no-shape", tensor(r#""datatype":"INT32","data":[1]"#)),
        ("no-data", tensor(r#""datatype":"INT32","shape":[1]"#)),
        ("unknown-datatype", tensor(r#""datatype":"int32","shape":[1],"data":[1]"#)),
        ("fraction-as-integer", tensor(r#""datatype":"INT32","shape":[1],"data":[1.7]"#)),
        ("out-of-range", tensor(r#""datatype":"INT8","shape":[1],"data":[128]"#)),
        ("uint8-300", tensor(r#""datatype":"UINT8","shape":[1],"data":[300]"#)),
        ("fp16-overflow", tensor(r#""datatype":"FP16","shape":[1],"data":[65520]"#)),
        ("bf16-overflow", tensor(r#""datatype":"BF16","shape":[1],"data":[-3.4e38]"#)),
        ("bare-infinity", tensor(r#""datatype":"FP32","shape":[1],"data":[-Infinity]"#)),
        ("bare-nan", tensor(r#""datatype":"FP32","shape":[1],"data":[NaN]"#)),
        ("uneven", tensor(r#""datatype":"INT32","shape":[2,2],"data":[[1,2],[3]]"#)),
        ("wrong-nesting", tensor(r#""datatype":"INT32","shape":[2,2],"data":[[1,2,3,4]]"#)),
        ("element-count", tensor(r#""datatype":"INT32","shape":[2],"data":[1,2,3]"#)),
    ];
    for (name, json) in http {
        add(cases, format!("http-malformed-{name}"), "http", "request", json.into(), None, false);
    }
    let json = tensor(r#""datatype":"INT32","shape":[1],"parameters":{"binary_data_size":4}"#);
    for (name, tail) in [("binary-short", "abc"), ("binary-left-over", "abcde")] {
        let bytes = Bytes::from(format!("{json}{tail}"));
        add(cases, format!("http-malformed-{name}"), "http", "request", bytes, Some(json.len()), false);
    }
    let request = sample::request(sample::tensor(Datatype::Fp32, &[2, 3]));
    let good = grpc::encode_infer_request(&request, false).into_bytes();
    let cut = good.slice(..good.len() - 3);
    add(cases, "grpc-malformed-cut".to_owned(), "grpc", "request", cut, None, false);
    let faults: [(&str, &[u8]); 4] = [
        ("wire-type", b"\x08\x01"),
        ("not-utf8", b"\x0a\x01\xff"),
        ("endless-varint", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"),
        ("mixed-contents", b"\x2a\x10\x0a\x01x\x12\x04BOOL\x1a\x01\x01\x2a\x02\x08\x01\x3a\x01\x01"),
    ];
    for (name, bytes) in faults {
        let bytes = Bytes::from_static(bytes);
        add(cases, format!("grpc-malformed-{name}"), "grpc", "request", bytes, None, false);
    }
    add(cases, "graphpipe-malformed-empty".to_owned(), "graphpipe", "request", Bytes::new(), None, false);
}

fn frame_case(cases: &mut Vec<Case>, name: &str, scatter: &Scatter) {
    add(cases, name.to_owned(), "frame", "frame", scatter.clone().into_bytes(), None, false);
}

fn add(
    cases: &mut Vec<Case>,
    name: String,
    protocol: &'static str,
    kind: &'static str,
    bytes: Bytes,
    header_length: Option<usize>,
    canonical: bool,
) {
    cases.push(Case { name, protocol, kind, bytes, header_length, canonical });
}

/// Bytes of hexadecimal text.
pub fn from_hex(hex: &str) -> Bytes {
    let digit = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal digits");
    (0..hex.len()).step_by(2).map(digit).collect::<Vec<u8>>().into()
}
