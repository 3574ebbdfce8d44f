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
fn a_float_that_json_does_not_have_is_told_the_way_out() {
    for word in ["NaN", "Infinity", "-Infinity"] {
        for data in [format!("[{word}]"), format!("[1.5,\n{word}]")] {
            let error = input("FP32", "[1]", &data).unwrap_err();
            assert!(error.message.starts_with("malformed JSON: "), "{error}");
            assert!(
                error.message.ends_with("send the tensor as binary data, or use gRPC"),
                "{data}: {error}"
            );
        }
    }
    let error = input("FP32", "[1]", "[x]").unwrap_err();
    assert!(!error.message.contains("gRPC"), "{error}");
}

#[test]
fn text_that_is_not_utf8_is_refused_even_where_it_is_ignored() {
    let body = Bytes::from_static(b"{\"inputs\":[],\"\xff\":1}");
    let error = decode_infer_request(body.clone(), None).unwrap_err();
    assert_eq!(error, Error::invalid("malformed JSON: not UTF-8 after 14 bytes"));
    assert!(decode_infer_response(body, None).is_err());
    let body = Bytes::from_static(b"{\"inputs\":[],\"outputs\":[{\"name\":\"y\",\"\xff\":1}]}");
    assert!(decode_infer_request(body, None).is_err());
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
    let cases: [(Datatype, &str, &[u8]); 7] = [
        (Datatype::Fp16, "NaN", &0x7e00u16.to_le_bytes()),
        (Datatype::Fp16, "-inf", &0xfc00u16.to_le_bytes()),
        (Datatype::Bf16, "inf", &0x7f80u16.to_le_bytes()),
        (Datatype::Fp32, "NaN", &f32::NAN.to_le_bytes()),
        (Datatype::Fp32, "-inf", &f32::NEG_INFINITY.to_le_bytes()),
        (Datatype::Fp64, "inf", &f64::INFINITY.to_le_bytes()),
        (Datatype::Bytes, "bytes that are not UTF-8", b"\x01\0\0\0\xff"),
    ];
    for (datatype, what, data) in cases {
        let data = Bytes::copy_from_slice(data);
        let response = sample::response(Tensor {
            name: "y".into(),
            datatype,
            shape: Shape::new(&[1]),
            data: data.clone(),
        });
        let error = encode_infer_response(&response, &RestReply::default()).unwrap_err();
        assert_eq!(error.code, Code::InvalidArgument);
        let expected = format!(
            "tensor 'y' holds {what}, which JSON cannot hold: ask for it with 'binary_data': true, or use gRPC"
        );
        assert_eq!(error.message, expected);
        let reply = RestReply { binary_default: true, outputs: vec![] };
        let body = encode_infer_response(&response, &reply).unwrap();
        assert!(body.body.into_bytes().ends_with(&data), "the way out is one");
    }
    let mut response = sample::response(sample::tensor(Datatype::Fp32, &[1]));
    response.parameters = vec![("p".into(), kingpole_values::Parameter::Double(f64::NAN))];
    let error = encode_infer_response(&response, &RestReply::default()).unwrap_err();
    assert_eq!(error, Error::invalid("parameter 'p' is NaN, which JSON cannot hold: use gRPC"));
}

