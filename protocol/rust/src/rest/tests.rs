//! Round trips, exact texts, and each fault named.

use bytes::Bytes;
use kingpole_values::{Code, Datatype, Error, Result, Shape, Tensor};

use super::*;
use crate::sample;

fn decode(json: &str) -> Result<RestInferRequest> {
    decode_infer_request(Bytes::copy_from_slice(json.as_bytes()), None)
}

fn input(datatype: &str, shape: &str, data: &str) -> Result<Bytes> {
    let json =
        format!(r#"{{"inputs":[{{"name":"x","shape":{shape},"datatype":"{datatype}","data":{data}}}]}}"#);
    decode(&json).map(|decoded| decoded.request.inputs[0].data.clone())
}

#[test]
fn every_datatype_survives_json_and_binary() {
    for tensor in sample::tensors() {
        for use_binary in [false, true] {
            let mut request = sample::request(tensor.clone());
            (request.model, request.version) = Default::default();
            let body = encode_infer_request(&request, use_binary).unwrap();
            let decoded = decode_infer_request(body.body.into_bytes(), body.header_length).unwrap();
            assert_eq!(decoded.request, request);
            assert_eq!(decoded.reply.outputs, [("y".into(), Some(use_binary))]);
            let response = sample::response(tensor.clone());
            let reply = RestReply { binary_default: use_binary, outputs: vec![] };
            let body = encode_infer_response(&response, &reply).unwrap();
            assert_eq!(body.header_length.is_some(), use_binary && !tensor.data.is_empty());
            assert_eq!(decode_infer_response(body.body.into_bytes(), body.header_length).unwrap(), response);
        }
    }
}

#[test]
fn a_response_is_written_in_the_usual_order() {
    let mut response = sample::response(sample::tensor(Datatype::Fp32, &[2, 1]));
    let text = |response: &_| {
        let body = encode_infer_response(response, &RestReply::default()).unwrap();
        String::from_utf8(body.body.into_bytes().to_vec()).unwrap()
    };
    assert_eq!(
        text(&response),
        r#"{"id":"id-1","model_name":"m","model_version":"3","parameters":{"b":-7},"outputs":[{"name":"x","datatype":"FP32","shape":[2,1],"data":[0.0,0.1]}]}"#
    );
    response.id = None;
    response.parameters.clear();
    response.outputs.clear();
    assert_eq!(text(&response), r#"{"model_name":"m","model_version":"3","outputs":[]}"#);
}

#[test]
fn data_may_be_flat_or_nested_and_nesting_must_match() {
    let flat = input("INT32", "[2,2]", "[1,2,3,4]").unwrap();
    assert_eq!(input("INT32", "[2,2]", " [ [1 , 2],\n[3,4] ] ").unwrap(), flat);
    assert_eq!(input("INT32", "[2,0]", "[[],[]]").unwrap(), "");
    assert_eq!(input("INT32", "[]", "5").unwrap(), input("INT32", "[1]", "[5]").unwrap());
    let cases = [
        ("[2,2]", "[[1,2,3],[4,5,6]]", "tensor 'x': data is nested as [2,3], but shape is [2,2]"),
        ("[2,2]", "[[1,2],[3]]", "tensor 'x': data is nested unevenly"),
        ("[2,2]", "[[1,2],3,4]", "tensor 'x': data is nested unevenly"),
        ("[2]", "[1,[2]]", "tensor 'x': data is nested unevenly"),
        ("[2]", "[1,2,3]", "tensor 'x': shape [2] needs 2 elements, got 3"),
        ("[-1]", "[1]", "tensor 'x': shape [-1] has a negative dimension or too many elements"),
        ("[1]", "7", "tensor 'x': data must be a list"),
    ];
    for (shape, data, expected) in cases {
        let error = input("INT32", shape, data).unwrap_err();
        assert_eq!((error.code, &*error.message), (Code::InvalidArgument, expected));
    }
    let deep = format!("{}1{}", "[".repeat(33), "]".repeat(33));
    assert_eq!(
        input("INT32", "[1]", &deep).unwrap_err().message,
        "tensor 'x': data is nested deeper than 32"
    );
}

#[test]
fn an_element_that_does_not_fit_is_named() {
    let cases = [
        ("INT32", "[1.7]", "INT32 needs an integer, got 1.7"),
        ("INT8", "[128]", "128 does not fit in INT8"),
        ("UINT8", "[-1]", "-1 does not fit in UINT8"),
        ("UINT64", "[18446744073709551616]", "18446744073709551616 does not fit in UINT64"),
        ("FP32", "[1e39]", "1e39 does not fit in FP32"),
        ("FP16", "[65520]", "65520 does not fit in FP16"),
        ("FP32", "[\"1\"]", "FP32 needs a number, got \"1\""),
        ("FP32", "[null]", "FP32 needs a number, got null"),
        ("BOOL", "[1]", "BOOL needs true or false, got 1"),
        ("BYTES", "[1]", "BYTES needs a string, got 1"),
        ("BYTES", "[\"\\ud800\"]", "a string has an escape that is not Unicode text"),
        ("INT32", "[{}]", "INT32 needs an integer, got an object"),
    ];
    for (datatype, data, expected) in cases {
        let error = input(datatype, "[1]", data).unwrap_err();
        assert_eq!(error.message, format!("tensor 'x': {expected}"));
    }
    assert_eq!(input("INT64", "[1]", "[-9223372036854775808]").unwrap(), i64::MIN.to_le_bytes()[..]);
    assert_eq!(input("UINT64", "[1]", "[18446744073709551615]").unwrap(), u64::MAX.to_le_bytes()[..]);
    assert_eq!(input("FP32", "[3]", "[0.1,-0,1e2]").unwrap()[..4], 0.1f32.to_le_bytes());
    assert_eq!(input("BYTES", "[2]", r#"["a,]\"b","é"]"#).unwrap(), "\u{5}\0\0\0a,]\"b\u{2}\0\0\0é");
}

#[test]
fn malformed_requests_are_explained() {
    let tensor = r#""name":"x","shape":[1],"datatype":"FP32""#;
    let cases = [
        ("{}".to_owned(), "the request has no 'inputs'"),
        (r#"{"inputs":[{}]}"#.to_owned(), "input 0 has no 'name'"),
        (r#"{"inputs":[{"name":"x"}]}"#.to_owned(), "input 'x' has no 'datatype'"),
        (r#"{"inputs":[{"name":"x","datatype":"FP32"}]}"#.to_owned(), "input 'x' has no 'shape'"),
        (format!(r#"{{"inputs":[{{{tensor}}}]}}"#), "input 'x' has neither 'data' nor 'binary_data_size'"),
        (
            r#"{"inputs":[{"name":"x","shape":[1],"datatype":"STRING","data":["a"]}]}"#.to_owned(),
            "input 'x': unknown datatype 'STRING'",
        ),
        (
            format!(r#"{{"inputs":[{{{tensor},"parameters":{{"binary_data_size":4}}}}]}}"#),
            "input 'x': binary_data_size is 4, but only 0 bytes are left in the body",
        ),
    ];
    for (json, expected) in cases {
        let error = decode(&json).unwrap_err();
        assert_eq!((error.code, &*error.message), (Code::InvalidArgument, expected));
    }
    for (json, part) in [
        (r#"{"id":5,"inputs":[]}"#, "invalid type: integer `5`, expected a string"),
        (r#"{"inputs":[],"inputs":[]}"#, "duplicate field `inputs`"),
        (r#"{"parameters":{"a":1,"a":2},"inputs":[]}"#, "parameter `a` is given twice"),
        (r#"{"parameters":{"a":[1]},"inputs":[]}"#, "expected a string, a number or a bool"),
        (r#"{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[NaN]}]}"#, "malformed JSON"),
        (r#"{"inputs":["#, "malformed JSON"),
        ("", "malformed JSON"),
    ] {
        let error = decode(json).unwrap_err();
        assert_eq!(error.code, Code::InvalidArgument);
        assert!(error.message.contains(part), "{json}: {error}");
    }
}

#[test]
fn binary_sections_must_use_up_the_body() {
    let json =
        r#"{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","parameters":{"binary_data_size":4}}]}"#;
    let body = Bytes::from(format!("{json}abcd"));
    let decoded = decode_infer_request(body.clone(), Some(json.len())).unwrap();
    assert_eq!(decoded.request.inputs[0].data, "abcd");
    let longer = Bytes::from(format!("{json}abcdef"));
    let error = decode_infer_request(longer, Some(json.len())).unwrap_err();
    assert_eq!(error.message, "2 bytes are left in the body after the last input");
    assert!(decode_infer_request(body.clone(), Some(body.len() + 1)).is_err());
    let raw = decode_infer_request(body.clone(), Some(0)).unwrap();
    assert!(raw.raw && raw.reply.binary_default);
    assert_eq!(raw.request.inputs[0].data, body);
}

#[test]
fn what_json_cannot_hold_names_the_way_out() {
    let nan = Tensor {
        name: "y".into(),
        datatype: Datatype::Fp32,
        shape: Shape::new(&[1]),
        data: Bytes::copy_from_slice(&f32::NAN.to_le_bytes()),
    };
    let bytes =
        Tensor { datatype: Datatype::Bytes, data: Bytes::from_static(b"\x01\0\0\0\xff"), ..nan.clone() };
    for tensor in [nan, bytes] {
        let error = encode_infer_response(&sample::response(tensor), &RestReply::default()).unwrap_err();
        assert_eq!(error.code, Code::InvalidArgument);
        assert!(
            error.message.starts_with("tensor 'y' holds") && error.message.contains("binary_data"),
            "{error}"
        );
    }
}

#[test]
fn an_error_is_one_json_object() {
    let body = encode_error(&Error::invalid("a \"quote\"\n\u{1}"));
    assert_eq!(body, r#"{"error":"a \"quote\"\n\u0001"}"#);
}
