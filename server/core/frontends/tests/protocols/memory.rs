//! What all clients together may make the server hold.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use http::Request;
use kingpole_frontends::{FrontendConfiguration, MemoryBudget};
use kingpole_values::Code;
use kingpole_wire::frame::{self, FrameReader, Message};
use kingpole_wire::grpc::{encode_infer_request, proto};
use prost::Message as _;

use crate::grpc::{INFER, call, client, framed, request};
use crate::server::{Response, SWOLLEN_BYTES, Server};

const BUDGET: usize = 1 << 20;
const BODY_BYTES: usize = 900_000;
const SENT_BYTES: usize = 600_000;
const UPLOADS: usize = 8;

const SMALL: &str = r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[1,1],"data":[1]}]}"#;

fn encoded(model: &'static str, values: &[f32]) -> Bytes {
    let mut request = request("id", values);
    request.model = model.into();
    encode_infer_request(&request, false).into_bytes()
}

/// Read one response with a Content-Length, and leave the connection open.
fn read_response(stream: &mut TcpStream) -> Response {
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let response = Response::parse(&bytes);
            let length: usize = response.header("content-length").unwrap().parse().unwrap();
            if bytes.len() >= end + 4 + length {
                return response;
            }
        }
        let read = stream.read(&mut piece).unwrap();
        assert!(read > 0, "closed after {bytes:?}");
        bytes.extend_from_slice(&piece[..read]);
    }
}

