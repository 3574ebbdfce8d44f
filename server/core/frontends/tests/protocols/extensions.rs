//! Triton's extensions: what REST and gRPC answer alike.

use kingpole_values::{Parameter, RequestedOutput, split_byte_strings};
use kingpole_wire::grpc::{encode_infer_request, proto};
use prost::Message;
use serde_json::{Value, json};

use crate::grpc::{INFER, call, client, framed, request};
use crate::server::Server;

const SERVICE: &str = "/inference.GRPCInferenceService/";
const REST_INFER: &str = "/v2/models/identity/infer";

/// A unary call; its message, or its code and text.
async fn ask<M: Message + Default>(
    server: &Server,
    method: &str,
    message: &impl Message,
) -> Result<M, (u16, String)> {
    let path = format!("{SERVICE}{method}");
    let answer = call(&client(server).await, &path, &[], &[framed(&message.encode_to_vec())]).await;
    match answer.status {
        0 => Ok(M::decode(answer.body.slice(5..)).unwrap()),
        code => Err((code, answer.message)),
    }
}

fn classified(count: &Value) -> Value {
    json!({
        "inputs": [{ "name": "x", "datatype": "FP32", "shape": [2, 3], "data": [1, 3, 2, 0.5, 0.25, 9] }],
        "outputs": [{ "name": "y", "parameters": { "classification": count } }],
    })
}

#[tokio::test]
async fn classes_are_given_alike_by_rest_and_grpc() {
    let server = Server::start();
    let response = server.post(REST_INFER, &classified(&json!(2)).to_string());
    assert_eq!(response.status, 200, "{response:?}");
    let classes = ["3.000000:1:espresso", "2.000000:2", "9.000000:2", "0.500000:0:tea"];
    let expected = json!([{ "name": "y", "datatype": "BYTES", "shape": [2, 2], "data": classes }]);
    assert_eq!(response.json()["outputs"], expected);

    let mut asked = request("a", &[1.0, 3.0, 2.0]);
    let parameters = vec![("classification".into(), Parameter::Int64(2))];
    asked.outputs = vec![RequestedOutput { name: "y".into(), parameters }];
    let message = framed(&encode_infer_request(&asked, false).into_bytes());
    let answer = call(&client(&server).await, INFER, &[], &[message]).await.response();
    let given: Vec<&[u8]> = split_byte_strings(&answer.outputs[0].data).map(Result::unwrap).collect();
    assert_eq!(given, [classes[0].as_bytes(), classes[1].as_bytes()]);
    assert_eq!(*answer.outputs[0].shape, [1, 2]);
}

#[test]
fn classes_that_cannot_be_given_are_refused_before_the_model_runs() {
    let server = Server::start();
    for (count, words) in [
        (json!(-1), "'classification' must be an integer"),
        (json!("3"), "'classification' must be an integer"),
        (json!(1.5), "'classification' must be an integer"),
    ] {
        let response = server.post(REST_INFER, &classified(&count).to_string());
        assert_eq!(response.status, 400, "{response:?}");
        assert!(response.text().contains(words), "{}", response.text());
    }
    let words = json!({
        "inputs": [{ "name": "x", "datatype": "BYTES", "shape": [1, 1], "data": ["a"] }],
        "outputs": [{ "name": "y", "parameters": { "classification": 1 } }],
    });
    let response = server.post("/v2/models/words/infer", &words.to_string());
    assert_eq!(response.status, 400, "{response:?}");
    assert!(response.text().contains("its datatype is BYTES"), "{}", response.text());
    let plain = server.post(REST_INFER, &classified(&json!(0)).to_string());
    assert_eq!(plain.json()["outputs"][0]["datatype"], "FP32");
}

