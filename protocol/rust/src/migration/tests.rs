use bytes::Bytes;
use kingpole_values::{Code, Datatype, Error, InferRequest, InferResponse, Result, Shape, Tensor};
use prost::Message;

use super::tensorflow::{decode_predict_request, encode_predict_response_message, proto};
use super::*;
use crate::sample;

fn declared(name: &'static str, datatype: Datatype, shape: &[i64]) -> DeclaredInput {
    DeclaredInput { name: name.into(), datatype, shape: Shape::new(shape), optional: false }
}

fn one(datatype: Datatype) -> Vec<DeclaredInput> {
    vec![declared("x", datatype, &[-1, -1])]
}

fn two() -> Vec<DeclaredInput> {
    vec![declared("a", Datatype::Int32, &[-1]), declared("b", Datatype::Bytes, &[-1, 1])]
}

fn predict(body: &'static str, declared: &[DeclaredInput]) -> Result<JsonPredict> {
    decode_predict(Bytes::from_static(body.as_bytes()), declared)
}

/// Names, shapes and data of a request's inputs.
fn inputs(request: &InferRequest) -> Vec<(&str, Vec<i64>, &[u8])> {
    request.inputs.iter().map(|input| (&*input.name, input.shape.to_vec(), &input.data[..])).collect()
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn refusals<'a>(cases: impl IntoIterator<Item = (Result<JsonPredict>, &'a str)>) {
    for (result, expected) in cases {
        let error = result.expect_err(expected);
        assert_eq!((error.code, &*error.message), (Code::InvalidArgument, expected));
    }
}

