//! Requests that are answered by any number of responses, in every protocol that can carry them; and what
//! becomes of requests whose clients leave.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::Request;
use kingpole_frontends::{FrontendConfiguration, StreamDialect};
use kingpole_values::{Code, InferRequest, Parameter, Shape, Stage};
use kingpole_wire::frame::{self, Frame, FrameReader, Message, encode_cancel, encode_request};
use kingpole_wire::grpc::{decode_infer_response, encode_infer_request, proto};
use prost::Message as _;

use crate::grpc::{self, call, framed, request};
use crate::server::{Response, Server};

const STREAM: &str = "/inference.GRPCInferenceService/ModelStreamInfer";

/// Count to `count` in responses of `columns` elements.
fn counting(id: &str, count: f32, columns: f32) -> InferRequest {
    let mut request = request(id, &[count, columns]);
    request.model = "count".into();
    request.inputs[0].shape = Shape::new(&[2]);
    request
}

fn encoded(request: &InferRequest) -> Bytes {
    framed(&encode_infer_request(request, false).into_bytes())
}

fn messages(mut body: Bytes) -> Vec<Bytes> {
    let mut messages = Vec::new();
    while !body.is_empty() {
        let length = u32::from_be_bytes(body[1..5].try_into().unwrap()) as usize;
        messages.push(body.split_to(5 + length).slice(5..));
    }
    messages
}

