//! Kingpole frames: over HTTP, over gRPC, and on a stream of their own.

use std::collections::HashSet;
use std::io::{Read, Write};

use bytes::Bytes;
use kingpole_values::Code;
use kingpole_wire::frame::{
    self, Frame, FrameReader, Message, ModelName, encode_cancel, encode_metadata_request,
    encode_ready_request, encode_request, encode_server_info_request,
};

use crate::grpc::{self, call, framed, request};
use crate::server::Server;

fn encoded(exchange: u64, values: &[f32]) -> Bytes {
    encode_request(&request(&exchange.to_string(), values), &[], exchange).into_bytes()
}

fn response_of(frame: Frame) -> kingpole_values::InferResponse {
    match frame.message {
        Message::Response { response, .. } => response,
        other => panic!("not a response: {other:?}"),
    }
}

fn read_frames(stream: &mut impl Read, wanted: usize) -> Vec<Frame> {
    let mut reader = FrameReader::new(1 << 24);
    let mut frames = Vec::new();
    let mut piece = [0; 4096];
    while frames.len() < wanted {
        if let Some(frame) = reader.next_frame().unwrap() {
            frames.push(frame);
            continue;
        }
        let read = stream.read(&mut piece).unwrap();
        assert!(read > 0, "the server closed after {} frames", frames.len());
        reader.push(&piece[..read]);
    }
    frames
}

#[test]
fn a_frame_is_answered_by_a_frame_over_http() {
    let server = Server::start();
    let kind = [("content-type", "application/x-kingpole")];
    let response = server.ask("POST", "/v1/infer", &kind, &encoded(7, &[1.0, 2.0]));
    assert_eq!((response.status, response.header("content-type")), (200, Some("application/x-kingpole")));
    let frame = frame::decode(response.body.into()).unwrap();
    assert_eq!(frame.exchange, 7);
    assert_eq!(response_of(frame).outputs[0].data, request("", &[1.0, 2.0]).inputs[0].data);
    let garbage = server.ask("POST", "/v1/infer", &kind, b"garbage");
    assert_eq!(garbage.status, 400);
    let Message::Error(error) = frame::decode(garbage.body.into()).unwrap().message else { panic!() };
    assert_eq!(error.error.code, Code::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_frame_is_a_grpc_message() {
    let server = Server::start();
    let client = grpc::client(&server).await;
    let answer = call(&client, "/kingpole.v1.Inference/Infer", &[], &[framed(&encoded(3, &[1.0]))]).await;
    assert_eq!(answer.status, 0, "{}", answer.message);
    let frame = frame::decode(answer.body.slice(5..)).unwrap();
    assert_eq!(frame.exchange, 3);
    assert_eq!(response_of(frame).outputs[0].name, "y");
    let answer = call(&client, "/kingpole.v1.Inference/Infer", &[], &[framed(b"garbage")]).await;
    assert_eq!(answer.status, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_grpc_stream_of_frames_answers_each() {
    let server = Server::start();
    let client = grpc::client(&server).await;
    let mut pieces: Vec<Bytes> = (1..=50u8).map(|n| framed(&encoded(n.into(), &[f32::from(n)]))).collect();
    pieces.push(framed(b"garbage"));
    let answer = call(&client, "/kingpole.v1.Inference/Stream", &[], &pieces).await;
    assert_eq!(answer.status, 0, "{}", answer.message);
    let mut rest = answer.body;
    let mut exchanges = HashSet::new();
    while !rest.is_empty() {
        let length = u32::from_be_bytes(rest[1..5].try_into().unwrap()) as usize;
        exchanges.insert(frame::decode(rest.split_to(5 + length).slice(5..)).unwrap().exchange);
    }
    assert_eq!(exchanges, (0..=50).collect(), "0 is the error");
}

#[test]
fn pipelined_frames_are_each_answered_on_their_own_stream() {
    let server = Server::start();
    let mut stream = server.connect();
    let mut bytes = Vec::new();
    for exchange in 1..=200u8 {
        bytes.extend_from_slice(&encoded(exchange.into(), &[f32::from(exchange)]));
    }
    // In pieces that fit nothing.
    for piece in bytes.chunks(1009) {
        stream.write_all(piece).unwrap();
    }
    let mut seen = HashSet::new();
    for frame in read_frames(&mut stream, 200) {
        let exchange = frame.exchange;
        let value = f32::from(u8::try_from(exchange).unwrap());
        assert_eq!(response_of(frame).outputs[0].data, value.to_le_bytes()[..]);
        assert!(seen.insert(exchange));
    }
}

#[test]
fn a_stream_tells_of_the_server_and_its_models() {
    let server = Server::start();
    let mut stream = server.connect();
    let identity = ModelName { model: "identity".into(), version: None };
    let nobody = ModelName { model: "nobody".into(), version: None };
    for frame in [
        encode_ready_request(&identity, 1),
        encode_server_info_request(2),
        encode_metadata_request(&identity, 3),
        encode_ready_request(&nobody, 4),
        encode_cancel(99),
    ] {
        stream.write_all(&frame.into_bytes()).unwrap();
    }
    let frames = read_frames(&mut stream, 4);
    assert_eq!(frames[0].message, Message::Ready(true));
    assert!(matches!(&frames[1].message, Message::ServerInfo(info) if info.name == "kingpole"));
    assert!(matches!(&frames[2].message, Message::Metadata(metadata) if metadata.max_batch_size == 32));
    assert!(matches!(&frames[3].message, Message::Error(error) if error.error.code == Code::NotFound));
}

#[test]
fn an_ended_stream_is_answered_to_its_end_and_closed() {
    let server = Server::start();
    let mut stream = server.connect();
    stream.write_all(&encoded(1, &[1.0])).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    assert_eq!(frame::decode(bytes.into()).unwrap().exchange, 1);
}

#[test]
fn a_stream_that_makes_no_sense_gets_an_error_and_is_closed() {
    let server = Server::start();
    let mut stream = server.connect();
    stream.write_all(b"KINGPOL\x09 what follows is of a later version").unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let frame = frame::decode(bytes.into()).unwrap();
    assert!(matches!(frame.message, Message::Error(_)), "{frame:?}");
}