#[test]
fn tensors_in_regions_take_nothing_of_the_body() {
    let shared = r#""shared_memory_region":"r","shared_memory_byte_size":4,"shared_memory_offset":8"#;
    let body = format!(
        r#"{{"inputs":[{{"name":"a","datatype":"FP32","shape":[1],"parameters":{{{shared}}}}},
            {{"name":"b","datatype":"FP32","shape":[1],"parameters":{{"binary_data_size":4}}}}],
            "outputs":[{{"name":"z"}},{{"name":"y","parameters":{{{shared}}}}}]}}"#
    );
    let decoded = decode_infer_request(format!("{body}1234").into(), Some(body.len())).unwrap();
    let range = crate::RegionRange { region: "r".into(), offset: 8, nbytes: 4 };
    assert_eq!(decoded.regions.inputs, [(0, range.clone())]);
    assert_eq!(decoded.regions.outputs, [(1, range.clone())]);
    assert_eq!(decoded.request.inputs[1].data, b"1234"[..]);
    let both = body.replacen("\"parameters\"", "\"data\":[1],\"parameters\"", 1);
    let error = decode_infer_request(both.clone().into(), Some(both.len())).unwrap_err();
    assert!(error.message.contains("shared memory and has 'data'"), "{error}");
    let response = sample::response(sample::tensor(Datatype::Fp32, &[1]));
    let written = encode_infer_response_in_regions(&response, &RestReply::default(), &[(0, range)]).unwrap();
    let said: serde_json::Value = serde_json::from_slice(&written.body.into_bytes()).unwrap();
    assert_eq!(
        said["outputs"][0]["parameters"],
        serde_json::json!({
            "shared_memory_region": "r", "shared_memory_byte_size": 4, "shared_memory_offset": 8, "binary_data_size": 0
        })
    );
    assert!(said["outputs"][0].get("data").is_none());
}

#[test]
fn an_error_is_one_json_object() {
    let body = encode_error(&Error::invalid("a \"quote\"\n\u{1}"));
    assert_eq!(body, r#"{"error":"a \"quote\"\n\u0001"}"#);
}

#[test]
fn half_precision_is_written_as_the_shortest_text() {
    let text = |datatype: Datatype, data: Vec<u8>| {
        let shape = Shape::new(&[i64::try_from(data.len() / 2).unwrap()]);
        let tensor = Tensor { name: "y".into(), datatype, shape, data: data.into() };
        let body = encode_infer_response(&sample::response(tensor), &RestReply::default()).unwrap();
        let text = String::from_utf8(body.body.into_bytes().to_vec()).unwrap();
        text[text.find("\"data\":").unwrap() + 7..].trim_end_matches("}]}").to_owned()
    };
    let fp16 = [0x2e66u16, 0x3555, 0x7bff, 0x0001, 0x8000, 0xc000];
    let fp16 = fp16.iter().flat_map(|bits| bits.to_le_bytes()).collect();
    assert_eq!(text(Datatype::Fp16, fp16), "[0.1,0.3333,65500.0,6e-8,-0.0,-2.0]");
    let bf16 = [0x3dcdu16, 0x3eab, 0x7f7f, 0x0001, 0x4049];
    let bf16 = bf16.iter().flat_map(|bits| bits.to_le_bytes()).collect();
    assert_eq!(text(Datatype::Bf16, bf16), "[0.1,0.334,3.39e38,9e-41,3.14]");
}

#[test]
fn half_precision_numbers_are_rounded_to_nearest_even() {
    let fp16 = input("FP16", "[4]", "[0.1, 2049, 2051, 1.00048828125000000000001]").unwrap();
    assert_eq!(fp16[..], [0x66, 0x2e, 0x00, 0x68, 0x02, 0x68, 0x01, 0x3c]);
    let bf16 = input("BF16", "[2]", "[257, -3.14]").unwrap();
    assert_eq!(bf16[..], [0x80, 0x43, 0x49, 0xc0]);
    assert_eq!(
        input("BF16", "[1]", "[3.4e38]").unwrap_err().message,
        "tensor 'x': 3.4e38 does not fit in BF16"
    );
}

#[test]
fn a_list_in_the_place_of_an_object_is_refused() {
    for json in [
        r#"["id", null, [], []]"#,
        r#"{"inputs": [["x", "FP32", [1], null, [1]]]}"#,
        r#"{"inputs": [], "outputs": [["y"]]}"#,
    ] {
        let error = decode(json).unwrap_err();
        assert!(error.message.contains("expected an object"), "{json}: {error}");
    }
}
