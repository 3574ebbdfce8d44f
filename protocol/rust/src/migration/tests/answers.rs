use bytes::Bytes;
use kingpole_values::{Code, Datatype, InferResponse, Result, Shape, Tensor};

use crate::migration::*;
use crate::sample;

fn output(name: &'static str, datatype: Datatype, shape: &[i64]) -> Tensor {
    Tensor { name: name.into(), ..sample::tensor(datatype, shape) }
}

fn answered(outputs: Vec<Tensor>, layout: Layout) -> Result<String> {
    let response = InferResponse { model: "m".into(), outputs, ..InferResponse::default() };
    encode_predictions(&response, "predictions", layout).map(|body| String::from_utf8(body.to_vec()).unwrap())
}

#[test]
fn predictions_are_nested_and_named_only_if_several() {
    let matrix = || output("y", Datatype::Fp32, &[2, 2]);
    for layout in [Layout::Rows, Layout::Columns] {
        assert_eq!(answered(vec![matrix()], layout).unwrap(), r#"{"predictions":[[0.0,0.1],[0.0,0.1]]}"#);
    }
    let both = || vec![matrix(), output("z", Datatype::Bool, &[2])];
    assert_eq!(
        answered(both(), Layout::Rows).unwrap(),
        r#"{"predictions":[{"y":[0.0,0.1],"z":false},{"y":[0.0,0.1],"z":true}]}"#
    );
    assert_eq!(
        answered(both(), Layout::Columns).unwrap(),
        r#"{"predictions":{"y":[[0.0,0.1],[0.0,0.1]],"z":[false,true]}}"#
    );
    assert_eq!(
        answered(vec![output("y", Datatype::Int8, &[])], Layout::Rows).unwrap(),
        r#"{"predictions":0}"#
    );
    assert_eq!(
        answered(vec![output("y", Datatype::Uint16, &[2, 0, 3])], Layout::Rows).unwrap(),
        r#"{"predictions":[[],[]]}"#
    );
    let odd = vec![matrix(), output("z", Datatype::Bool, &[3])];
    assert!(answered(odd, Layout::Rows).unwrap_err().message.contains("'z' has shape [3]"));
}

#[test]
fn text_is_base64_where_its_name_or_its_bytes_ask_for_it() {
    let text = |name: &'static str, data: &'static [u8]| Tensor {
        name: name.into(),
        datatype: Datatype::Bytes,
        shape: Shape::new(&[1]),
        data: Bytes::from_static(data),
    };
    let rows = |tensor| answered(vec![tensor], Layout::Rows).unwrap();
    assert_eq!(rows(text("y", b"\x01\0\0\0a")), r#"{"predictions":["a"]}"#);
    assert_eq!(rows(text("y_bytes", b"\x01\0\0\0a")), r#"{"predictions":[{"b64":"YQ=="}]}"#);
    assert_eq!(rows(text("y", b"\x01\0\0\0\xff")), r#"{"predictions":[{"b64":"/w=="}]}"#);
    let nan =
        Tensor { data: Bytes::copy_from_slice(&f32::NAN.to_le_bytes()), ..output("y", Datatype::Fp32, &[1]) };
    let error = answered(vec![nan], Layout::Rows).unwrap_err();
    assert!(error.message.starts_with("output 'y' holds NaN, which JSON cannot hold"), "{error}");
}

#[test]
fn classes_and_values_are_results() {
    let respond = |outputs| InferResponse { model: "m".into(), outputs, ..InferResponse::default() };
    let text = |body: Result<Bytes>| body.map(|body| String::from_utf8(body.to_vec()).unwrap());
    let scores = || output("scores", Datatype::Fp32, &[1, 2]);
    assert_eq!(
        text(encode_classifications(&respond(vec![scores()]))).unwrap(),
        r#"{"results":[[["",0.0],["",0.1]]]}"#
    );
    assert_eq!(
        text(encode_classifications(&respond(vec![scores(), output("classes", Datatype::Bytes, &[1, 2])])))
            .unwrap(),
        r#"{"results":[[["",0.0],["a",0.1]]]}"#
    );
    let odd = respond(vec![scores(), output("classes", Datatype::Bytes, &[2, 2])]);
    assert!(encode_classifications(&odd).is_err());
    assert!(encode_classifications(&respond(vec![output("y", Datatype::Int8, &[1])])).is_err());
    assert_eq!(
        text(encode_regressions(&respond(vec![output("y", Datatype::Fp32, &[2, 1])]))).unwrap(),
        r#"{"results":[0.0,0.1]}"#
    );
    for outputs in [vec![], vec![scores()], vec![output("y", Datatype::Bytes, &[1])]] {
        assert_eq!(encode_regressions(&respond(outputs)).unwrap_err().code, Code::InvalidArgument);
    }
}
