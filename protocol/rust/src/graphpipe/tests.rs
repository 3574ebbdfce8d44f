//! Round trips, and bodies that real clients and the reference server made.

use std::path::PathBuf;

use bytes::Bytes;
use kingpole_values::{Code, Datatype, Error, InferRequest, InferResponse, RequestedOutput, Shape, Tensor};

use super::*;
use crate::sample;

#[test]
fn every_datatype_survives_a_round_trip() {
    for tensor in sample::tensors() {
        if matches!(tensor.datatype, Datatype::Bf16 | Datatype::Bool) {
            continue;
        }
        let request = InferRequest {
            inputs: vec![tensor.clone()],
            outputs: vec![RequestedOutput { name: "y".into(), ..RequestedOutput::default() }],
            ..InferRequest::default()
        };
        let body = encode_request(&request, "{}").unwrap().into_bytes();
        let expected = GraphpipeRequest::Infer { request, config: Some("{}".into()) };
        assert_eq!(decode_request(body).unwrap(), expected);
        let response =
            InferResponse { outputs: vec![Tensor { name: "".into(), ..tensor }], ..InferResponse::default() };
        let body = encode_infer_response(&response).unwrap().into_bytes();
        assert_eq!(decode_response(body).unwrap().outputs, response.outputs);
    }
}

#[test]
fn a_tensor_without_a_type_is_refused_not_nulled() {
    let tensor =
        Tensor { name: "x".into(), datatype: Datatype::Bf16, shape: Shape::new(&[0]), data: Bytes::new() };
    let response = InferResponse { outputs: vec![tensor], ..InferResponse::default() };
    assert_eq!(encode_infer_response(&response).unwrap_err().code, Code::Unimplemented);
}

#[test]
fn payloads_are_aligned_and_not_copied() {
    let tensor = Tensor {
        name: "".into(),
        datatype: Datatype::Fp64,
        shape: Shape::new(&[10_000]),
        data: Bytes::from(vec![1; 80_000]),
    };
    let data = tensor.data.clone();
    let response = InferResponse { outputs: vec![tensor], ..InferResponse::default() };
    let scatter = encode_infer_response(&response).unwrap();
    assert_eq!(scatter.chunks().len(), 2);
    assert_eq!(scatter.chunks()[1].as_ptr(), data.as_ptr());
    assert_eq!(scatter.chunks()[0].len() % 16, 0);
}

#[test]
fn metadata_and_errors_survive_a_round_trip() {
    let spec = GraphpipeSpec {
        name: "x".into(),
        description: "".into(),
        shape: Shape::new(&[-1, 3]),
        datatype: Some(Datatype::Fp32),
    };
    let metadata = GraphpipeMetadata {
        name: "model".into(),
        version: "1".into(),
        server: "kingpole".into(),
        description: "é".into(),
        inputs: vec![spec.clone()],
        outputs: vec![spec.clone(), GraphpipeSpec { shape: Shape::default(), ..spec }],
    };
    assert_eq!(decode_metadata_response(encode_metadata_response(&metadata)).unwrap(), metadata);
    let body = encode_error_response(&Error::not_found("no such model"));
    let response = decode_response(body).unwrap();
    assert_eq!(response.errors, [(5, "no such model".into())]);
    assert_eq!(decode_request(encode_metadata_request()).unwrap(), GraphpipeRequest::Metadata);
}

#[test]
fn strings_shared_by_many_offsets_cannot_exhaust_memory() {
    let element = vec![b'a'; 4000];
    let mut data = Vec::new();
    kingpole_values::write_byte_string(&mut data, &element);
    for _ in 0..2000 {
        kingpole_values::write_byte_string(&mut data, b"");
    }
    let tensor =
        Tensor { name: "x".into(), datatype: Datatype::Bytes, shape: Shape::new(&[2001]), data: data.into() };
    let request = InferRequest { inputs: vec![tensor], ..InferRequest::default() };
    let mut body = encode_request(&request, "").unwrap().into_bytes().to_vec();
    // Point every element at the first one.
    let text = body.windows(8).position(|window| window == b"aaaaaaaa").unwrap() - 4;
    let start = (0..text).find(|&at| body[at..at + 4] == 2001u32.to_le_bytes() && at % 4 == 0).unwrap();
    let vector = (start + 4..text).find(|&at| body[at..at + 4] == 2001u32.to_le_bytes()).unwrap_or(start) + 4;
    for index in 0..2001 {
        let at = vector + 4 * index;
        let offset = u32::try_from(text - at.min(text)).unwrap();
        if offset > 0 && at + 4 <= text {
            body[at..at + 4].copy_from_slice(&offset.to_le_bytes());
        }
    }
    assert_eq!(decode_request(body.into()).unwrap_err().code, Code::ResourceExhausted);
}

/// Where recorded bodies are, if this checkout has them beside it.
fn recorded() -> Option<PathBuf> {
    let shared = std::env::var_os("KINGPOLE_SHARED")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared"), PathBuf::from);
    Some(shared.join("data/graphpipe")).filter(|directory| directory.is_dir())
}

#[test]
fn recorded_bodies_are_read_or_refused_as_the_facts_say() {
    let Some(directory) = recorded() else {
        eprintln!("SKIPPED: no recorded GraphPipe bodies; set KINGPOLE_SHARED to run this");
        return;
    };
    let refused = [
        "empty_body",
        "truncated_half",
        "garbage_text",
        "req_type_none",
        "dtype_null",
        "shape_data_mismatch",
    ];
    let refused =
        |name: &str| refused.iter().chain(&["negative_dim", "data_absent"]).any(|part| name.contains(part));
    let mut seen = 0;
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if !name.contains(".bin") || name.contains("pyhelper_tensor") || name.contains("get_json") {
            continue;
        }
        let body = Bytes::from(std::fs::read(&path).unwrap());
        seen += 1;
        if name.ends_with(".req.bin") {
            match decode_request(body) {
                Ok(_) => assert!(!refused(&name), "{name} was accepted"),
                Err(error) => {
                    assert!(refused(&name), "{name}: {error}");
                    assert_eq!(error.code, Code::InvalidArgument, "{name}");
                }
            }
        } else if name.contains("metadata") {
            assert!(!decode_metadata_response(body).unwrap().outputs.is_empty(), "{name}");
        } else {
            decode_response(body).unwrap_or_else(|error| panic!("{name}: {error}"));
        }
    }
    assert!(seen > 40, "only {seen} recorded bodies");
}