#[test]
fn rows_and_columns_give_the_same_tensor() {
    let declared = one(Datatype::Fp32);
    let expected = floats(&[1.0, 2.5, -3.0, 4e2]);
    for (body, layout) in [
        (r#"{"instances": [[1, 2.5], [-3, 4e2]]}"#, Layout::Rows),
        (r#"{"instances": [{"x": [1, 2.5]}, { "x" :[-3, 4e2] }]}"#, Layout::Rows),
        (r#"{"inputs": [[1, 2.5], [-3, 4e2]], "signature_name": "serving_default"}"#, Layout::Columns),
        (r#"{"inputs": {"x": [[1, 2.5], [-3, 4e2]]}}"#, Layout::Columns),
    ] {
        let decoded = predict(body, &declared).unwrap();
        assert_eq!(inputs(&decoded.request), [("x", vec![2, 2], &expected[..])], "{body}");
        assert_eq!(decoded.layout, layout);
    }
    let scalar = predict(r#"{"inputs": 7}"#, &declared).unwrap();
    assert_eq!(inputs(&scalar.request), [("x", vec![], &floats(&[7.0])[..])]);
    let empty = predict(r#"{"instances": [[], []]}"#, &declared).unwrap();
    assert_eq!(inputs(&empty.request), [("x", vec![2, 0], &b""[..])]);
}

#[test]
fn several_inputs_come_by_name_in_any_order() {
    let body = r#"{"instances": [{"a": 1, "b": ["p\n"]}, {"b": [{"b64": "/w=="}], "a": 2}]}"#;
    let decoded = predict(body, &two()).unwrap();
    assert_eq!(
        inputs(&decoded.request),
        [("a", vec![2], &b"\x01\0\0\0\x02\0\0\0"[..]), ("b", vec![2, 1], b"\x02\0\0\0p\n\x01\0\0\0\xff")]
    );
    let body = r#"{"inputs": {"b": [["p\n"], [{"b64": "/w"}]], "a": [1, 2]}, "signature_name": "s"}"#;
    let decoded = predict(body, &two()).unwrap();
    assert_eq!(decoded.signature.as_deref(), Some("s"));
    assert_eq!(decoded.request.inputs[0].data, b"\x02\0\0\0p\n\x01\0\0\0\xff"[..]);
    let only = predict(r#"{"instances": [{"b64": "YQ=="}, "b"]}"#, &one(Datatype::Bytes)).unwrap();
    assert_eq!(inputs(&only.request), [("x", vec![2], &b"\x01\0\0\0a\x01\0\0\0b"[..])]);
}

#[test]
fn a_wrong_list_is_refused_with_its_tensor_and_place() {
    let int = one(Datatype::Int32);
    refusals([
        (
            predict(r#"{"instances": [[1, 2], [3]]}"#, &int),
            "tensor 'x' at [1]: a list of 1 is where other lists are of 2",
        ),
        (
            predict(r#"{"instances": [[1, 2], 3]}"#, &int),
            "tensor 'x' at [1]: an element is where other lists have a list",
        ),
        (
            predict(r#"{"instances": [1, [2]]}"#, &int),
            "tensor 'x' at [1]: a list is where other lists have an element",
        ),
        (
            predict(r#"{"inputs": [[1], [[2]]]}"#, &int),
            "tensor 'x' at [1,0]: a list is where other lists have an element",
        ),
        (
            predict(r#"{"inputs": [[], 1]}"#, &int),
            "tensor 'x' at [1]: an element is where other lists have a list",
        ),
        (
            predict(r#"{"instances": [[1, 1.7]]}"#, &int),
            "tensor 'x' at [0,1]: INT32 needs an integer, got 1.7",
        ),
        (
            predict(r#"{"instances": [[1, 1.0]]}"#, &int),
            "tensor 'x' at [0,1]: INT32 needs an integer, got 1.0",
        ),
        (
            predict(r#"{"instances": [300]}"#, &one(Datatype::Uint8)),
            "tensor 'x' at [0]: 300 does not fit in UINT8",
        ),
        (
            predict(r#"{"inputs": {"x": [true]}}"#, &int),
            "tensor 'x' at [0]: INT32 needs an integer, got true",
        ),
        (
            predict(r#"{"inputs": {"x": [{"q": 1}]}}"#, &int),
            "tensor 'x' at [0]: INT32 needs an integer, got an object",
        ),
        (predict(r#"{"inputs": [null]}"#, &int), "tensor 'x' at [0]: INT32 needs an integer, got null"),
        (
            predict(r#"{"inputs": [{"b64": "YQ=="}]}"#, &int),
            "tensor 'x' at [0]: INT32 elements cannot be base64",
        ),
        (
            predict(r#"{"inputs": [1]}"#, &one(Datatype::Bool)),
            "tensor 'x' at [0]: BOOL needs true or false, got 1",
        ),
    ]);
    let error = predict(r#"{"inputs": [{"b64": "?"}]}"#, &one(Datatype::Bytes)).unwrap_err();
    assert!(error.message.starts_with("tensor 'x' at [0]: b64 is not base64"), "{error}");
    let deep = format!("{{\"inputs\": {}1{}}}", "[".repeat(33), "]".repeat(33));
    let error = decode_predict(deep.into(), &int).unwrap_err();
    assert!(error.message.ends_with("data is nested deeper than 32"), "{error}");
}

#[test]
fn a_wrong_body_is_explained() {
    let int = one(Datatype::Int32);
    refusals([
        (predict("{}", &int), "the request has neither 'instances' nor 'inputs'"),
        (
            predict(r#"{"instances": [1], "inputs": [1]}"#, &int),
            "the request has both 'instances' and 'inputs', expected one",
        ),
        (predict(r#"{"instances": 1}"#, &int), "'instances' must be a list"),
        (predict(r#"{"instances": []}"#, &int), "'instances' is empty"),
        (
            predict(r#"{"instances": [1]}"#, &two()),
            "values without a name need a model with one input, this one has 2: 'a', 'b'",
        ),
        (predict(r#"{"inputs": {"z": 1}}"#, &two()), "unexpected inference input 'z', expected: 'a', 'b'"),
        (
            predict(r#"{"instances": [{"a": 1}, {}]}"#, &two()),
            "instances[1] lacks 'a', which instances[0] has",
        ),
        (
            predict(r#"{"instances": [{"a": 1}, {"a": 1, "b": "x"}]}"#, &two()),
            "instances[1] has 'b', which instances[0] has not",
        ),
        (predict(r#"{"instances": [{"a": 1, "a": 2}]}"#, &two()), "instances[0] has 'a' twice"),
        (
            predict(r#"{"instances": [{"a": 1}, 2]}"#, &two()),
            "instances[1] must be an object of inputs, as instances[0] is",
        ),
    ]);
    for body in [
        "",
        "[1]",
        "{\"instances\": [NaN]}",
        "{\"instances\": [1]",
        "{\"instances\": [1], \"instances\": [2]}",
    ] {
        let error = predict(body, &int).unwrap_err();
        assert_eq!(error.code, Code::InvalidArgument, "{body}");
    }
    let list = r#"{"dataframe_split": [null, null, [[1]]]}"#;
    assert!(decode_invocation(list.into(), &int).unwrap_err().message.ends_with("it must be an object"));
}

fn invoke(body: &'static str, declared: &[DeclaredInput]) -> Result<JsonPredict> {
    decode_invocation(Bytes::from_static(body.as_bytes()), declared)
        .map(|decoded| decoded.expect("no Open Inference"))
}

#[test]
fn a_data_frame_is_one_matrix_or_an_input_for_each_column() {
    let expected = floats(&[1.0, 2.0, 3.0, 4.0]);
    for body in [
        r#"{"dataframe_split": {"columns": ["p", 7], "index": [0, 1], "data": [[1, 2], [3, 4]]}}"#,
        r#"{"dataframe_split": {"columns": null, "data": [[1, 2], [3, 4]]}}"#,
        r#"{"dataframe_records": [{"p": 1, "q": 2}, {"q": 4, "p": 3}]}"#,
    ] {
        let decoded = invoke(body, &one(Datatype::Fp32)).unwrap();
        assert_eq!(inputs(&decoded.request), [("x", vec![2, 2], &expected[..])], "{body}");
    }
    for body in [
        r#"{"dataframe_split": {"columns": ["b", "a"], "data": [["u", 1], ["v", 2]]}}"#,
        r#"{"dataframe_records": [{"b": "u", "a": 1}, {"a": 2, "b": "v"}], "params": {"t": 0.5}}"#,
    ] {
        let decoded = invoke(body, &two()).unwrap();
        assert_eq!(
            inputs(&decoded.request),
            [("b", vec![2, 1], &b"\x01\0\0\0u\x01\0\0\0v"[..]), ("a", vec![2], b"\x01\0\0\0\x02\0\0\0")],
            "{body}"
        );
        assert_eq!(decoded.request.parameters.len(), usize::from(body.contains("params")));
    }
}

#[test]
fn a_wrong_data_frame_is_explained() {
    let float = one(Datatype::Fp32);
    refusals([
        (
            invoke(r#"{"dataframe_split": {"columns": ["a", "z"], "data": [[1, 2]]}}"#, &two()),
            "column 'z' is no input of the model, expected: 'a', 'b'",
        ),
        (
            invoke(r#"{"dataframe_split": {"columns": ["p", "q"], "data": [[1]]}}"#, &float),
            "row 0 of the data frame has 1 values for 2 columns",
        ),
        (
            invoke(r#"{"dataframe_split": {"data": [[1, 2], [3]]}}"#, &float),
            "tensor 'x' at [1]: a list of 1 is where other lists are of 2",
        ),
        (
            invoke(r#"{"dataframe_split": {"data": [[1, null]]}}"#, &float),
            "tensor 'x' at [0,1]: FP32 needs a number, got null",
        ),
        (invoke(r#"{"dataframe_split": {"data": []}}"#, &float), "the data frame has no rows"),
        (invoke(r#"{"dataframe_split": {"data": [1]}}"#, &float), "row 0 of the data frame must be a list"),
        (
            invoke(r#"{"dataframe_records": {"p": [1]}}"#, &float),
            "'dataframe_records' must be a list of records",
        ),
        (invoke(r#"{"dataframe_records": []}"#, &float), "the data frame has no rows"),
        (
            invoke(r#"{"dataframe_records": [{"p": 1}, {"q": 1}]}"#, &float),
            "record 1 has 'q', which record 0 has not",
        ),
        (
            invoke(r#"{"dataframe_records": [{"p": 1, "q": 2}, {"q": 1}]}"#, &float),
            "record 1 lacks 'p', which record 0 has",
        ),
        (invoke(r#"{"dataframe_records": [{"p": 1, "p": 2}]}"#, &float), "record 0 has 'p' twice"),
        (
            invoke("{}", &float),
            "expected exactly one of 'dataframe_split', 'dataframe_records', 'instances' and 'inputs'",
        ),
    ]);
    let error = invoke(r#"{"dataframe_split": {"data": [[1]], "rows": 1}}"#, &float).unwrap_err();
    assert!(error.message.contains("unknown field `rows`"), "{error}");
}

#[test]
fn open_inference_is_told_from_columns() {
    let told = |body: &'static str| {
        decode_invocation(body.into(), &one(Datatype::Fp32)).map(|found| found.is_none())
    };
    assert_eq!(
        told(r#"{"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [1]}]}"#),
        Ok(true)
    );
    assert_eq!(told(r#"{"inputs": [[1, 2]]}"#), Ok(false));
    assert_eq!(told(r#"{"inputs": {"x": [[1, 2]]}}"#), Ok(false));
}

#[test]
fn csv_with_and_without_names() {
    let float = one(Datatype::Fp32);
    let expected = floats(&[1.0, 2.0, 3.5, 4.0]);
    for (body, header) in [
        ("p,q\n1,2\n3.5,4\n", None),
        ("1,2\n3.5,4", None),
        ("\"1\", 2\r\n3.5,4\r\n", Some(false)),
        ("0,1\n1,2\n3.5,4", Some(true)),
    ] {
        let decoded = decode_csv(body.as_bytes(), header, &float).unwrap();
        assert_eq!(inputs(&decoded.request), [("x", vec![2, 2], &expected[..])], "{body}");
    }
    let mut named = two();
    named.push(declared("c", Datatype::Bool, &[-1]));
    let decoded = decode_csv(b"c,b,a\nTrue,\"x,\"\"y\",7\n", None, &named).unwrap();
    assert_eq!(
        inputs(&decoded.request),
        [("c", vec![1], &b"\x01"[..]), ("b", vec![1, 1], b"\x04\0\0\0x,\"y"), ("a", vec![1], b"\x07\0\0\0")]
    );
    refusals([
        (decode_csv(b"", None, &float), "the data frame has no rows"),
        (decode_csv(b"p,q\n", None, &float), "the data frame has no rows"),
        (
            decode_csv(b"0,1\n5,6\n", None, &float),
            "the first line may be the columns' names or a row: say 'text/csv; header=present' or 'header=absent'",
        ),
        (
            decode_csv(b"p,q\n1,\n", None, &float),
            "tensor 'x' at [0,1]: FP32 needs a value, got an empty field",
        ),
        (decode_csv(b"p,q\n1,2 3\n", None, &float), "tensor 'x' at [0,1]: FP32 cannot be read from '2 3'"),
        (decode_csv(b"p,q\n1,x\n", None, &float), "tensor 'x' at [0,1]: FP32 needs a number, got x"),
    ]);
    assert!(decode_csv(b"p,q\n1\n", None, &float).unwrap_err().message.starts_with("malformed CSV"));
}

#[test]
fn examples_hold_lists_or_lone_values() {
    let body = Bytes::from_static(
        br#"{"examples": [{"a": [1], "b": "u"}, {"a": [2], "b": "v"}], "signature_name": "s"}"#,
    );
    let decoded = decode_examples(body, &two()).unwrap();
    assert_eq!(
        inputs(&decoded.request),
        [("a", vec![2], &b"\x01\0\0\0\x02\0\0\0"[..]), ("b", vec![2, 1], b"\x01\0\0\0u\x01\0\0\0v")]
    );
    for body in [
        &br"{}"[..],
        br#"{"examples": []}"#,
        br#"{"examples": 1}"#,
        br#"{"examples": [1], "context": {"a": 1}}"#,
    ] {
        assert_eq!(decode_examples(body.into(), &two()).unwrap_err().code, Code::InvalidArgument);
    }
}

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
