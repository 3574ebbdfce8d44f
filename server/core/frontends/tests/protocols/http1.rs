//! Open Inference over HTTP/1.1.

use std::io::{Read, Write};
use std::time::Duration;

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use kingpole_frontends::FrontendConfiguration;
use serde_json::json;

use crate::server::{LIMIT, Response, Server};

const INFER: &str = "/v2/models/identity/infer";
const REQUEST: &str = r#"{"id":"a","inputs":[{"name":"x","datatype":"FP32","shape":[1,2],"data":[1.5,2]}]}"#;

#[test]
fn every_get_route_answers() {
    let server = Server::start();
    assert_eq!(server.get("/v2/health/live").json(), json!({ "live": true }));
    assert_eq!(server.get("/v2/health/ready").json(), json!({ "ready": true }));
    assert_eq!(server.get("/v2").json()["name"], "kingpole");
    assert_eq!(server.get("/v2/").json()["extensions"], json!(["binary_tensor_data"]));
    assert_eq!(server.get("/v2/models").json(), json!({ "models": ["identity", "truth", "words"] }));
    let metadata = server.get("/v2/models/identity").json();
    assert_eq!(metadata["versions"], json!(["1"]));
    assert_eq!(metadata["inputs"], json!([{ "name": "x", "datatype": "FP32", "shape": [-1, -1] }]));
    assert_eq!(server.get("/v2/models/identity/versions/1").status, 200);
    assert_eq!(
        server.get("/v2/models/ident%69ty/ready").json(),
        json!({ "name": "identity", "ready": true })
    );
    assert_eq!(server.get("/v2/models/identity/config").json()["max_batch_size"], 32);
    assert_eq!(server.get("/v2/models/stats").json()["model_stats"].as_array().unwrap().len(), 3);
    let statistics = server.get("/v2/models/identity/stats").json();
    assert_eq!(statistics["model_stats"][0]["inference_stats"]["success"]["count"], 0);
    let head = server.ask("HEAD", "/v2/health/live", &[], b"");
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.header("content-type"), Some("application/json"));
}

#[test]
fn readiness_follows_the_engine() {
    let server = Server::start();
    server.engine.set_ready(false);
    let ready = server.get("/v2/health/ready");
    assert_eq!((ready.status, ready.json()), (503, json!({ "ready": false })));
    assert_eq!(server.get("/v2/health/live").status, 200);
}

#[test]
fn json_in_gives_json_out() {
    let server = Server::start();
    for path in [INFER, "/v2/models/identity/versions/1/infer"] {
        let response = server.post(path, REQUEST);
        assert_eq!(response.status, 200, "{response:?}");
        assert_eq!(response.header("content-type"), Some("application/json"));
        let body = response.json();
        assert_eq!((&body["id"], &body["model_name"]), (&json!("a"), &json!("identity")));
        assert_eq!(
            body["outputs"],
            json!([{ "name": "y", "datatype": "FP32", "shape": [1, 2], "data": [1.5, 2.0] }])
        );
    }
}

#[test]
fn binary_tensors_travel_behind_the_json() {
    let server = Server::start();
    let json = r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[1,2],"parameters":{"binary_data_size":8}}],"outputs":[{"name":"y","parameters":{"binary_data":true}}]}"#;
    let values: Vec<u8> = [1.5f32, -2.0].iter().flat_map(|value| value.to_le_bytes()).collect();
    let mut body = json.as_bytes().to_vec();
    body.extend_from_slice(&values);
    let length = json.len().to_string();
    let response = server.ask("POST", INFER, &[("Inference-Header-Content-Length", &length)], &body);
    assert_eq!(response.header("content-type"), Some("application/octet-stream"), "{response:?}");
    let header: usize = response.header("inference-header-content-length").unwrap().parse().unwrap();
    assert_eq!(&response.body[header..], values);
    // A raw request: the shape follows from the model.
    let response = server.ask("POST", INFER, &[("Inference-Header-Content-Length", "0")], &values);
    assert_eq!(response.status, 200, "{response:?}");
    assert!(response.body.ends_with(&values));
    let too_long = server.ask("POST", INFER, &[("Inference-Header-Content-Length", "99999")], &body);
    assert_eq!(too_long.status, 400);
    let word = server.ask("POST", INFER, &[("Inference-Header-Content-Length", "x")], &body);
    assert_eq!(word.status, 400);
}

