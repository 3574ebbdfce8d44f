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
use crate::server::{LIMIT, Server};

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
            // A stream begins with credit.
            if !matches!(frame.message, Message::Credit { .. }) {
                frames.push(frame);
            }
            continue;
        }
        let read = stream.read(&mut piece).unwrap();
        assert!(read > 0, "the server closed after {} frames", frames.len());
        reader.push(&piece[..read]);
    }
    frames
}

/// Every frame, credit included, until the server closes; a reset is a failure.
fn read_to_end(stream: &mut impl Read) -> Vec<Frame> {
    let mut reader = FrameReader::new(1 << 24);
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    reader.push(&bytes);
    std::iter::from_fn(|| reader.next_frame().unwrap()).collect()
}

#[test]
fn what_is_no_frame_is_told_so_where_frames_are_expected() {
    let server = Server::start();
    let response = server.ask("POST", "/v1/infer", &[("content-type", "application/json")], b"{}");
    assert_eq!(response.status, 415);
    assert!(response.text().contains("application/x-kingpole"), "{}", response.text());
    let response = server.get("/v1/infer");
    assert_eq!((response.status, response.header("allow")), (405, Some("POST")));
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
        let frame = frame::decode(rest.split_to(5 + length).slice(5..)).unwrap();
        if let Message::Credit { requests } = frame.message {
            assert_eq!((requests, exchanges.len()), (1023, 0), "credit comes first");
        } else {
            exchanges.insert(frame.exchange);
        }
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
    assert_eq!(read_to_end(&mut stream)[1].exchange, 1);
}

#[test]
fn a_stream_that_makes_no_sense_gets_an_error_and_is_closed() {
    let server = Server::start();
    let mut stream = server.connect();
    stream.write_all(b"KINGPOL\x09 what follows is of a later version").unwrap();
    let frames = read_to_end(&mut stream);
    assert!(matches!(frames[1].message, Message::Error(_)), "{frames:?}");
}

#[test]
fn a_body_above_the_limit_is_an_error_frame_that_says_nothing_of_trying_again() {
    let server = Server::start();
    let kind = [("content-type", "application/x-kingpole")];
    let response = server.ask("POST", "/v1/infer", &kind, &vec![0; LIMIT + 1]);
    assert_eq!(response.status, 413);
    let Message::Error(error) = frame::decode(response.body.into()).unwrap().message else { panic!() };
    assert_eq!((error.error.code, error.retry_after_ms), (Code::ResourceExhausted, 0));
    // On a stream of its own it is refused from its announcement.
    let mut stream = server.connect();
    let frame = encoded(1, &vec![0.0; LIMIT / 4]);
    assert!(frame.len() > LIMIT);
    // The server may have closed by then.
    let _ = stream.write_all(&frame);
    let frames = read_to_end(&mut stream);
    let Message::Error(error) = &frames[1].message else { panic!("{frames:?}") };
    assert_eq!((error.error.code, error.retry_after_ms), (Code::ResourceExhausted, 0));
}

#[test]
fn the_answer_to_nonsense_arrives_although_more_nonsense_is_on_its_way() {
    let server = Server::start();
    for round in 0..20 {
        let mut stream = server.connect();
        let mut nonsense = b"KINGPOL\x09".to_vec();
        nonsense.resize(4 << 20, 7);
        stream.write_all(&nonsense).unwrap_or_else(|error| panic!("round {round}: {error}"));
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let frames = read_to_end(&mut stream);
        assert!(matches!(frames[1].message, Message::Error(_)), "{frames:?}");
    }
}

#[test]
fn credit_is_granted_at_once_and_what_passes_it_is_refused() {
    let server = Server::start();
    let lane = server.publish_held();
    let mut stream = server.connect();
    let held = |exchange: u64| {
        let mut request = request(&exchange.to_string(), &[1.0]);
        request.model = "held".into();
        encode_request(&request, &[], exchange).into_bytes()
    };
    let mut reader = FrameReader::new(1 << 24);
    let mut next = |stream: &mut std::net::TcpStream| {
        let mut piece = [0; 4096];
        loop {
            if let Some(frame) = reader.next_frame().unwrap() {
                return frame;
            }
            let read = stream.read(&mut piece).unwrap();
            assert!(read > 0, "the server closed");
            reader.push(&piece[..read]);
        }
    };
    // The first request needs no grant: before it nobody knows what this connection speaks.
    stream.write_all(&held(1)).unwrap();
    let Message::Credit { requests } = next(&mut stream).message else { panic!("no credit") };
    let granted = requests + 1;
    for exchange in 2..=u64::from(granted) + 2 {
        stream.write_all(&held(exchange)).unwrap();
    }
    for excess in 1..=2 {
        let refused = next(&mut stream);
        assert_eq!(refused.exchange, u64::from(granted) + excess);
        assert!(
            matches!(refused.message, Message::Error(error) if error.error.code == Code::ResourceExhausted)
        );
    }
    // Questions need no credit, and a Cancel is read although all of it is used.
    stream.write_all(&encode_server_info_request(5000).into_bytes()).unwrap();
    assert_eq!(next(&mut stream).exchange, 5000);
    stream.write_all(&encode_cancel(7).into_bytes()).unwrap();
    let returned = next(&mut stream).message;
    assert_eq!(returned, Message::Credit { requests: 1 }, "it leaves the queue at once");
    lane.release();
    let mut answered = HashSet::new();
    for _ in 1..granted {
        assert!(answered.insert(next(&mut stream).exchange));
    }
    assert!(!answered.contains(&7), "cancelled, its credit came back without an answer");
    stream.write_all(&held(6000)).unwrap();
    assert_eq!(next(&mut stream).exchange, 6000);
}
