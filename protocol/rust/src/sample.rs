//! Tensors of every kind, for the tests of every codec.

use bytes::Bytes;
use kingpole_values::{
    Datatype, InferRequest, InferResponse, Parameter, RequestedOutput, Shape, Tensor, write_byte_string,
};

#[allow(dead_code)] // the generator of vectors includes this file and names its tensors itself
/// One tensor of each datatype, and a scalar, an empty one and a big one.
pub(crate) fn tensors() -> Vec<Tensor> {
    let mut tensors: Vec<Tensor> =
        Datatype::ALL.into_iter().map(|datatype| tensor(datatype, &[2, 3])).collect();
    tensors.push(tensor(Datatype::Fp32, &[]));
    tensors.push(tensor(Datatype::Fp32, &[0, 3]));
    tensors.push(tensor(Datatype::Bytes, &[0]));
    tensors.push(tensor(Datatype::Int64, &[5000]));
    tensors
}

/// A tensor with some elements; every element is 0 or 1 in each datatype's own way.
pub(crate) fn tensor(datatype: Datatype, shape: &[i64]) -> Tensor {
    let shape = Shape::new(shape);
    let mut data = Vec::new();
    for index in 0..shape.elements().unwrap() {
        match datatype {
            Datatype::Bytes => write_byte_string(&mut data, &b"a\"\\b\n"[..index % 6]),
            Datatype::Fp16 => data.extend([0, 0x3c * u8::from(index % 2 == 1)]),
            Datatype::Bf16 => data.extend([0x80, 0x3f].map(|byte| byte * u8::from(index % 2 == 1))),
            Datatype::Fp32 => data.extend(if index % 2 == 1 { 0.1f32 } else { 0.0 }.to_le_bytes()),
            Datatype::Fp64 => data.extend(if index % 2 == 1 { 1e300f64 } else { 0.0 }.to_le_bytes()),
            _ => {
                let mut element = vec![0; datatype.element_bytes().unwrap()];
                element[0] = u8::from(index % 2 == 1);
                data.extend(element);
            }
        }
    }
    Tensor { name: "x".into(), datatype, shape, data: Bytes::from(data) }
}

/// A request with everything in it.
pub(crate) fn request(tensor: Tensor) -> InferRequest {
    InferRequest {
        model: "m".into(),
        version: Some("3".into()),
        id: Some("id-1".into()),
        inputs: vec![tensor],
        outputs: vec![RequestedOutput {
            name: "y".into(),
            parameters: vec![("classification".into(), Parameter::Int64(3))],
        }],
        parameters: vec![
            ("a".into(), Parameter::Bool(true)),
            ("b".into(), Parameter::Int64(-7)),
            ("c".into(), Parameter::String("text".into())),
            ("d".into(), Parameter::Double(0.5)),
        ],
        timeout_us: Some(1500),
        priority: 2,
        sequence: None,
        inputs_may_change: false,
    }
}

/// A response with everything that every protocol carries.
pub(crate) fn response(tensor: Tensor) -> InferResponse {
    InferResponse {
        model: "m".into(),
        version: "3".into(),
        id: Some("id-1".into()),
        outputs: vec![tensor],
        parameters: vec![("b".into(), Parameter::Int64(-7))],
        ..InferResponse::default()
    }
}
