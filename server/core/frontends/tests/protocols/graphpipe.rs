//! `GraphPipe` as its clients speak it.

use kingpole_values::{Datatype, InferRequest, Shape, Tensor};
use kingpole_wire::graphpipe::{
    decode_metadata_response, decode_response, encode_metadata_request, encode_request,
};

use crate::server::Server;

fn body(datatype: Datatype, data: &'static [u8], columns: i64) -> Vec<u8> {
    let shape = Shape::new(&[1, columns]);
    let input = Tensor { name: "".into(), datatype, shape, data: data.into() };
    let request = InferRequest { inputs: vec![input], ..InferRequest::default() };
    encode_request(&request, "").unwrap().into_bytes().to_vec()
}

#[test]
fn a_post_infers_with_the_model_in_the_path() {
    let server = Server::start();
    let floats = body(Datatype::Fp32, b"\0\0\x80\x3f\0\0\0\x40", 2);
    let paths =
        ["/", "/identity", "/models/identity", "/models/identity/versions/1", "/some/other/place", "/a/b/"];
    for path in paths {
        let response =
            server.ask("POST", path, &[("content-type", "application/x-www-form-urlencoded")], &floats);
        assert_eq!(
            (response.status, response.header("content-type")),
            (200, Some("application/octet-stream"))
        );
        let decoded = decode_response(response.body.into()).unwrap();
        assert_eq!(decoded.outputs[0].data, b"\0\0\x80\x3f\0\0\0\x40"[..], "{path}");
    }
}

#[test]
fn bytes_stand_for_truth_where_the_model_wants_it() {
    let server = Server::start();
    let response = server.ask("POST", "/truth", &[], &body(Datatype::Uint8, b"\x01\0", 2));
    assert_eq!(response.status, 200, "{response:?}");
}

#[test]
fn metadata_comes_by_get_and_by_flatbuffer() {
    let server = Server::start();
    let response = server.get("/");
    assert_eq!(response.header("content-type"), Some("application/json"));
    assert!(
        response.text().starts_with("{\n    \"Name\": \"identity\",\n    \"Version\": \"1\""),
        "{}",
        response.text()
    );
    assert_eq!(response.json()["Inputs"][0]["Type"], 10);
    let response = server.ask("POST", "/", &[], &encode_metadata_request());
    assert_eq!(decode_metadata_response(response.body.into()).unwrap().server, "kingpole");
}

#[test]
fn errors_are_text() {
    let server = Server::start();
    for (path, body, status) in [
        ("/", b"garbage".to_vec(), 400),
        ("/nobody", body(Datatype::Fp32, b"\0\0\x80\x3f", 1), 404),
        ("/a/b/c", Vec::new(), 404),
    ] {
        let response = server.ask("POST", path, &[], &body);
        assert_eq!(response.status, status, "{path}: {response:?}");
        assert_eq!(response.header("content-type"), Some("text/plain; charset=utf-8"));
        assert!(response.text().ends_with('\n'));
    }
    assert!(server.get("/nobody").text().contains("nobody"));
}

#[test]
fn control_tells_whether_the_server_is_ready() {
    let server = Server::start();
    assert_eq!(server.get("/control/is_ready").text(), "ok\n");
    assert_eq!(server.get("/control/is_alive").text(), "ok\n");
    server.engine.set_ready(false);
    let response = server.get("/control/is_ready");
    assert_eq!((response.status, response.text()), (503, "not ready\n"));
}

#[test]
fn control_tells_how_many_clients_there_are_and_lets_none_end_the_server() {
    let server = Server::start();
    let _other = server.connect();
    let counted = || server.get("/control/client_count").text().trim().parse::<usize>().unwrap();
    assert!((1..=2).contains(&counted()), "the other connection may not be taken yet");
    let response = server.ask("POST", "/control/shutdown", &[], b"");
    assert_eq!(response.status, 403, "{response:?}");
    assert!(response.text().contains("signal"));
    let response = server.ask("POST", "/control/is_ready", &[], b"");
    assert_eq!((response.status, response.header("allow")), (405, Some("GET, HEAD")));
    assert_eq!(server.get("/control/nothing").status, 404);
}

#[test]
fn a_stray_path_is_named_to_whoever_sends_no_request() {
    let server = Server::start();
    let response = server.post("/v3/models/m/infer", "{}");
    assert_eq!(response.status, 404);
    assert!(response.text().contains("'/v3/models/m/infer'"), "{}", response.text());
    assert_eq!(server.get("/some/other/place").status, 404);
}

#[test]
fn a_client_that_asks_first_is_told_to_go_on() {
    use std::io::{Read, Write};
    let server = Server::start();
    let mut stream = server.connect();
    let body = body(Datatype::Fp32, b"\0\0\x80\x3f", 1);
    let head = format!(
        "POST / HTTP/1.1\r\nhost: t\r\nexpect: 100-continue\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut interim = [0; 25];
    stream.read_exact(&mut interim).unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(&body).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200 OK"));
}

#[test]
fn the_controls_are_asked_by_get() {
    let server = Server::start();
    for path in ["/control/is_alive", "/control/is_ready"] {
        assert_eq!(server.get(path).status, 200);
        assert_eq!(server.ask("HEAD", path, &[], b"").status, 200);
        let refused = server.ask("DELETE", path, &[], b"");
        assert_eq!((refused.status, refused.header("allow")), (405, Some("GET, HEAD")));
    }
}
