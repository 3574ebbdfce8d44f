//! Round trips, and agreement with prost's reading of the same bytes.

use bytes::Bytes;
use kingpole_values::{Code, Datatype, Error, InferResponse};
use prost::Message as _;

use super::proto::infer_parameter::ParameterChoice;
use super::proto::model_infer_request::InferInputTensor;
use super::proto::{InferParameter, InferTensorContents, ModelInferRequest, ModelInferResponse};
use super::*;
use crate::sample;

#[test]
fn every_datatype_survives_raw_and_typed() {
    for tensor in sample::tensors() {
        for use_contents in [false, true] {
            let request = sample::request(tensor.clone());
            let decoded =
                decode_infer_request(encode_infer_request(&request, use_contents).into_bytes()).unwrap();
            assert_eq!(decoded.request, request);
            let typed = !matches!(tensor.datatype, Datatype::Fp16 | Datatype::Bf16);
            assert_eq!(decoded.used_contents, use_contents && typed, "{}", tensor.datatype);
            let response = sample::response(tensor.clone());
            let body = encode_infer_response(&response, use_contents).into_bytes();
            assert_eq!(decode_infer_response(body).unwrap(), response);
        }
    }
}

#[test]
fn a_bool_that_is_any_byte_is_one_typed_element() {
    let tensor = kingpole_values::Tensor {
        data: Bytes::from_static(&[0, 1, 2, 0x7f, 0x80, 0xff]),
        ..sample::tensor(Datatype::Bool, &[2, 3])
    };
    let body = encode_infer_response(&sample::response(tensor), true).into_bytes();
    assert_eq!(decode_infer_response(body).unwrap().outputs[0].data[..], [0, 1, 1, 1, 1, 1]);
}

#[test]
fn prost_reads_what_is_written() {
    for tensor in sample::tensors() {
        let body = encode_infer_request(&sample::request(tensor.clone()), false).into_bytes();
        let message = ModelInferRequest::decode(body).unwrap();
        assert_eq!(message.raw_input_contents[0], tensor.data);
        assert_eq!(message.inputs[0].shape, tensor.shape.to_vec());
        assert_eq!(message.inputs[0].datatype, tensor.datatype.name());
        assert_eq!(message.parameters["b"].parameter_choice, Some(ParameterChoice::Int64Param(-7)));
        assert_eq!(message.parameters["timeout"].parameter_choice, Some(ParameterChoice::Int64Param(1500)));
        let body = encode_infer_response(&sample::response(tensor.clone()), true).into_bytes();
        let message = ModelInferResponse::decode(body).unwrap();
        assert_eq!(message.id, "id-1");
        if tensor.datatype == Datatype::Int16 {
            assert_eq!(message.outputs[0].contents.as_ref().unwrap().int_contents, [0, 1, 0, 1, 0, 1]);
        }
    }
}

#[test]
fn a_message_has_grpcs_prefix_and_a_stream_its_envelope() {
    for tensor in sample::tensors() {
        let response = sample::response(tensor);
        let message = encode_infer_response_message(&response, false, &[]).into_bytes();
        assert_eq!(message[0], 0);
        assert_eq!(u32::from_be_bytes(message[1..5].try_into().unwrap()) as usize, message.len() - 5);
        assert_eq!(message[5..], encode_infer_response(&response, false).into_bytes());
        let message = encode_stream_response_message(&response, false, &[]).into_bytes();
        assert_eq!(u32::from_be_bytes(message[1..5].try_into().unwrap()) as usize, message.len() - 5);
        let streamed = proto::ModelStreamInferResponse::decode(message.slice(5..)).unwrap();
        assert_eq!(streamed.infer_response.unwrap().id, "id-1");
    }
    let message = encode_stream_error_message(&Error::invalid("bad"), Some("7"));
    let streamed = proto::ModelStreamInferResponse::decode(message.slice(5..)).unwrap();
    assert_eq!((streamed.error_message.as_str(), streamed.infer_response.unwrap().id.as_str()), ("bad", "7"));
}

#[test]
fn a_big_tensor_is_never_copied() {
    let tensor = sample::tensor(Datatype::Fp32, &[100_000]);
    let at = tensor.data.as_ptr();
    let scatter = encode_infer_response_message(&sample::response(tensor.clone()), false, &[]);
    assert_eq!(scatter.chunks().len(), 2);
    assert_eq!(scatter.chunks()[1].as_ptr(), at);
    let body = encode_infer_request(&sample::request(tensor), false).into_bytes();
    let range = body.as_ptr_range();
    let decoded = decode_infer_request(body.clone()).unwrap();
    assert!(range.contains(&decoded.request.inputs[0].data.as_ptr()), "a view of the body");
}

