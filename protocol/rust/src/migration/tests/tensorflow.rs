use bytes::Bytes;
use kingpole_values::{Code, Datatype, Error, InferResponse, Result, Tensor};
use prost::Message;

use super::floats;
use crate::migration::tensorflow::{self, decode_predict_request, encode_predict_response_message, proto};
use crate::sample;

/// A `PredictRequest` with one input, as prost writes it.
fn predict_request(tensor: proto::tensorflow::TensorProto) -> Bytes {
    use proto::tensorflow::serving::{ModelSpec, PredictRequest, model_spec::VersionChoice};
    let model_spec = ModelSpec {
        name: "m".into(),
        signature_name: "s".into(),
        version_choice: Some(VersionChoice::Version(3)),
    };
    let request = PredictRequest {
        model_spec: Some(model_spec),
        inputs: [("x".to_owned(), tensor)].into(),
        output_filter: vec!["y".into()],
    };
    request.encode_to_vec().into()
}

fn tensor_proto(datatype: Datatype, shape: &[i64]) -> proto::tensorflow::TensorProto {
    let dim =
        shape.iter().map(|&size| proto::tensorflow::tensor_shape_proto::Dim { size, name: String::new() });
    proto::tensorflow::TensorProto {
        dtype: tensorflow::type_number(datatype),
        tensor_shape: Some(proto::tensorflow::TensorShapeProto { dim: dim.collect(), unknown_rank: false }),
        ..Default::default()
    }
}

fn decoded(tensor: proto::tensorflow::TensorProto) -> Result<Tensor> {
    decode_predict_request(predict_request(tensor)).map(|(mut request, _)| request.inputs.remove(0))
}

#[test]
fn every_datatype_travels_as_content_to_tensorflow_and_back() {
    for tensor in sample::tensors() {
        let response = InferResponse {
            model: "m".into(),
            version: "3".into(),
            outputs: vec![tensor.clone()],
            ..InferResponse::default()
        };
        let message = encode_predict_response_message(&response, "serving_default").into_bytes();
        assert_eq!(message[1..5], u32::try_from(message.len() - 5).unwrap().to_be_bytes());
        let read = proto::tensorflow::serving::PredictResponse::decode(message.slice(5..)).unwrap();
        let reference = tensorflow::ModelReference::from(read.model_spec.unwrap());
        assert_eq!((&*reference.model, reference.version.as_deref()), ("m", Some("3")));
        let sent = read.outputs.get("x").unwrap().clone();
        assert_eq!(decoded(sent).unwrap(), tensor);
    }
}

#[test]
fn a_predict_request_is_read_with_its_model_and_its_filter() {
    let content = proto::tensorflow::TensorProto {
        tensor_content: Bytes::from(vec![7; 4000]),
        ..tensor_proto(Datatype::Uint8, &[4000])
    };
    let body = predict_request(content);
    let (request, signature) = decode_predict_request(body.clone()).unwrap();
    assert_eq!((&*request.model, request.version.as_deref(), &*signature), ("m", Some("3"), "s"));
    assert_eq!(&*request.outputs[0].name, "y");
    assert!(body.as_ptr_range().contains(&request.inputs[0].data.as_ptr()), "content is not copied");
}