#[test]
fn each_error_has_its_status_and_its_text() {
    let server = Server::start();
    let missing = server.post("/v2/models/nobody/infer", REQUEST);
    assert_eq!(missing.status, 404);
    assert!(missing.error().contains("Request for unknown model: 'nobody'"), "{}", missing.error());
    assert_eq!(server.get("/v2/models/identity/versions/7").status, 404);
    assert_eq!(server.get("/v2/models/nobody/ready").status, 404);
    assert_eq!(server.get("/v2/nothing").status, 404);
    let wrong = server.get(INFER);
    assert_eq!((wrong.status, wrong.header("allow")), (405, Some("POST")));
    assert_eq!(server.post("/v2/health/live", "").header("allow"), Some("GET, HEAD"));
    for body in ["", "{", "[]", r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[1,3],"data":[1]}]}"#] {
        let response = server.post(INFER, body);
        assert_eq!(response.status, 400, "{body}: {response:?}");
        assert!(!response.error().is_empty());
    }
    let failed = server.post(INFER, &REQUEST.replace("1.5", "666"));
    assert_eq!(failed.status, 500);
    assert_eq!(failed.error(), "the model does not like 666");
    let load = server.post("/v2/repository/models/identity/load", "{}");
    assert_eq!((load.status, load.header("retry-after")), (503, Some("1")));
}