#[test]
fn uploads_cannot_pass_the_budget_and_small_requests_go_on() {
    let server = Server::start_within(BUDGET);
    let (told, told_refused) = std::sync::mpsc::channel();
    let mut streams: Vec<TcpStream> = (0..UPLOADS).map(|_| server.connect()).collect();
    let mut readers = Vec::new();
    for (index, stream) in streams.iter_mut().enumerate() {
        let head = format!(
            "POST /v2/models/identity/infer HTTP/1.1\r\nhost: t\r\ncontent-length: {BODY_BYTES}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(&vec![b' '; SENT_BYTES]).unwrap();
        let (mut stream, told) = (stream.try_clone().unwrap(), told.clone());
        readers.push(std::thread::spawn(move || told.send((index, read_response(&mut stream))).unwrap()));
    }
    // One of them fits, and waits for the rest of its body.
    let mut waiting: Vec<bool> = vec![true; UPLOADS];
    for _ in 1..UPLOADS {
        let (index, response) = told_refused.recv_timeout(Duration::from_secs(20)).unwrap();
        assert_eq!((response.status, response.header("retry-after")), (429, Some("1")), "{response:?}");
        assert_eq!(response.header("connection"), None);
        waiting[index] = false;
        // The connection goes on after what is left of the refused body.
        streams[index].write_all(&vec![b' '; BODY_BYTES - SENT_BYTES]).unwrap();
        streams[index].write_all(b"GET /v2/health/live HTTP/1.1\r\nhost: t\r\n\r\n").unwrap();
        assert_eq!(read_response(&mut streams[index]).status, 200);
    }
    assert!((SENT_BYTES..=BUDGET).contains(&server.memory.used_bytes()), "{}", server.memory.used_bytes());
    assert_eq!(server.post("/v2/models/identity/infer", SMALL).status, 200);
    let last = waiting.iter().position(|&waits| waits).unwrap();
    streams[last].write_all(&vec![b' '; BODY_BYTES - SENT_BYTES]).unwrap();
    let (index, response) = told_refused.recv_timeout(Duration::from_secs(20)).unwrap();
    assert_eq!((index, response.status), (last, 400), "blanks are no JSON");
    for reader in readers {
        reader.join().unwrap();
    }
    server.expect_nothing_held();
}

/// Begin a call and send a part of its message.
async fn begin_call(
    client: &SendRequest<Bytes>,
    sent_bytes: usize,
) -> (h2::client::ResponseFuture, h2::SendStream<Bytes>) {
    let mut client = client.clone().ready().await.unwrap();
    let request = Request::post(format!("http://test{INFER}")).header("content-type", "application/grpc");
    let (response, mut send) = client.send_request(request.body(()).unwrap(), false).unwrap();
    let mut message = u32::try_from(BODY_BYTES).unwrap().to_be_bytes().to_vec();
    message.insert(0, 0);
    message.resize(sent_bytes, 0);
    send.send_data(message.into(), false).unwrap();
    (response, send)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn grpc_messages_cannot_pass_the_budget_and_their_connection_goes_on() {
    let server = Server::start_within(BUDGET);
    let client = client(&server).await;
    let mut calls = tokio::task::JoinSet::new();
    let mut sending = Vec::new();
    for _ in 0..UPLOADS {
        let (response, send) = begin_call(&client, SENT_BYTES).await;
        sending.push(send);
        calls.spawn(response);
    }
    for _ in 1..UPLOADS {
        let response = calls.join_next().await.unwrap().unwrap().unwrap();
        assert_eq!(response.headers()["grpc-status"], "8");
    }
    assert!(server.memory.used_bytes() <= BUDGET);
    let answer = call(&client, INFER, &[], &[framed(&encoded("identity", &[1.0]))]).await;
    assert_eq!(answer.status, 0, "{}", answer.message);
    drop((calls, sending));
    server.expect_nothing_held();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn calls_that_only_begin_are_counted_too() {
    let server = Server::start_within(64 << 10);
    let client = client(&server).await;
    let mut calls = tokio::task::JoinSet::new();
    let mut sending = Vec::new();
    for _ in 0..40 {
        let (response, send) = begin_call(&client, 3).await;
        sending.push(send);
        calls.spawn(response);
    }
    for _ in 0..24 {
        let response = calls.join_next().await.unwrap().unwrap().unwrap();
        assert_eq!(response.headers()["grpc-status"], "8");
    }
    assert_eq!(server.memory.used_bytes(), 64 << 10);
    drop((calls, sending));
    server.expect_nothing_held();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_stream_goes_on_after_a_message_that_found_no_room() {
    let server = Server::start_within(BUDGET / 2);
    let client = client(&server).await;
    let (small, large) = (encoded("identity", &[1.0]), encoded("identity", &vec![0.0; SENT_BYTES / 4]));
    let messages = [framed(&small), framed(&large), framed(&small)];
    let answer = call(&client, "/inference.GRPCInferenceService/ModelStreamInfer", &[], &messages).await;
    assert_eq!(answer.status, 0, "{}", answer.message);
    let mut rest = answer.body;
    let mut errors = Vec::new();
    while !rest.is_empty() {
        let length = u32::from_be_bytes(rest[1..5].try_into().unwrap()) as usize;
        let message = rest.split_to(5 + length).slice(5..);
        errors.push(proto::ModelStreamInferResponse::decode(message).unwrap().error_message);
    }
    assert_eq!(errors.iter().map(String::is_empty).collect::<Vec<_>>(), [true, false, true], "{errors:?}");

    let frame = |exchange: u64, values: &[f32]| {
        framed(&frame::encode_request(&request("id", values), &[], exchange).into_bytes())
    };
    let messages = [frame(1, &[1.0]), frame(2, &vec![0.0; SENT_BYTES / 4]), frame(3, &[1.0])];
    let answer = call(&client, "/kingpole.v1.Inference/Stream", &[], &messages).await;
    assert_eq!(answer.status, 0, "{}", answer.message);
    let mut rest = answer.body;
    let mut refused = Vec::new();
    while !rest.is_empty() {
        let length = u32::from_be_bytes(rest[1..5].try_into().unwrap()) as usize;
        let frame = frame::decode(rest.split_to(5 + length).slice(5..)).unwrap();
        if let Message::Error(error) = frame.message {
            assert!(error.retry_after_ms > 0);
            refused.push((frame.exchange, error.error.code));
        }
    }
    assert_eq!(refused, [(2, Code::ResourceExhausted)]);
    server.expect_nothing_held();
}

#[test]
fn a_frame_that_finds_no_room_is_refused_by_its_number_and_passed_over() {
    let server = Server::start_within(BUDGET / 2);
    let mut stream = server.connect();
    for (exchange, values) in [(1, 1), (2, SENT_BYTES / 4), (3, 1)] {
        let frame = frame::encode_request(&request("id", &vec![1.0; values]), &[], exchange).into_bytes();
        stream.write_all(&frame).unwrap();
    }
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let mut reader = FrameReader::new(1 << 20);
    reader.push(&bytes);
    let frames: Vec<_> = std::iter::from_fn(|| reader.next_frame().unwrap()).collect();
    let kinds: Vec<_> = frames.iter().map(|f| (f.exchange, matches!(f.message, Message::Error(_)))).collect();
    assert_eq!(kinds, [(0, false), (1, false), (2, true), (3, false)]);
    server.expect_nothing_held();
}

/// Requests for `swell`, whose answers the client does not read.
const UNREAD: usize = 200;

#[test]
fn a_client_that_does_not_read_is_not_read_from() {
    let server = Server::start_within(4 << 20);
    server.publish_swell();
    let mut stream = server.connect();
    stream.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    let request = format!(
        "POST /v2/models/swell/infer HTTP/1.1\r\nhost: t\r\ncontent-length: {}\r\n\r\n{SMALL}",
        SMALL.len()
    );
    let mut written = 0;
    while written < 100 << 20 {
        match stream.write(&request.as_bytes().repeat(100)) {
            Ok(more) => written += more,
            Err(_) => break,
        }
    }
    assert!(written < 50 << 20, "the server took {written} bytes and more");
    assert!(server.memory.used_bytes() <= 4 << 20);
    drop(stream);
    server.expect_nothing_held();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn answers_that_a_closed_window_keeps_here_are_within_the_budget() {
    let server = Server::start_within(4 << 20);
    server.publish_swell();
    let stream = tokio::net::TcpStream::connect(&server.addresses[0]).await.unwrap();
    let (client, connection) =
        h2::client::Builder::new().initial_window_size(0).handshake(stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..UNREAD {
        let mut client: SendRequest<Bytes> = client.clone().ready().await.unwrap();
        let request = Request::post(format!("http://test{INFER}")).header("content-type", "application/grpc");
        let (response, mut send) = client.send_request(request.body(()).unwrap(), false).unwrap();
        send.send_data(framed(&encoded("swell", &[1.0])), true).unwrap();
        calls.spawn(response);
    }
    let (mut held, mut refused) = (Vec::new(), 0);
    while let Some(response) = calls.join_next().await {
        let response = response.unwrap().unwrap();
        match response.headers().get("grpc-status") {
            // Its message is on its way.
            None => held.push(response.into_body()),
            Some(status) => {
                assert_eq!(status, "8");
                refused += 1;
            }
        }
    }
    assert_eq!(held.len(), (4 << 20) / (SWOLLEN_BYTES + 1), "the others found no room");
    assert_eq!(held.len() + refused, UNREAD);
    assert!(server.memory.used_bytes() <= 4 << 20);
    drop(held);
    connection.abort();
    server.expect_nothing_held();
}

#[test]
fn frames_whose_answers_are_not_read_are_within_the_budget() {
    let server = Server::start_within(4 << 20);
    server.publish_swell();
    let mut stream = server.connect();
    for exchange in 1..=UNREAD as u64 {
        let mut request = request("id", &[1.0]);
        request.model = "swell".into();
        stream.write_all(&frame::encode_request(&request, &[], exchange).into_bytes()).unwrap();
    }
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    // Every one of them is answered, those that found no room with an error.
    let mut bytes = Vec::new();
    let mut most = 0;
    let mut piece = vec![0; 1 << 16];
    loop {
        most = most.max(server.memory.used_bytes());
        match stream.read(&mut piece).unwrap() {
            0 => break,
            read => bytes.extend_from_slice(&piece[..read]),
        }
    }
    assert!(most <= 4 << 20, "{most}");
    let mut reader = FrameReader::new(1 << 20);
    reader.push(&bytes);
    let frames: Vec<_> = std::iter::from_fn(|| reader.next_frame().unwrap()).collect();
    assert_eq!(frames.len(), 1 + UNREAD);
    server.expect_nothing_held();
}

#[test]
fn questions_whose_answers_are_not_read_are_not_read_either() {
    let server = Server::start();
    let mut stream = server.connect();
    stream.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    let questions = frame::encode_server_info_request(1).into_bytes().repeat(1000);
    let mut written = 0;
    while written < 100 << 20 {
        match stream.write(&questions) {
            Ok(more) => written += more,
            Err(_) => break,
        }
    }
    assert!(written < 50 << 20, "the server took {written} bytes and more");
}

#[test]
fn a_client_that_takes_nothing_for_too_long_is_left() {
    let configuration = FrontendConfiguration {
        write_timeout: Duration::from_millis(100),
        memory: MemoryBudget::new(64 << 20),
        ..Default::default()
    };
    let server = Server::start_with(&["127.0.0.1:0".to_owned()], configuration);
    server.publish_swell();
    let mut stream = server.connect();
    for exchange in 1..=UNREAD as u64 {
        let mut request = request("id", &[1.0]);
        request.model = "swell".into();
        stream.write_all(&frame::encode_request(&request, &[], exchange).into_bytes()).unwrap();
    }
    // More than the kernel's buffers take; nothing is read.
    while server.memory.used_bytes() == 0 {
        std::thread::yield_now();
    }
    server.expect_nothing_held();
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    assert!(bytes.len() < UNREAD * SWOLLEN_BYTES, "cut off after {}", bytes.len());
}

#[test]
fn a_client_that_asks_first_is_refused_without_its_body_being_waited_for() {
    let server = Server::start_within(16 << 10);
    let mut stream = server.connect();
    let head = "POST /v2/models/identity/infer HTTP/1.1\r\nhost: t\r\nexpect: 100-continue\r\n";
    stream.write_all(format!("{head}content-length: 100000\r\n\r\n").as_bytes()).unwrap();
    let mut interim = [0; 25];
    stream.read_exact(&mut interim).unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(&vec![b' '; 50_000]).unwrap();
    let response = read_response(&mut stream);
    assert_eq!((response.status, response.header("connection")), (429, Some("close")));
}