#[test]
fn typed_values_stand_for_the_rest() {
    let float = |values: &[f32], shape: &[i64]| {
        decoded(proto::tensorflow::TensorProto {
            float_val: values.to_vec(),
            ..tensor_proto(Datatype::Fp32, shape)
        })
    };
    assert_eq!(float(&[1.0, 2.0], &[2]).unwrap().data, floats(&[1.0, 2.0]));
    assert_eq!(float(&[1.0, 2.0], &[4]).unwrap().data, floats(&[1.0, 2.0, 2.0, 2.0]));
    assert_eq!(float(&[], &[2]).unwrap().data, floats(&[0.0, 0.0]));
    assert_eq!(float(&[1.0, 2.0, 3.0], &[2]).unwrap().check_size().unwrap_err().code, Code::InvalidArgument);
    let texts = |values: &[&'static str], shape: &[i64]| {
        let string_val = values.iter().map(|text| Bytes::from_static(text.as_bytes())).collect();
        decoded(proto::tensorflow::TensorProto { string_val, ..tensor_proto(Datatype::Bytes, shape) })
    };
    assert_eq!(texts(&["a", "bc"], &[3]).unwrap().data, b"\x01\0\0\0a\x02\0\0\0bc\x02\0\0\0bc"[..]);
    assert_eq!(texts(&[], &[1]).unwrap().data, b"\0\0\0\0"[..]);
    let error = float(&[1.0], &[1 << 40]).unwrap_err();
    assert_eq!(error.code, Code::ResourceExhausted, "{error}");
    assert_eq!(float(&[1.0], &[i64::MAX, i64::MAX]).unwrap().data.len(), 4);
}

#[test]
fn integers_halves_and_packed_strings_are_read_from_their_fields() {
    let int = |datatype, value| {
        decoded(proto::tensorflow::TensorProto { int_val: vec![value], ..tensor_proto(datatype, &[1]) })
    };
    assert_eq!(int(Datatype::Int8, -1).unwrap().data, b"\xff"[..]);
    assert_eq!(int(Datatype::Uint16, 65535).unwrap().data, b"\xff\xff"[..]);
    assert_eq!(int(Datatype::Uint8, 300).unwrap_err().message, "tensor 'x': 300 does not fit in UINT8");
    let half =
        proto::tensorflow::TensorProto { half_val: vec![0x3c00], ..tensor_proto(Datatype::Fp16, &[1]) };
    assert_eq!(decoded(half).unwrap().data, b"\0\x3c"[..]);
    let wide =
        proto::tensorflow::TensorProto { uint64_val: vec![u64::MAX], ..tensor_proto(Datatype::Uint64, &[1]) };
    assert_eq!(decoded(wide).unwrap().data, [0xff; 8][..]);
    let packed = |content: &'static [u8], shape: &[i64]| {
        decoded(proto::tensorflow::TensorProto {
            tensor_content: content.into(),
            ..tensor_proto(Datatype::Bytes, shape)
        })
    };
    assert_eq!(packed(b"\x01\x02abc", &[2]).unwrap().data, b"\x01\0\0\0a\x02\0\0\0bc"[..]);
    for (content, shape) in [(&b"\x01\x02ab"[..], 2), (b"\x01\x01abc", 2), (b"\xff", 1), (b"a", 1 << 40)] {
        assert_eq!(packed(content, &[shape]).unwrap_err().code, Code::InvalidArgument, "{content:?}");
    }
}

#[test]
fn a_wrong_tensor_proto_is_explained() {
    let base = || tensor_proto(Datatype::Fp32, &[1]);
    let cases: [(proto::tensorflow::TensorProto, &str); 5] = [
        (
            proto::tensorflow::TensorProto { dtype: 8, ..base() },
            "tensor 'x': TensorFlow's type number 8 is not supported",
        ),
        (
            proto::tensorflow::TensorProto { int_val: vec![1], ..base() },
            "tensor 'x': FP32 elements belong in field 5 of TensorProto, got field 7",
        ),
        (
            proto::tensorflow::TensorProto { string_val: vec![Bytes::new()], ..base() },
            "tensor 'x': FP32 elements belong in field 5 of TensorProto, got field 8",
        ),
        (
            proto::tensorflow::TensorProto {
                float_val: vec![1.0],
                tensor_content: b"abcd"[..].into(),
                ..base()
            },
            "tensor 'x' has both tensor_content and typed values",
        ),
        (
            proto::tensorflow::TensorProto {
                tensor_shape: Some(proto::tensorflow::TensorShapeProto { dim: vec![], unknown_rank: true }),
                ..base()
            },
            "tensor 'x': its shape is of unknown rank",
        ),
    ];
    for (tensor, expected) in cases {
        assert_eq!(decoded(tensor).unwrap_err(), Error::invalid(expected));
    }
}
