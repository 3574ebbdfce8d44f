//! Open Inference over HTTP.

use bytes::Bytes;
use kingpole_values::{Datatype, InferResponse, Shape, Tensor, write_byte_string};
use kingpole_wire::rest::{self, RestReply};
use serde::de::IgnoredAny;

use super::{bounded, is_view, value};

/// A body; the first two bytes are the header's length, 0xffff for none.
pub fn rest_decode(input: &[u8]) {
    let Some((header_length, body)) = input.split_first_chunk::<2>() else { return };
    let header_length = u16::from_le_bytes(*header_length);
    let header_length = (header_length != u16::MAX).then_some(usize::from(header_length));
    let body = Bytes::copy_from_slice(body);
    let json = &body[..header_length.unwrap_or(body.len()).min(body.len())];

    let response = bounded(body.len(), 0, || rest::decode_infer_response(body.clone(), header_length));
    if let Some(response) = value(response) {
        assert!(is_json(json));
        check_places(&response.outputs, &body, json.len());
    }
    let decoded = bounded(body.len(), 0, || rest::decode_infer_request(body.clone(), header_length));
    let Some(decoded) = value(decoded) else { return };
    if decoded.raw {
        assert!(is_view(&decoded.request.inputs[0], &body));
        return;
    }
    assert!(is_json(json));
    check_places(&decoded.request.inputs, &body, json.len());
    if decoded.request.inputs.iter().any(|input| input.check_size().is_err()) {
        return;
    }
    for use_binary in [false, true] {
        // What came as binary may be what JSON cannot hold.
        let Some(again) = value(rest::encode_infer_request(&decoded.request, use_binary)) else { continue };
        let again = rest::decode_infer_request(again.body.into_bytes(), again.header_length);
        let again = again.expect("what was written is read").request;
        assert_eq!(
            without_signs_of_bools(again.inputs),
            without_signs_of_bools(decoded.request.inputs.clone())
        );
        assert_eq!(again.outputs, decoded.request.outputs);
        assert_eq!(again.id, decoded.request.id);
        assert_eq!(again.parameters, decoded.request.parameters);
        assert_eq!(
            (again.timeout_us, again.priority),
            (decoded.request.timeout_us, decoded.request.priority)
        );
    }
}

/// A tensor whose `data` is the input: read at once, and read after the rest of the tensor is known.
pub fn rest_orders(input: &[u8]) {
    let Some(([datatype, rank, rows, columns], data)) = input.split_first_chunk::<4>() else { return };
    let datatype = Datatype::ALL[usize::from(*datatype) % Datatype::ALL.len()];
    let shape = match rank % 4 {
        0 => "[]".to_owned(),
        1 => format!("[{rows}]"),
        2 => format!("[{rows},{columns}]"),
        _ => format!("[1,{rows},{}]", i64::from(*columns) - 1),
    };
    let body = |first: &[u8], second: &[u8]| {
        let parts: [&[u8]; 5] = [b"{\"inputs\":[{\"name\":\"x\",", first, b",", second, b"}]}"];
        Bytes::from(parts.concat())
    };
    let head = format!("\"datatype\":\"{datatype}\",\"shape\":{shape}").into_bytes();
    let data_field = [b"\"data\":", data].concat();
    let usual = body(&head, &data_field);
    let usual_result = bounded(usual.len(), 0, || rest::decode_infer_request(usual.clone(), None));
    assert!(usual_result.is_ok() <= is_json(&usual), "accepted, but no JSON");
    if !is_json(data) {
        value(usual_result);
        return;
    }
    let data_first = body(&data_field, &head);
    let data_first = bounded(data_first.len(), 0, || rest::decode_infer_request(data_first, None));
    match (&usual_result, &data_first) {
        // serde says where in the text, which differs.
        (Err(usual), Err(other)) if usual.message.starts_with("malformed JSON") => {
            assert!(other.message.starts_with("malformed JSON"), "{usual} or {other}");
        }
        _ => assert_eq!(usual_result, data_first),
    }
    value(usual_result);
}

/// A tensor made of the input, written as JSON and read again.
pub fn rest_round_trip(input: &[u8]) {
    let Some(([datatype, cut], elements)) = input.split_first_chunk::<2>() else { return };
    let datatype = Datatype::ALL[usize::from(*datatype) % Datatype::ALL.len()];
    let (count, data) = match datatype.element_bytes() {
        Some(element_bytes) => {
            let count = elements.len() / element_bytes;
            (count, elements[..count * element_bytes].to_vec())
        }
        None => {
            let mut data = Vec::new();
            let parts = elements.split(|byte| byte == cut);
            let count = parts.clone().count();
            parts.for_each(|part| write_byte_string(&mut data, part));
            (count, data)
        }
    };
    let shape = Shape::new(&[1, i64::try_from(count).expect("a count of bytes")]);
    let tensor = Tensor { name: "x".into(), datatype, shape, data: data.into() };
    let response = InferResponse { outputs: vec![tensor], ..InferResponse::default() };
    let Some(body) = value(rest::encode_infer_response(&response, &RestReply::default())) else {
        let may_fail = matches!(
            datatype,
            Datatype::Fp16 | Datatype::Bf16 | Datatype::Fp32 | Datatype::Fp64 | Datatype::Bytes
        );
        assert!(may_fail, "{datatype} has no value that JSON cannot hold");
        return;
    };
    let body = body.body.into_bytes();
    assert!(is_json(&body));
    let again = rest::decode_infer_response(body, None).expect("what was written is read");
    assert_eq!(without_signs_of_bools(again.outputs), without_signs_of_bools(response.outputs));
}

fn is_json(text: &[u8]) -> bool {
    // serde does not look into the strings it ignores.
    std::str::from_utf8(text).is_ok_and(|text| serde_json::from_str::<IgnoredAny>(text).is_ok())
}

/// Every tensor is a view of the body, or was JSON: one that takes no more than its text allows.
fn check_places(tensors: &[Tensor], body: &Bytes, json_bytes: usize) {
    let copied: usize =
        tensors.iter().filter(|tensor| !is_view(tensor, body)).map(|tensor| tensor.data.len()).sum();
    assert!(copied <= 4 * json_bytes, "{copied} bytes of {json_bytes} bytes of JSON");
}

/// BOOL elements as 0 and 1: in binary any other byte is true as well.
fn without_signs_of_bools(mut tensors: Vec<Tensor>) -> Vec<Tensor> {
    for tensor in &mut tensors {
        if tensor.datatype == Datatype::Bool {
            tensor.data = tensor.data.iter().map(|&byte| u8::from(byte != 0)).collect();
        }
    }
    tensors
}