fn message(datatype: &str, contents: Option<InferTensorContents>, raw: &[&'static [u8]]) -> Bytes {
    let input = InferInputTensor {
        name: "x".into(),
        datatype: datatype.into(),
        shape: vec![1],
        contents,
        ..InferInputTensor::default()
    };
    let raw_input_contents = raw.iter().map(|raw| Bytes::from_static(raw)).collect();
    ModelInferRequest { inputs: vec![input], raw_input_contents, ..ModelInferRequest::default() }
        .encode_to_vec()
        .into()
}

#[test]
fn what_is_wrong_is_named() {
    let ints =
        |value| Some(InferTensorContents { int_contents: vec![value], ..InferTensorContents::default() });
    let cases = [
        (
            message("INT32", ints(1), &[b"abcd"]),
            "tensor 'x': contents and raw_input_contents cannot be mixed",
        ),
        (message("INT8", ints(300), &[]), "tensor 'x': 300 does not fit in INT8"),
        (
            message("FP32", ints(3), &[]),
            "tensor 'x': FP32 elements belong in fp32_contents, got int_contents",
        ),
        (
            message("FP16", ints(3), &[]),
            "tensor 'x': FP16 elements travel in raw_input_contents only, got int_contents",
        ),
        (message("fp32", None, &[b""]), "tensor 'x': unknown datatype 'fp32'"),
        (
            message("FP32", None, &[b"abcd", b"abcd"]),
            "expected one entry of raw_input_contents for each of 1 tensors, got 2",
        ),
        (
            Bytes::from_static(b"\x0a\x05ab"),
            "malformed protobuf message: a field is longer than the message it is in",
        ),
        (
            Bytes::from_static(b"\x08\x01"),
            "malformed protobuf message: a field of ModelInferRequest has the wrong wire type",
        ),
        (Bytes::from_static(b"\x0a\x01\xff"), "model_name is not UTF-8"),
    ];
    for (body, expected) in cases {
        let error = decode_infer_request(body).unwrap_err();
        assert_eq!((error.code, &*error.message), (Code::InvalidArgument, expected));
    }
}

#[test]
fn a_reserved_parameter_must_be_a_number() {
    let choice = ParameterChoice::StringParam("soon".into());
    let parameters = [("timeout".to_owned(), InferParameter { parameter_choice: Some(choice) })].into();
    let body = ModelInferRequest { parameters, ..ModelInferRequest::default() }.encode_to_vec();
    let error = decode_infer_request(body.into()).unwrap_err();
    assert_eq!(error.message, "parameter 'timeout' must be an integer of at least 0, got a string");
}

#[test]
fn tensors_in_regions_have_no_entry_among_the_raw_contents() {
    use super::proto::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
    let parameter = |choice| InferParameter { parameter_choice: Some(choice) };
    let range = || {
        [
            ("shared_memory_region".to_owned(), parameter(ParameterChoice::StringParam("r".into()))),
            ("shared_memory_byte_size".to_owned(), parameter(ParameterChoice::Int64Param(4))),
        ]
        .into()
    };
    let input = |name: &str, parameters| InferInputTensor {
        name: name.into(),
        datatype: "FP32".into(),
        shape: vec![1],
        parameters,
        ..InferInputTensor::default()
    };
    let output = InferRequestedOutputTensor { name: "y".into(), parameters: range() };
    let message = ModelInferRequest {
        inputs: vec![input("a", range()), input("b", [].into())],
        outputs: vec![output],
        raw_input_contents: vec![Bytes::from_static(b"1234")],
        ..ModelInferRequest::default()
    };
    let decoded = decode_infer_request(message.encode_to_vec().into()).unwrap();
    let range = crate::RegionRange { region: "r".into(), offset: 0, nbytes: 4 };
    assert_eq!(decoded.regions.inputs, [(0, range.clone())]);
    assert_eq!(decoded.regions.outputs, [(0, range.clone())]);
    assert_eq!(decoded.request.inputs[0].data, b""[..]);
    assert_eq!(decoded.request.inputs[1].data, b"1234"[..]);
    // The answer says where the output is, in the same words.
    let response = sample::response(kingpole_values::Tensor {
        data: Bytes::new(),
        ..sample::tensor(Datatype::Fp32, &[1])
    });
    let encoded = encode_infer_response_message(&response, true, &[(0, range)]).into_bytes().slice(5..);
    let said = proto::ModelInferResponse::decode(encoded).unwrap();
    assert_eq!(said.raw_output_contents, [Bytes::new()]);
    assert_eq!(said.outputs[0].parameters.len(), 2);
}

#[test]
fn an_empty_message_is_an_empty_request() {
    assert_eq!(decode_infer_request(Bytes::new()).unwrap().request, kingpole_values::InferRequest::default());
    assert_eq!(decode_infer_response(Bytes::new()).unwrap(), InferResponse::default());
}

#[test]
fn a_configuration_is_read_from_tritons_json() {
    let config = model_config_from_json(
        r#"{"name":"m","platform":"onnxruntime_onnx","max_batch_size":8,
            "input":[{"name":"x","data_type":"TYPE_FP32","dims":["-1",3],"optional":true}],
            "instance_group":[{"count":2,"kind":"KIND_CPU"}],
            "dynamic_batching":{"max_queue_delay_microseconds":"100"},
            "version_policy":{"latest":{"num_versions":1}},
            "parameters":{"k":{"string_value":"v"}},"unknown":{}}"#,
    )
    .unwrap();
    assert_eq!(config.input[0].dims, [-1, 3]);
    assert_eq!(config.input[0].data_type(), proto::DataType::TypeFp32);
    let Some(proto::model_config::SchedulingChoice::DynamicBatching(batching)) = config.scheduling_choice
    else {
        panic!("{:?}", config.scheduling_choice)
    };
    assert_eq!(batching.max_queue_delay_microseconds, 100);
    assert_eq!(config.parameters["k"].string_value, "v");
    let error = model_config_from_json(r#"{"max_batch_size":"many"}"#).unwrap_err();
    assert!(error.message.starts_with("the model configuration is malformed: "), "{error}");
}

#[test]
fn the_descriptors_hold_every_service() {
    let text = String::from_utf8_lossy(FILE_DESCRIPTOR_SET).into_owned();
    for name in ["GRPCInferenceService", "grpc.health.v1", "grpc.reflection.v1alpha", "kingpole.v1"] {
        assert!(text.contains(name), "{name}");
    }
}
