use bytes::Bytes;
use kingpole_values::{Code, Datatype, InferRequest, Result, Shape};

use super::floats;
use crate::migration::*;

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
    assert!(decode_invocation(list.into(), &int).unwrap_err().message.contains("expected an object"));
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