#[tokio::test]
async fn log_settings_are_told_and_changed_by_rest_and_grpc() {
    use proto::log_settings_request::setting_value::ParameterChoice as Given;
    use proto::log_settings_response::setting_value::ParameterChoice as Told;
    let server = Server::start();
    let first = server.get("/v2/logging");
    let expected = json!({
        "log_file": "", "log_info": true, "log_warning": true, "log_error": true, "log_verbose_level": 0,
        "log_format": "default",
    });
    assert_eq!(first.json(), expected);
    let changed = server.post("/v2/logging", r#"{"log_info":false,"log_verbose_level":1}"#);
    assert_eq!(
        (&changed.json()["log_info"], &changed.json()["log_verbose_level"]),
        (&json!(false), &json!(1))
    );

    let setting = |value| proto::log_settings_request::SettingValue { parameter_choice: Some(value) };
    let wish = |name: &str, value| proto::LogSettingsRequest {
        settings: [(name.to_owned(), setting(value))].into(),
    };
    let told: proto::LogSettingsResponse =
        ask(&server, "LogSettings", &wish("log_verbose_level", Given::Uint32Param(3))).await.unwrap();
    assert_eq!(told.settings["log_verbose_level"].parameter_choice, Some(Told::Uint32Param(3)));
    assert_eq!(told.settings["log_info"].parameter_choice, Some(Told::BoolParam(false)));
    assert_eq!(server.get("/v2/logging").json()["log_verbose_level"], 3);

    for (body, status, value, code) in [
        (r#"{"log_file":"/tmp/x"}"#, 501, ("log_file", Given::StringParam("/tmp/x".to_owned())), 12),
        (r#"{"log_info":1}"#, 400, ("log_info", Given::Uint32Param(1)), 3),
        (r#"{"log_colour":true}"#, 400, ("log_colour", Given::BoolParam(true)), 3),
        (r#"{"log_verbose_level":-1}"#, 400, ("log_verbose_level", Given::StringParam("-1".to_owned())), 3),
    ] {
        let response = server.post("/v2/logging", body);
        assert_eq!(response.status, status, "{response:?}");
        let (name, value) = value;
        let refused = ask::<proto::LogSettingsResponse>(&server, "LogSettings", &wish(name, value)).await;
        let (refused_code, text) = refused.unwrap_err();
        assert_eq!(refused_code, code, "{text}");
        assert!(text.contains(name) && response.text().contains(name), "{text}");
    }
    let refused = server.ask("DELETE", "/v2/logging", &[], b"");
    assert_eq!((refused.status, refused.header("allow")), (405, Some("GET, HEAD, POST")));
}

#[tokio::test]
async fn trace_settings_say_that_nothing_is_traced_and_stay_so() {
    let server = Server::start();
    for path in ["/v2/trace/setting", "/v2/models/identity/trace/setting"] {
        let told = server.get(path).json();
        assert_eq!((&told["trace_level"], &told["trace_rate"]), (&json!(["OFF"]), &json!("1000")), "{path}");
        assert_eq!(server.post(path, r#"{"trace_level":["OFF"],"trace_rate":null}"#).status, 200);
        for (body, status) in [
            (r#"{"trace_level":["TIMESTAMPS"]}"#, 501),
            (r#"{"trace_file":"/tmp/x"}"#, 501),
            (r#"{"trace_colour":"red"}"#, 400),
            (r#"{"trace_level":{}}"#, 400),
            (r#"["OFF"]"#, 400),
        ] {
            assert_eq!(server.post(path, body).status, status, "{path} {body}");
        }
    }
    assert_eq!(server.get("/v2/models/nobody/trace/setting").status, 404);

    let wish = |model: &str, level: &str| proto::TraceSettingRequest {
        settings: [(
            "trace_level".to_owned(),
            proto::trace_setting_request::SettingValue { value: vec![level.to_owned()] },
        )]
        .into(),
        model_name: model.to_owned(),
    };
    let told: proto::TraceSettingResponse =
        ask(&server, "TraceSetting", &wish("identity", "OFF")).await.unwrap();
    assert_eq!(told.settings["trace_level"].value, ["OFF"]);
    let mut refusals = Vec::new();
    for (model, level) in [("", "TIMESTAMPS"), ("nobody", "OFF")] {
        let refused = ask::<proto::TraceSettingResponse>(&server, "TraceSetting", &wish(model, level)).await;
        refusals.push(refused.unwrap_err().0);
    }
    assert_eq!(refusals, [12, 5]);
}

#[tokio::test]
async fn a_named_repository_is_ignored_by_the_index_and_refused_by_changes() {
    let server = Server::start();
    let rows = server.post("/v2/repository/any/index", "").json();
    assert_eq!(rows, server.post("/v2/repository/index", "{}").json());
    for action in ["load", "unload"] {
        let response = server.post(&format!("/v2/repository/any/models/identity/{action}"), "");
        assert_eq!(response.status, 501, "{response:?}");
        assert!(response.text().contains("'any'"), "{}", response.text());
    }
    assert_eq!(server.post("/v2/repository/models/identity/reload", "").status, 404);
    assert_eq!(server.get("/v2/repository/index").header("allow"), Some("POST"));

    let index = proto::RepositoryIndexRequest { repository_name: "any".to_owned(), ready: false };
    let told: proto::RepositoryIndexResponse = ask(&server, "RepositoryIndex", &index).await.unwrap();
    assert_eq!(told.models.len(), rows.as_array().unwrap().len());
    let load = proto::RepositoryModelLoadRequest {
        repository_name: "any".to_owned(),
        model_name: "identity".to_owned(),
        ..Default::default()
    };
    let refused = ask::<proto::RepositoryModelLoadResponse>(&server, "RepositoryModelLoad", &load).await;
    assert_eq!(refused.unwrap_err().0, 12);
}

#[test]
fn a_file_that_is_no_base64_is_refused_by_name() {
    let server = Server::start();
    for (content, words) in [(json!("%%"), "is not base64"), (json!(3), "a string of base64")] {
        let body = json!({ "parameters": { "config": "{}", "file:1/model.onnx": content } });
        let response = server.post("/v2/repository/models/m/load", &body.to_string());
        assert_eq!(response.status, 400, "{response:?}");
        assert!(response.text().contains("'file:1/model.onnx'"), "{}", response.text());
        assert!(response.text().contains(words), "{}", response.text());
    }
}

#[test]
fn a_method_that_a_path_does_not_have_is_refused_with_those_it_has() {
    let server = Server::start();
    for (method, path, allowed) in [
        ("POST", "/v2", "GET, HEAD"),
        ("POST", "/v2/health/ready", "GET, HEAD"),
        ("DELETE", "/v2/models/identity", "GET, HEAD"),
        ("PUT", "/v2/models/identity/config", "GET, HEAD"),
        ("GET", REST_INFER, "POST"),
        ("GET", "/v2/repository/models/identity/load", "POST"),
        ("PATCH", "/v2/trace/setting", "GET, HEAD, POST"),
    ] {
        let response = server.ask(method, path, &[], b"");
        assert_eq!((response.status, response.header("allow")), (405, Some(allowed)), "{method} {path}");
    }
}

#[test]
fn a_path_that_is_none_is_not_found() {
    let server = Server::start();
    for path in [
        "/v2/models/identity/",
        "/v2/models/identity/versions/1/",
        "/v2/models/identity/versions/abc",
        "/v2/models/identity/versions/-1",
        "/v2/models/identity/versions/1/trace/setting",
        "/v2/models//",
        "/v2/nothing",
    ] {
        assert_eq!(server.get(path).status, 404, "{path}");
    }
}

#[test]
fn a_raw_request_without_bytes_is_no_empty_tensor() {
    let server = Server::start();
    let response = server.ask("POST", REST_INFER, &[("inference-header-content-length", "0")], b"");
    assert_eq!(response.status, 400, "{response:?}");
    assert!(response.text().contains("no bytes"), "{}", response.text());
}