/// Id, whether it is said to be final, first element; or the id and the error.
fn shown(message: Bytes) -> String {
    let said = proto::ModelStreamInferResponse::decode(message).unwrap();
    let response = said.infer_response.unwrap_or_default();
    if !said.error_message.is_empty() {
        return format!("{}: {}", response.id, said.error_message);
    }
    let choice = response.parameters["triton_final_response"].parameter_choice.clone();
    let Some(proto::infer_parameter::ParameterChoice::BoolParam(last)) = choice else { panic!("{choice:?}") };
    let value =
        response.raw_output_contents.first().map(|raw| f32::from_le_bytes(raw[..4].try_into().unwrap()));
    format!("{} {last} {value:?}", response.id)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_triton_stream_carries_any_number_of_responses() {
    let server = Server::start();
    server.publish_count();
    let client = grpc::client(&server).await;
    let mut told = counting("told", 0.0, 1.0);
    told.parameters.push(("triton_enable_empty_final_response".into(), Parameter::Bool(true)));
    let pieces = [counting("none", 0.0, 1.0), counting("one", 1.0, 1.0), counting("three", 3.0, 1.0), told]
        .map(|r| encoded(&r));
    let answer = call(&client, STREAM, &[], &pieces).await;
    assert_eq!(answer.status, 0, "{}", answer.message);
    let said: Vec<_> = messages(answer.body).into_iter().map(shown).collect();
    let expected = [
        "one false Some(1.0)",
        "three false Some(1.0)",
        "three false Some(2.0)",
        "three false Some(3.0)",
        "told true None",
    ];
    assert_eq!(said, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn decoupled_responses_do_not_wait_for_ordinary_ones_which_keep_their_order() {
    let server = Server::start();
    server.publish_count();
    let held = server.publish_held();
    let client = grpc::client(&server).await;
    let mut first = request("first", &[1.0]);
    first.model = "held".into();
    let mut ready = client.clone().ready().await.unwrap();
    let opening = Request::post(format!("http://test{STREAM}")).header("content-type", "application/grpc");
    let (response, mut send) = ready.send_request(opening.body(()).unwrap(), false).unwrap();
    for request in [first, request("second", &[2.0]), counting("count", 1.0, 1.0)] {
        send.send_data(encoded(&request), false).unwrap();
    }
    let mut body = response.await.unwrap().into_body();
    let mut received = BytesMut::new();
    while received.is_empty() {
        received.extend_from_slice(&body.data().await.unwrap().unwrap());
    }
    assert_eq!(
        messages(received.split().freeze()).into_iter().map(shown).collect::<Vec<_>>(),
        ["count false Some(1.0)"]
    );
    held.release();
    send.send_data(Bytes::new(), true).unwrap();
    while let Some(piece) = body.data().await {
        received.extend_from_slice(&piece.unwrap());
    }
    let said: Vec<_> = messages(received.freeze()).into_iter().map(shown).collect();
    assert_eq!(said, ["first true Some(1.0)", "second true Some(2.0)"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_error_in_mid_stream_is_a_message_or_the_end_of_the_call() {
    let server = Server::start();
    server.publish_count();
    let client = grpc::client(&server).await;
    let failing = || [encoded(&counting("bad", -2.0, 1.0)), encoded(&counting("good", 1.0, 1.0))];
    let answer = call(&client, STREAM, &[], &failing()).await;
    assert_eq!(answer.status, 0, "{}", answer.message);
    let said: Vec<_> = messages(answer.body).into_iter().map(shown).collect();
    let expected = [
        "bad false Some(1.0)",
        "bad false Some(2.0)",
        "bad: the model can count no further",
        "good false Some(1.0)",
    ];
    assert_eq!(said, expected);
    let strict = [("triton_grpc_error", "true")];
    let answer = call(&client, STREAM, &strict, &failing()).await;
    assert_eq!((answer.status, &answer.message[..]), (13, "the model can count no further"));
    assert_eq!(messages(answer.body).len(), 2, "what was given before stays given");
    // What is wrong with a request is no error of a model.
    let mut reserved = counting("x", 1.0, 1.0);
    reserved.parameters.push(("triton_other".into(), Parameter::Bool(true)));
    let mut unknown = counting("y", 1.0, 1.0);
    unknown.model = "nobody".into();
    let answer = call(&client, STREAM, &strict, &[encoded(&reserved), encoded(&unknown)]).await;
    assert_eq!(answer.status, 0, "{}", answer.message);
    let said: Vec<_> = messages(answer.body).into_iter().map(shown).collect();
    assert!(
        said[0].contains("triton_other") && said[1].starts_with("y: Request for unknown model"),
        "{said:?}"
    );
    let ordinary = call(&client, grpc::INFER, &[], &[encoded(&counting("z", 1.0, 1.0))]).await;
    assert_eq!(ordinary.status, 12);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_stream_can_be_of_bare_responses() {
    let dialect = [("kingpole-stream-dialect", "open-inference")];
    let configuration = FrontendConfiguration {
        stream_dialect: StreamDialect::OpenInference,
        ..FrontendConfiguration::default()
    };
    for (server, metadata) in [
        (Server::start(), &dialect[..]),
        (Server::start_with(&["127.0.0.1:0".to_owned()], configuration), &[]),
    ] {
        server.publish_count();
        let client = grpc::client(&server).await;
        let pieces = [encoded(&request("a", &[7.0])), encoded(&counting("b", 2.0, 1.0))];
        let answer = call(&client, STREAM, metadata, &pieces).await;
        assert_eq!(answer.status, 0, "{}", answer.message);
        let mut ids: Vec<_> = messages(answer.body)
            .into_iter()
            .map(|message| decode_infer_response(message).unwrap())
            .inspect(|response| assert!(response.parameters.is_empty()))
            .map(|response| response.id.unwrap().to_string())
            .collect();
        ids.sort();
        assert_eq!(ids, ["a", "b", "b"]);
        let answer = call(&client, STREAM, metadata, &[encoded(&request("a", &[666.0]))]).await;
        assert_eq!(
            (answer.status, answer.body.len()),
            (13, 0),
            "there is no place for an error but the status"
        );
    }
    let server = Server::start();
    let client = grpc::client(&server).await;
    let answer = call(&client, STREAM, &[("kingpole-stream-dialect", "latin")], &[]).await;
    assert_eq!(answer.status, 3);
    assert!(answer.message.contains("'latin'"), "{}", answer.message);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_client_that_does_not_read_holds_up_the_model_and_one_that_leaves_ends_it() {
    let server = Server::start();
    let counted = server.publish_count();
    let client = grpc::client(&server).await;
    let mut ready = client.clone().ready().await.unwrap();
    let opening = Request::post(format!("http://test{STREAM}")).header("content-type", "application/grpc");
    let (response, mut send) = ready.send_request(opening.body(()).unwrap(), false).unwrap();
    send.send_data(encoded(&counting("a", 1e6, 1000.0)), false).unwrap();
    let body = response.await.unwrap().into_body();
    let given = tokio::task::block_in_place(|| counted.settled());
    assert!((16..200).contains(&given), "{given} responses were made for a client that takes none");
    drop((body, send));
    tokio::task::block_in_place(|| {
        counted.expect_ended(1);
        server.expect_in_flight(0);
    });
}

fn read_frame(stream: &mut TcpStream, reader: &mut FrameReader) -> Frame {
    let mut piece = [0; 4096];
    loop {
        if let Some(frame) = reader.next_frame().unwrap() {
            return frame;
        }
        let read = stream.read(&mut piece).unwrap();
        assert!(read > 0, "the server closed");
        reader.push(&piece[..read]);
    }
}

fn stage_of(frame: &Frame) -> Stage {
    let Message::Response { response, .. } = &frame.message else { panic!("{frame:?}") };
    response.stage
}

#[test]
fn frames_carry_parts_and_a_cancel_ends_them() {
    let server = Server::start();
    let counted = server.publish_count();
    let (mut stream, mut reader) = (server.connect(), FrameReader::new(1 << 24));
    stream.write_all(&encode_request(&counting("a", 3.0, 1.0), &[], 5).into_bytes()).unwrap();
    assert!(matches!(read_frame(&mut stream, &mut reader).message, Message::Credit { .. }));
    let frames: Vec<_> = (0..4).map(|_| read_frame(&mut stream, &mut reader)).collect();
    assert!(frames.iter().all(|frame| frame.exchange == 5));
    let stages: Vec<_> = frames.iter().map(stage_of).collect();
    assert_eq!(stages, [Stage::Part, Stage::Part, Stage::Part, Stage::End]);
    counted.expect_ended(1);
    stream.write_all(&encode_request(&counting("b", 1e6, 1.0), &[], 6).into_bytes()).unwrap();
    assert_eq!(stage_of(&read_frame(&mut stream, &mut reader)), Stage::Part);
    stream.write_all(&encode_cancel(6).into_bytes()).unwrap();
    // Parts that were on their way, then the credit that the last answer would have given back.
    loop {
        let frame = read_frame(&mut stream, &mut reader);
        if matches!(frame.message, Message::Credit { requests: 1 }) {
            break;
        }
        assert_eq!((frame.exchange, stage_of(&frame)), (6, Stage::Part));
    }
    counted.expect_ended(2);
    stream.write_all(&encode_request(&request("c", &[1.0]), &[], 7).into_bytes()).unwrap();
    assert_eq!(stage_of(&read_frame(&mut stream, &mut reader)), Stage::Only);
}

#[test]
fn a_frame_stream_that_is_not_read_holds_up_the_model() {
    let server = Server::start();
    let counted = server.publish_count();
    let mut stream = server.connect();
    stream.write_all(&encode_request(&counting("a", 1e6, 10_000.0), &[], 5).into_bytes()).unwrap();
    let given = counted.settled();
    assert!(given < 2000, "{given} responses were made for a client that takes none");
    drop(stream);
    counted.expect_ended(1);
    server.expect_in_flight(0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_grpc_stream_of_frames_carries_parts() {
    let server = Server::start();
    server.publish_count();
    let client = grpc::client(&server).await;
    let pieces = [framed(&encode_request(&counting("a", 2.0, 1.0), &[], 9).into_bytes())];
    let answer = call(&client, "/kingpole.v1.Inference/Stream", &[], &pieces).await;
    assert_eq!(answer.status, 0, "{}", answer.message);
    let frames: Vec<_> =
        messages(answer.body).into_iter().skip(1).map(|m| frame::decode(m).unwrap()).collect();
    assert_eq!(frames.iter().map(stage_of).collect::<Vec<_>>(), [Stage::Part, Stage::Part, Stage::End]);
}

/// The body of an answer in chunks.
fn unchunked(response: &Response) -> Vec<u8> {
    assert_eq!(response.header("transfer-encoding"), Some("chunked"), "{response:?}");
    let (mut rest, mut body) = (&response.body[..], Vec::new());
    loop {
        let end = rest.windows(2).position(|two| two == b"\r\n").unwrap();
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..end]).unwrap(), 16).unwrap();
        if size == 0 {
            return body;
        }
        body.extend_from_slice(&rest[end + 2..end + 2 + size]);
        rest = &rest[end + 4 + size..];
    }
}

#[test]
fn frames_follow_each_other_in_an_http_body_for_a_client_that_says_so() {
    let server = Server::start();
    server.publish_count();
    let ask = |request: &InferRequest, accept: &str| {
        let headers = [("content-type", "application/x-kingpole"), ("accept", accept)];
        server.ask("POST", "/v1/infer", &headers, &encode_request(request, &[], 3).into_bytes())
    };
    let frames = |response: &Response| {
        assert_eq!(response.header("content-type"), Some("application/x-kingpole-stream"));
        let mut reader = FrameReader::new(1 << 24);
        reader.push(&unchunked(response));
        std::iter::from_fn(|| reader.next_frame().unwrap()).collect::<Vec<_>>()
    };
    let many = "application/x-kingpole-stream";
    let counted = frames(&ask(&counting("a", 2.0, 1.0), many));
    assert_eq!(counted.iter().map(stage_of).collect::<Vec<_>>(), [Stage::Part, Stage::Part, Stage::End]);
    let only = frames(&ask(&request("b", &[1.0]), many));
    assert_eq!(only.iter().map(stage_of).collect::<Vec<_>>(), [Stage::Only]);
    let failed = frames(&ask(&counting("c", -1.0, 1.0), many));
    assert!(
        matches!(&failed[1].message, Message::Error(error) if error.error.code == Code::Internal),
        "{failed:?}"
    );
    for (refused, status) in [
        (ask(&counting("d", 1.0, 1.0), "*/*"), 501),
        (ask(&request("e", &[666.0]), many), 500),
        (ask(&InferRequest { model: "nobody".into(), ..counting("f", 1.0, 1.0) }, many), 404),
    ] {
        assert_eq!(refused.status, status, "{refused:?}");
        assert!(matches!(frame::decode(refused.body.into()).unwrap().message, Message::Error(_)));
    }
}

#[test]
fn generate_takes_plain_fields_and_gives_them() {
    let server = Server::start();
    server.publish_count();
    let answer = server.post(
        "/v2/models/identity/versions/1/generate",
        r#"{"x": [[1.5, 2]], "id": "7", "temperature": 0.5}"#,
    );
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.text(), r#"{"id":"7","model_name":"identity","model_version":"1","y":[1.5,2.0]}"#);
    let answer = server.post("/v2/models/identity/generate", r#"{"x": [[3]]}"#);
    assert_eq!(answer.json()["y"], 3.0, "a single element is bare");
    assert_eq!(
        server.post("/v2/models/count/generate", r#"{"x": [1, 2]}"#).json()["y"],
        serde_json::json!([1.0, 1.0])
    );
    for (path, body, status, text) in [
        ("count/generate", r#"{"x": [2, 1]}"#, 400, "exactly 1 response, it gave more"),
        ("count/generate", r#"{"x": [0, 1]}"#, 400, "exactly 1 response, it gave none"),
        ("count/generate", r#"{"x": [1, 2, 3]}"#, 400, "'x'"),
        ("count/generate", r#"{"y": {}}"#, 400, "'y'"),
        ("count/generate", "{", 400, "malformed JSON"),
        ("count/generate", r#"{"x": [-1, 1]}"#, 500, "count no further"),
        ("nobody/generate", "{}", 404, "unknown model"),
        ("identity/generate_stream", r#"{"x": [[666]]}"#, 500, "does not like"),
        ("count/generate_stream", "{}", 400, "'x'"),
    ] {
        let answer = server.post(&format!("/v2/models/{path}"), body);
        assert_eq!(answer.status, status, "{path} {body}: {answer:?}");
        assert!(answer.error().contains(text), "{path} {body}: {answer:?}");
    }
    assert_eq!(server.get("/v2/models/count/generate").status, 405);
}

#[test]
fn generate_stream_is_a_stream_of_events() {
    let server = Server::start();
    server.publish_count();
    let events = |path: &str, body: &str| {
        let answer = server.post(&format!("/v2/models/{path}/generate_stream"), body);
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.header("content-type"), Some("text/event-stream; charset=utf-8"));
        String::from_utf8(unchunked(&answer)).unwrap()
    };
    let event = |value: f32| {
        format!("data: {{\"model_name\":\"count\",\"model_version\":\"1\",\"y\":{value:?}}}\n\n")
    };
    assert_eq!(events("count", r#"{"x": [2, 1]}"#), event(1.0) + &event(2.0));
    assert_eq!(events("count", r#"{"x": [0, 1]}"#), "");
    let failed = event(1.0) + "event: error\ndata: {\"error\":\"the model can count no further\"}\n\n";
    assert_eq!(events("count", r#"{"x": [-1, 1]}"#), failed);
    let ordinary = "data: {\"model_name\":\"identity\",\"model_version\":\"1\",\"y\":4.0}\n\n";
    assert_eq!(events("identity", r#"{"x": [[4]]}"#), ordinary);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn events_come_over_http2_as_fast_as_they_are_read() {
    let server = Server::start();
    let counted = server.publish_count();
    let client = grpc::client(&server).await;
    let ask = async |body: &'static str| {
        let mut client = client.clone().ready().await.unwrap();
        let request = Request::post("http://test/v2/models/count/generate_stream").body(()).unwrap();
        let (response, mut send) = client.send_request(request, false).unwrap();
        send.send_data(Bytes::from_static(body.as_bytes()), true).unwrap();
        response.await.unwrap()
    };
    let mut response = ask(r#"{"x": [3, 1]}"#).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream; charset=utf-8");
    let mut text = Vec::new();
    while let Some(piece) = response.body_mut().data().await {
        text.extend_from_slice(&piece.unwrap());
    }
    assert_eq!(String::from_utf8(text).unwrap().matches("data: ").count(), 3);
    let endless = ask(r#"{"x": [1e6, 1000]}"#).await;
    let given = tokio::task::block_in_place(|| counted.settled());
    assert!(given < 200, "{given} responses were made for a client that takes none");
    drop(endless);
    tokio::task::block_in_place(|| {
        counted.expect_ended(2);
        server.expect_in_flight(0);
    });
}

/// Send the head and body of a POST, and read nothing.
fn post_only(server: &Server, path: &str, kind: &str, body: &[u8]) -> TcpStream {
    let mut stream = server.connect();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: test\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    stream
}

#[test]
fn events_that_are_not_read_hold_up_the_model_until_the_client_leaves() {
    let server = Server::start();
    let counted = server.publish_count();
    let stream =
        post_only(&server, "/v2/models/count/generate_stream", "application/json", br#"{"x": [1e6, 10000]}"#);
    let given = counted.settled();
    assert!(given < 2000, "{given} responses were made for a client that takes none");
    drop(stream);
    counted.expect_ended(1);
    server.expect_in_flight(0);
}

#[test]
fn a_queued_request_leaves_with_its_client_whatever_protocol_it_came_by() {
    let server = Server::start();
    let held = server.publish_held();
    let mut frame_request = request("a", &[1.0]);
    frame_request.model = "held".into();
    let frame = encode_request(&frame_request, &[], 1).into_bytes();
    let json = br#"{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [1]}]}"#;
    let mut graphpipe_input = frame_request.inputs[0].clone();
    graphpipe_input.name = "".into();
    let inputs = vec![graphpipe_input];
    let graphpipe =
        kingpole_wire::graphpipe::encode_request(&InferRequest { inputs, ..InferRequest::default() }, "");
    let requests = [
        post_only(&server, "/v2/models/held/infer", "application/json", json),
        post_only(&server, "/v2/models/held/generate", "application/json", br#"{"x": [[1]]}"#),
        post_only(&server, "/v1/infer", "application/x-kingpole", &frame),
        post_only(&server, "/held", "application/octet-stream", &graphpipe.unwrap().into_bytes()),
    ];
    let total = u64::try_from(requests.len()).unwrap();
    server.expect_in_flight(total);
    for (left, stream) in (0..total).rev().zip(requests) {
        drop(stream);
        server.expect_in_flight(left);
    }
    held.release();
    let statistics = server.get("/v2/models/held/stats").json();
    assert_eq!(statistics["model_stats"][0]["execution_count"], 0, "none of them was run");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_queued_call_leaves_with_its_client() {
    let server = Server::start();
    let _held = server.publish_held();
    let client = grpc::client(&server).await;
    let mut waiting = request("a", &[1.0]);
    waiting.model = "held".into();
    for path in [grpc::INFER, STREAM] {
        let call = tokio::time::timeout(Duration::from_secs(20), async {
            let mut client = client.clone().ready().await.unwrap();
            let opening =
                Request::post(format!("http://test{path}")).header("content-type", "application/grpc");
            let (response, mut send) = client.send_request(opening.body(()).unwrap(), false).unwrap();
            send.send_data(encoded(&waiting), path == grpc::INFER).unwrap();
            (response, send)
        });
        let call = call.await.unwrap();
        tokio::task::block_in_place(|| server.expect_in_flight(1));
        drop(call);
        tokio::task::block_in_place(|| server.expect_in_flight(0));
    }
}