#[test]
fn the_index_lists_every_model_even_without_a_body() {
    let server = Server::start();
    for body in ["", "{}", r#"{"ready":true}"#] {
        let rows = server.post("/v2/repository/index", body).json();
        assert_eq!(rows[0], json!({ "name": "identity", "version": "1", "state": "READY", "reason": "" }));
    }
    assert_eq!(server.post("/v2/repository/index", r#"{"ready":1}"#).status, 400);
}

#[test]
fn a_body_above_the_limit_is_refused_announced_or_not() {
    let server = Server::start();
    let length = (LIMIT + 1).to_string();
    let announced = server.ask("POST", INFER, &[("content-length", &length)], b"");
    assert_eq!((announced.status, announced.header("connection")), (413, Some("close")));
    assert!(announced.error().contains(&LIMIT.to_string()));
    let mut chunked = format!("{:x}\r\n", LIMIT + 1).into_bytes();
    chunked.resize(chunked.len() + LIMIT + 1, b' ');
    chunked.extend_from_slice(b"\r\n0\r\n\r\n");
    let streamed = server.ask("POST", INFER, &[("transfer-encoding", "chunked")], &chunked);
    assert_eq!(streamed.status, 413);
}

#[test]
fn compressed_bodies_are_unpacked_within_the_limit() {
    let server = Server::start();
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(REQUEST.as_bytes()).unwrap();
    let gzip = gzip.finish().unwrap();
    let mut zlib = ZlibEncoder::new(Vec::new(), Compression::fast());
    zlib.write_all(REQUEST.as_bytes()).unwrap();
    assert_eq!(server.ask("POST", INFER, &[("content-encoding", "gzip")], &gzip).status, 200);
    let zlib = zlib.finish().unwrap();
    assert_eq!(server.ask("POST", INFER, &[("content-encoding", "deflate")], &zlib).status, 200);
    let cut = server.ask("POST", INFER, &[("content-encoding", "gzip")], &gzip[..gzip.len() - 4]);
    assert_eq!(cut.status, 400, "{cut:?}");
    let unknown = server.ask("POST", INFER, &[("content-encoding", "br")], &gzip);
    assert_eq!((unknown.status, unknown.header("accept-encoding")), (415, Some("gzip, deflate, zstd")));
    let mut bomb = GzEncoder::new(Vec::new(), Compression::fast());
    bomb.write_all(&vec![b' '; LIMIT + 1]).unwrap();
    let bomb = server.ask("POST", INFER, &[("content-encoding", "gzip")], &bomb.finish().unwrap());
    assert_eq!(bomb.status, 413);
}

#[test]
fn timing_is_told_only_when_asked_for() {
    let server = Server::start();
    assert_eq!(server.post(INFER, REQUEST).header("server-timing"), None);
    let response = server.ask("POST", INFER, &[("kingpole-timing", "1")], REQUEST.as_bytes());
    let timing = response.header("server-timing").unwrap();
    assert!(timing.starts_with("queue;dur=") && timing.contains("execute;dur="), "{timing}");
}

#[test]
fn a_timeout_of_nothing_is_exceeded() {
    let server = Server::start();
    let response = server.ask("POST", INFER, &[("kingpole-timeout-us", "0")], REQUEST.as_bytes());
    assert_eq!(response.status, 504, "{response:?}");
    assert_eq!(server.ask("POST", INFER, &[("kingpole-timeout-us", "soon")], REQUEST.as_bytes()).status, 400);
}

#[test]
fn pipelined_requests_are_answered_in_order_on_one_connection() {
    let server = Server::start();
    let mut stream = server.connect();
    let mut requests = String::new();
    for id in 0..10 {
        let body = REQUEST.replace("\"a\"", &format!("\"{id}\""));
        let last = if id == 9 { "connection: close\r\n" } else { "" };
        let length = body.len();
        requests.extend([
            format!("POST {INFER} HTTP/1.1\r\nhost: t\r\n{last}content-length: {length}\r\n\r\n"),
            body,
        ]);
    }
    stream.write_all(requests.as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let places: Vec<_> = (0..10).map(|id| text.find(&format!("\"id\":\"{id}\"")).unwrap()).collect();
    assert!(places.is_sorted(), "{text}");
}

#[test]
fn a_client_that_leaves_in_its_request_hurts_nobody() {
    let server = Server::start();
    for part in ["P", "POST /v2 HT", "POST /v2/models/identity/infer HTTP/1.1\r\ncontent-length: 50\r\n\r\n{"]
    {
        server.connect().write_all(part.as_bytes()).unwrap();
    }
    assert_eq!(server.post(INFER, REQUEST).status, 200);
}

#[test]
fn a_client_that_dawdles_over_its_header_is_left() {
    let configuration =
        FrontendConfiguration { header_timeout: Duration::from_millis(50), ..Default::default() };
    let server = Server::start_with(&["127.0.0.1:0".to_owned()], configuration);
    for start in ["", "PRI", "GET /v2 HTTP/1.1\r\nhost:"] {
        let mut stream = server.connect();
        stream.write_all(start.as_bytes()).unwrap();
        let mut answer = Vec::new();
        // Ends because the server closes; the read's own timeout would be an error.
        stream.read_to_end(&mut answer).unwrap();
        assert!(answer.is_empty() || Response::parse(&answer).status == 408, "{start}");
    }
}

#[test]
fn an_idle_connection_is_closed_when_the_server_drains() {
    let server = Server::start();
    let mut stream = server.connect();
    stream.write_all(b"GET /v2/health/live HTTP/1.1\r\nhost: t\r\n\r\n").unwrap();
    let mut first = [0];
    stream.read_exact(&mut first).unwrap();
    server.drain();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    assert!(rest.ends_with("{\"live\":true}"), "{rest}");
}

#[test]
fn the_refusal_of_a_body_arrives_although_the_body_is_still_on_its_way() {
    let server = Server::start();
    let body = vec![b' '; 4 << 20];
    let announced = format!("POST {INFER} HTTP/1.1\r\nhost: t\r\ncontent-length: {}\r\n\r\n", body.len());
    let coded = format!(
        "POST {INFER} HTTP/1.1\r\nhost: t\r\ncontent-encoding: br\r\ncontent-length: {LIMIT}\r\n\r\n"
    );
    for (head, status) in [(announced.as_str(), 413), (coded.as_str(), 415), ("no HTTP at all\r\n\r\n", 400)]
    {
        for round in 0..10 {
            let mut stream = server.connect();
            stream.write_all(head.as_bytes()).unwrap();
            stream.write_all(&body).unwrap_or_else(|error| panic!("{head} {round}: {error}"));
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).unwrap_or_else(|error| panic!("{head} {round}: {error}"));
            let response = Response::parse(&answer);
            assert_eq!((response.status, response.header("retry-after")), (status, None), "{head}");
        }
    }
}
