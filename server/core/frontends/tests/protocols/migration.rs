//! What clients of `TensorFlow` Serving, `KServe` V1, `SageMaker` and `MLflow` ask for over HTTP.

use kingpole_values::{Datatype, InferRequest, Shape, Tensor};
use kingpole_wire::graphpipe::{decode_response, encode_request};
use serde_json::{Value, json};

use crate::server::{LIMIT, Response, Server};

const PREDICT: &str = "/v1/models/identity:predict";

fn json_of(response: &Response) -> Value {
    assert_eq!(response.status, 200, "{response:?}");
    assert_eq!(response.header("content-type"), Some("application/json"));
    response.json()
}

fn post_as(server: &Server, path: &str, content_type: &str, body: &[u8]) -> Response {
    server.ask("POST", path, &[("content-type", content_type)], body)
}

#[test]
fn rows_and_columns_are_answered_in_kind() {
    let server = Server::start();
    for path in [
        PREDICT,
        "/v1/models/identity/versions/1:predict",
        "/v1/models/identity/labels/1:predict",
        "/v1/models/:predict",
    ] {
        let rows = server.post(path, r#"{"instances": [[1, 2.5], [3, 4]]}"#);
        assert_eq!(json_of(&rows), json!({ "predictions": [[1.0, 2.5], [3.0, 4.0]] }), "{path}");
    }
    let named = server.post(PREDICT, r#"{"signature_name": "serving_default", "instances": [{"x": [1]}]}"#);
    assert_eq!(json_of(&named), json!({ "predictions": [[1.0]] }));
    let columns = server.post(PREDICT, r#"{"inputs": {"x": [[1, 2]]}}"#);
    assert_eq!(json_of(&columns), json!({ "outputs": [[1.0, 2.0]] }));
    let text = server.post("/v1/models/words:predict", r#"{"instances": [["a"], [{"b64": "/w=="}]]}"#);
    assert_eq!(json_of(&text), json!({ "predictions": [["a"], [{ "b64": "/w==" }]] }));
    let truth = server.post("/v1/models/truth:predict", r#"{"instances": [[true, false]]}"#);
    assert_eq!(json_of(&truth), json!({ "predictions": [[true, false]] }));
}

#[test]
fn faults_have_their_status_and_their_text() {
    let server = Server::start();
    for (path, body, status, part) in [
        (PREDICT, r#"{"instances": [[1, 2], [3]]}"#, 400, "tensor 'x' at [1]: a list of 1"),
        (PREDICT, r#"{"instances": [1, 2]}"#, 400, "has shape [2], expected [-1,-1]"),
        (PREDICT, r#"{"instances": [[1, "a"]]}"#, 400, "tensor 'x' at [0,1]: FP32 needs a number"),
        (
            PREDICT,
            r#"{"instances": [[1]], "signature_name": "other"}"#,
            400,
            "signature 'other' is not found",
        ),
        (PREDICT, r#"{"instances": "#, 400, "malformed JSON"),
        (PREDICT, r#"{"instances": [[666]]}"#, 500, "the model does not like 666"),
        ("/v1/models/nobody:predict", r#"{"instances": [[1]]}"#, 404, "Request for unknown model: 'nobody'"),
        ("/v1/models/identity/versions/7:predict", "{}", 404, "Request for unknown model"),
        ("/v1/models/identity:explain", "{}", 501, "explanations"),
        ("/v1/models/identity/what/7", "{}", 404, "nothing is at"),
        ("/invocations", "{}", 400, "expected exactly one of"),
    ] {
        let response = server.post(path, body);
        assert_eq!(response.status, status, "{path} {body}: {response:?}");
        assert!(response.error().contains(part), "{path} {body}: {}", response.error());
    }
    for (method, path, allowed) in [
        ("GET", PREDICT, "POST"),
        ("GET", "/invocations", "POST"),
        ("POST", "/v1/models/identity", "GET, HEAD"),
        ("POST", "/ping", "GET, HEAD"),
        ("DELETE", "/models", "GET, HEAD, POST"),
    ] {
        let response = server.ask(method, path, &[], b"");
        assert_eq!((response.status, response.header("allow")), (405, Some(allowed)), "{path}");
    }
    let late = server.ask("POST", PREDICT, &[("kingpole-timeout-us", "0")], br#"{"instances": [[1]]}"#);
    assert_eq!(late.status, 504, "{late:?}");
    let odd = server.ask("POST", PREDICT, &[("kingpole-timeout-us", "x")], br#"{"instances": [[1]]}"#);
    assert_eq!(odd.status, 400);
    let length = (LIMIT + 1).to_string();
    for path in [PREDICT, "/invocations"] {
        assert_eq!(server.ask("POST", path, &[("content-length", &length)], b"").status, 413);
    }
}

#[test]
fn examples_are_classified_and_regressed() {
    let server = Server::start();
    let classified = server.post("/v1/models/identity:classify", r#"{"examples": [{"x": [0.25, 0.75]}]}"#);
    assert_eq!(json_of(&classified), json!({ "results": [[["", 0.25], ["", 0.75]]] }));
    let regressed = server.post("/v1/models/identity:regress", r#"{"examples": [{"x": 2}, {"x": 3}]}"#);
    assert_eq!(json_of(&regressed), json!({ "results": [2.0, 3.0] }));
    let wide = server.post("/v1/models/identity:regress", r#"{"examples": [{"x": [2, 3]}]}"#);
    assert_eq!(wide.status, 400, "{wide:?}");
}

#[test]
fn a_status_serves_the_clients_of_both() {
    let server = Server::start();
    let available = json!({ "version": "1", "state": "AVAILABLE", "status": { "error_code": "OK", "error_message": "" } });
    let both = json!({ "name": "identity", "ready": true, "model_version_status": [available] });
    for path in ["/v1/models/identity", "/v1/models/identity/versions/1"] {
        assert_eq!(json_of(&server.get(path)), both);
    }
    assert_eq!(server.get("/v1/models/identity/versions/2").status, 404);
    assert_eq!(server.get("/v1/models/nobody").status, 404);
    let failed = kingpole_engine::IndexRow {
        name: "broken".to_owned(),
        version: Some("1".to_owned()),
        state: "UNAVAILABLE".to_owned(),
        reason: "no such file".to_owned(),
    };
    server.engine.set_absent(vec![failed]);
    let broken = server.get("/v1/models/broken");
    assert_eq!(broken.status, 503);
    assert_eq!(broken.json()["ready"], false);
    assert_eq!(
        broken.json()["model_version_status"][0],
        json!({ "version": "1", "state": "END", "status": { "error_code": "UNAVAILABLE", "error_message": "no such file" } })
    );
    for path in ["/v1/models", "/v1/models/"] {
        assert_eq!(json_of(&server.get(path)), json!({ "models": ["identity", "truth", "words"] }));
    }
    let root = server.get("/").json();
    assert_eq!((&root["status"], &root["Name"]), (&json!("alive"), &json!("identity")));
    assert_eq!(server.get("/identity").json().get("status"), None);
}

#[test]
fn metadata_is_a_signature() {
    let server = Server::start();
    let metadata = json_of(&server.get("/v1/models/identity/metadata"));
    assert_eq!(metadata["model_spec"], json!({ "name": "identity", "signature_name": "", "version": "1" }));
    let signature = &metadata["metadata"]["signature_def"]["signature_def"]["serving_default"];
    assert_eq!(
        signature["inputs"]["x"],
        json!({
            "dtype": "DT_FLOAT",
            "tensor_shape": {
                "dim": [{ "size": "-1", "name": "" }, { "size": "-1", "name": "" }],
                "unknown_rank": false,
            },
            "name": "x",
        })
    );
    assert_eq!(json_of(&server.get("/v1/models/identity/versions/1/metadata")), metadata);
}

#[test]
fn an_invocation_may_be_a_frame_rows_columns_or_open_inference() {
    let server = Server::start();
    let expected = json!({ "predictions": [[1.0, 2.0], [3.0, 4.0]] });
    for body in [
        r#"{"dataframe_split": {"columns": ["a", "b"], "data": [[1, 2], [3, 4]]}}"#,
        r#"{"dataframe_records": [{"a": 1, "b": 2}, {"a": 3, "b": 4}], "params": {"t": 1}}"#,
        r#"{"instances": [[1, 2], [3, 4]]}"#,
        r#"{"inputs": [[1, 2], [3, 4]]}"#,
    ] {
        for path in ["/invocations", "/endpoints/identity/invocations", "/models/identity/invoke"] {
            assert_eq!(
                json_of(&post_as(&server, path, "application/json; charset=utf-8", body.as_bytes())),
                expected
            );
        }
    }
    for (content_type, csv) in [
        ("text/csv", "a,b\n1,2\n3,4\n"),
        ("text/csv", "1,2\n3,4\n"),
        ("Text/CSV; Header=absent", "1,2\n3,4\n"),
    ] {
        assert_eq!(
            json_of(&post_as(&server, "/invocations", content_type, csv.as_bytes())),
            expected,
            "{csv}"
        );
    }
    let inference = r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[1,2],"data":[1.5,2]}]}"#;
    let response = post_as(&server, "/invocations", "application/json", inference.as_bytes());
    assert_eq!(json_of(&response)["outputs"][0]["data"], json!([1.5, 2.0]));
}

#[test]
fn the_model_of_an_invocation_is_in_the_header_or_the_path() {
    let server = Server::start();
    let target = |name: &str, path: &str| {
        let headers = [("x-amzn-sagemaker-target-model", name), ("content-type", "application/json")];
        server.ask("POST", path, &headers, br#"{"instances": [[true]]}"#)
    };
    for name in ["truth", "truth.tar.gz", "/truth"] {
        assert_eq!(json_of(&target(name, "/invocations")), json!({ "predictions": [[true]] }));
        assert_eq!(json_of(&target(name, "/endpoints/any/invocations")), json!({ "predictions": [[true]] }));
    }
    let missing = target("nobody", "/invocations");
    assert_eq!((missing.status, missing.header("x-amzn-errortype")), (404, Some("ValidationError")));
    let body = missing.json();
    assert_eq!((&body["error"], &body["error_code"]), (&body["message"], &json!("NOT_FOUND")));
    assert!(missing.error().contains("Request for unknown model"));
    assert_eq!(server.post("/endpoints/nobody/invocations", r#"{"instances": [[1]]}"#).status, 404);
}

#[test]
fn a_body_that_is_not_read_is_refused_in_the_words_of_an_invocation() {
    let server = Server::start();
    let coded = [("content-encoding", "br")];
    let other = [("content-type", "text/html")];
    let long = vec![b' '; LIMIT + 1];
    for (headers, body, status, code, part) in [
        (&coded[..], &b"{}"[..], 415, "INVALID_ARGUMENT", "Content-Encoding 'br'"),
        (&other[..], b"{}", 415, "INVALID_ARGUMENT", "Content-Type 'text/html'"),
        (&[], &long, 413, "RESOURCE_EXHAUSTED", "1048576"),
    ] {
        let refused = server.ask("POST", "/invocations", headers, body);
        assert_eq!((refused.status, refused.header("x-amzn-errortype")), (status, Some("ModelError")));
        let body = refused.json();
        assert_eq!((&body["error"], &body["error_code"]), (&body["message"], &json!(code)));
        assert!(refused.error().contains(part), "{refused:?}");
    }
}

#[test]
fn binary_tensors_travel_as_sagemakers_triton_takes_them() {
    let server = Server::start();
    let json = r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[1,2],"parameters":{"binary_data_size":8}}],"parameters":{"binary_data_output":true}}"#;
    let body = [json.as_bytes(), b"\0\0\x80\x3f\0\0\0\x40"].concat();
    let media_type = "application/vnd.sagemaker-triton.binary+json";
    let response =
        post_as(&server, "/invocations", &format!("{media_type};json-header-size={}", json.len()), &body);
    assert_eq!(response.status, 200, "{response:?}");
    let answered = response.header("content-type").unwrap();
    let (answered, length) = answered.split_once(";json-header-size=").unwrap();
    assert_eq!(answered, media_type);
    assert_eq!(&response.body[length.parse::<usize>().unwrap()..], b"\0\0\x80\x3f\0\0\0\x40");
    assert_eq!(post_as(&server, "/invocations", media_type, &body).status, 400);
}

#[test]
fn an_array_is_answered_as_json_or_as_an_array() {
    let server = Server::start();
    let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2), }\n";
    let length = u16::try_from(header.len()).unwrap().to_le_bytes();
    let body = [b"\x93NUMPY\x01\0", &length[..], header.as_bytes(), b"\0\0\x80\x3f\0\0\0\x40"].concat();
    let array = "application/x-npy";
    assert_eq!(
        json_of(&post_as(&server, "/invocations", array, &body)),
        json!({ "predictions": [[1.0, 2.0]] })
    );
    let response = server.ask("POST", "/invocations", &[("content-type", array), ("accept", array)], &body);
    assert_eq!((response.status, response.header("content-type")), (200, Some(array)));
    assert!(response.body.starts_with(b"\x93NUMPY") && response.body.ends_with(&body[body.len() - 8..]));
    let cut = post_as(&server, "/invocations", array, &body[..body.len() - 1]);
    assert_eq!(cut.status, 400);
    assert!(cut.error().contains("needs 8 bytes, got 7"), "{}", cut.error());
    let words = [("x-amzn-sagemaker-target-model", "words"), ("accept", array)];
    assert_eq!(server.ask("POST", "/invocations", &words, br#"{"instances": [["a"]]}"#).status, 400);
}

#[test]
fn other_media_types_and_headers_are_refused() {
    let server = Server::start();
    let parquet = post_as(&server, "/invocations", "application/vnd.apache.parquet", b"PAR1");
    assert_eq!(parquet.status, 415);
    assert!(parquet.error().contains("application/json"), "{}", parquet.error());
    assert_eq!(post_as(&server, "/invocations", "text/csv; header=maybe", b"1,2\n").status, 400);
    assert_eq!(post_as(&server, "/invocations", "text/csv", b"0,1\n1,2\n").status, 400);
}

/// A `GraphPipe` request with one FP32 tensor.
fn flatbuffer() -> Vec<u8> {
    let input = Tensor {
        name: "".into(),
        datatype: Datatype::Fp32,
        shape: Shape::new(&[1, 1]),
        data: b"\0\0\x80\x3f"[..].into(),
    };
    let request = InferRequest { inputs: vec![input], ..InferRequest::default() };
    encode_request(&request, "").unwrap().into_bytes().to_vec()
}

#[test]
fn a_graphpipe_body_is_answered_as_its_clients_expect() {
    let server = Server::start();
    for path in ["/invocations", PREDICT, "/v1/models/identity/versions/1:predict"] {
        for headers in [
            &[][..],
            &[("content-type", "application/octet-stream")],
            &[("content-type", "application/x-www-form-urlencoded")],
        ] {
            let response = server.ask("POST", path, headers, &flatbuffer());
            assert_eq!(
                (response.status, response.header("content-type")),
                (200, Some("application/octet-stream"))
            );
            assert_eq!(decode_response(response.body.into()).unwrap().outputs[0].data, b"\0\0\x80\x3f"[..]);
        }
    }
    let missing = server.ask("POST", "/v1/models/nobody:predict", &[], &flatbuffer());
    assert_eq!((missing.status, missing.header("content-type")), (404, Some("text/plain; charset=utf-8")));
    // Said to be JSON, it is judged as JSON.
    assert_eq!(post_as(&server, PREDICT, "application/octet-stream", br#"{"instances": [[1]]}"#).status, 200);
    assert_eq!(post_as(&server, "/invocations", "application/json", &flatbuffer()).status, 400);
}

#[test]
fn health_follows_the_engine() {
    let server = Server::start();
    for path in ["/ping", "/health"] {
        assert_eq!((server.get(path).status, server.get(path).text()), (200, "\n"));
    }
    assert_eq!(server.get("/version").text(), "0.0.0");
    server.engine.set_ready(false);
    assert_eq!((server.get("/ping").status, server.get("/health").status), (503, 503));
}

#[test]
fn models_are_listed_and_only_a_managed_repository_changes() {
    let server = Server::start();
    let listed = json_of(&server.get("/models"));
    assert_eq!(listed["models"][0], json!({ "modelName": "identity", "modelUrl": "identity" }));
    assert_eq!(server.post("/models", r#"{"model_name": "identity", "url": "/opt/ml"}"#).status, 409);
    // Nobody manages this server's repository.
    assert_eq!(server.post("/models", r#"{"model_name": "new", "url": "/opt/ml"}"#).status, 503);
    assert_eq!(server.post("/models", r#"{"url": "/opt/ml"}"#).status, 400);
    assert_eq!(server.ask("DELETE", "/models/identity", &[], b"").status, 503);
    assert_eq!(server.ask("DELETE", "/models/nobody", &[], b"").status, 404);
    // GraphPipe's own: metadata of the model in the path.
    assert_eq!(server.get("/models/identity").json()["Name"], "identity");
}
