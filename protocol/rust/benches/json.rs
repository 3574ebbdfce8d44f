//! What JSON costs: `cargo bench -p kingpole-wire --bench json`.

use std::fmt::Write as _;
use std::hint::black_box;

use bytes::Bytes;
use criterion::{Criterion, criterion_main};
use kingpole_values::{Datatype, InferResponse, Shape, Tensor};
use kingpole_wire::rest::{RestReply, decode_infer_request, encode_infer_response};

const ELEMENTS: usize = 1000;

/// Numbers as a client's `tolist()` gives them: floats with all their digits, integers of any size.
fn data(datatype: Datatype) -> String {
    let mut text = String::from("[");
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for index in 0..ELEMENTS {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        if index > 0 {
            text.push_str(", ");
        }
        #[allow(clippy::cast_precision_loss)] // 24 bits are what an f32 holds
        let unit = (state >> 40) as f32 / 16_777_216.0;
        match datatype {
            Datatype::Fp32 => write!(text, "{}", f64::from(unit)),
            Datatype::Fp16 => write!(text, "{}", f64::from(half::f16::from_f32(unit))),
            Datatype::Int64 => write!(text, "{}", state >> (state % 60 + 1)),
            _ => write!(text, "\"row {}\"", state >> 40),
        }
        .expect("a String takes everything");
    }
    text.push(']');
    text
}

fn request(datatype: Datatype, data_first: bool) -> Bytes {
    let data = format!(r#""data": {}"#, data(datatype));
    let head = format!(r#""name": "x", "shape": [1, {ELEMENTS}], "datatype": "{datatype}""#);
    let (first, second) = if data_first { (&data, &head) } else { (&head, &data) };
    format!(r#"{{"id": "17", "inputs": [{{{first}, {second}}}], "outputs": [{{"name": "y"}}]}}"#).into()
}

fn json(criterion: &mut Criterion) {
    for datatype in [Datatype::Fp32, Datatype::Fp16, Datatype::Int64, Datatype::Bytes] {
        for (order, data_first) in [("usual", false), ("data first", true)] {
            let body = request(datatype, data_first);
            criterion.bench_function(&format!("decode {datatype}, {order}"), |bencher| {
                bencher.iter(|| decode_infer_request(black_box(body.clone()), None).expect("a good request"));
            });
        }
        let decoded = decode_infer_request(request(datatype, false), None).expect("a good request");
        let tensor = Tensor { shape: Shape::new(&[1, 1000]), ..decoded.request.inputs[0].clone() };
        let response = InferResponse { outputs: vec![tensor], ..InferResponse::default() };
        criterion.bench_function(&format!("encode {datatype}"), |bencher| {
            bencher.iter(|| encode_infer_response(black_box(&response), &RestReply::default()));
        });
    }
}

#[allow(missing_docs)] // what the macro makes
mod group {
    use super::json;
    criterion::criterion_group!(benches, json);
}
criterion_main!(group::benches);
