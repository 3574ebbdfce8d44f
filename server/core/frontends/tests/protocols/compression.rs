//! Compressed requests and answers, over HTTP and gRPC.

use std::io::{Read, Write};

use bytes::{Bytes, BytesMut};
use flate2::Compression;
use flate2::read::{GzDecoder, ZlibDecoder};
use flate2::write::{GzEncoder, ZlibEncoder};
use kingpole_values::{Datatype, InferRequest, Shape, Tensor};
use kingpole_wire::graphpipe::{decode_response, encode_request};
use kingpole_wire::grpc::decode_infer_response;
use serde_json::json;

use crate::grpc::{INFER as GRPC_INFER, call, client, encoded, framed};
use crate::server::{LIMIT, Response, Server};

const INFER: &str = "/v2/models/identity/infer";
const CODINGS: [&str; 3] = ["gzip", "deflate", "zstd"];

fn pack(coding: &str, plain: &[u8]) -> Vec<u8> {
    match coding {
        "gzip" => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(plain).unwrap();
            encoder.finish().unwrap()
        }
        "deflate" => {
            let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(plain).unwrap();
            encoder.finish().unwrap()
        }
        _ => zstd::bulk::compress(plain, 1).unwrap(),
    }
}

fn unpack(coding: &str, packed: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    match coding {
        "gzip" => GzDecoder::new(packed).read_to_end(&mut plain).unwrap(),
        "deflate" => ZlibDecoder::new(packed).read_to_end(&mut plain).unwrap(),
        _ => zstd::Decoder::new(packed).unwrap().read_to_end(&mut plain).unwrap(),
    };
    plain
}

/// A request for so many numbers, as JSON.
fn request(values: usize) -> Vec<u8> {
    let data: Vec<f64> = (0..u8::MAX).cycle().map(f64::from).take(values).collect();
    let input = json!({ "name": "x", "datatype": "FP32", "shape": [1, values], "data": data });
    json!({ "inputs": [input] }).to_string().into_bytes()
}

/// The same, with the answer in bytes.
fn request_for_bytes(values: usize) -> Vec<u8> {
    let mut request: serde_json::Value = serde_json::from_slice(&request(values)).unwrap();
    request["outputs"] = json!([{ "name": "y", "parameters": { "binary_data": true } }]);
    request.to_string().into_bytes()
}

fn ask(server: &Server, accept: &str, body: &[u8]) -> Response {
    server.ask("POST", INFER, &[("accept-encoding", accept)], body)
}

#[test]
fn answers_are_compressed_as_their_client_wants() {
    let server = Server::start();
    let plain = server.ask("POST", INFER, &[], &request(1000));
    assert_eq!((plain.status, plain.header("content-encoding")), (200, None));
    assert_eq!(plain.header("vary"), Some("accept-encoding"));
    for coding in CODINGS {
        let packed = ask(&server, &format!("br, {coding};q=0.5"), &request(1000));
        assert_eq!((packed.status, packed.header("content-encoding")), (200, Some(coding)));
        assert_eq!(packed.header("content-type"), Some("application/json"));
        assert_eq!(packed.header("vary"), Some("accept-encoding"));
        assert!(packed.body.len() < plain.body.len() / 2, "{coding}: {}", packed.body.len());
        assert_eq!(unpack(coding, &packed.body), plain.body, "{coding}");
    }
}

#[test]
fn the_header_length_of_a_compressed_answer_is_that_of_the_plain_one() {
    let server = Server::start();
    let plain = server.ask("POST", INFER, &[], &request_for_bytes(1000));
    for coding in CODINGS {
        let packed = ask(&server, coding, &request_for_bytes(1000));
        assert_eq!(packed.header("content-encoding"), Some(coding));
        assert_eq!(packed.header("content-type"), Some("application/octet-stream"));
        assert_eq!(
            packed.header("inference-header-content-length"),
            plain.header("inference-header-content-length")
        );
        assert_eq!(unpack(coding, &packed.body), plain.body, "{coding}");
    }
}

#[test]
fn answers_that_are_short_or_not_wanted_so_stay_plain() {
    let server = Server::start();
    for (accept, values) in [
        ("gzip", 2),
        ("*", 1000),
        ("br", 1000),
        ("gzip;q=0", 1000),
        ("identity, gzip;q=0.9", 1000),
        ("gzip;q=7", 1000),
        ("", 1000),
    ] {
        let answer = ask(&server, accept, &request(values));
        assert_eq!((answer.status, answer.header("content-encoding")), (200, None), "{accept}");
        assert_eq!(answer.json()["outputs"][0]["shape"], json!([1, values]), "{accept}");
    }
}

#[test]
fn a_client_that_takes_nothing_plain_gets_even_short_answers_packed_or_a_refusal() {
    let server = Server::start();
    let answer = ask(&server, "identity;q=0, zstd", &request(2));
    assert_eq!(answer.header("content-encoding"), Some("zstd"));
    assert!(unpack("zstd", &answer.body).starts_with(b"{"));
    let refused = ask(&server, "identity;q=0, br", &request(2));
    assert_eq!(refused.status, 406, "{refused:?}");
    assert!(refused.error().contains("gzip, deflate, zstd"));
}

#[test]
fn graphpipe_is_compressed_both_ways() {
    let server = Server::start();
    let input = Tensor {
        name: "".into(),
        datatype: Datatype::Fp32,
        shape: Shape::new(&[1, 1000]),
        data: Bytes::from(vec![0; 4000]),
    };
    let request = InferRequest { inputs: vec![input], ..InferRequest::default() };
    let body = encode_request(&request, "").unwrap().into_bytes();
    for coding in CODINGS {
        let headers = [("accept-encoding", coding), ("content-encoding", coding)];
        let answer = server.ask("POST", "/", &headers, &pack(coding, &body));
        assert_eq!((answer.status, answer.header("content-encoding")), (200, Some(coding)), "{answer:?}");
        let decoded = decode_response(unpack(coding, &answer.body).into()).unwrap();
        assert_eq!(decoded.outputs[0].data, vec![0; 4000]);
    }
}

#[test]
fn a_bad_body_is_refused_in_every_coding_and_by_every_route() {
    let server = Server::start();
    for coding in CODINGS {
        let whole = pack(coding, &request(2));
        let ask = |path: &str, body: &[u8]| server.ask("POST", path, &[("content-encoding", coding)], body);
        assert_eq!(ask(INFER, &whole).status, 200, "{coding}");
        let trailing = [&whole[..], b"x"].concat();
        let twice = [&whole[..], &whole].concat();
        for bad in [&whole[..whole.len() - 2], &whole[..1], b"", &request(2), &trailing, &twice] {
            let refused = ask(INFER, bad);
            assert_eq!(refused.status, 400, "{coding}: {refused:?}");
            assert!(refused.error().contains(coding), "{}", refused.error());
            assert_eq!(ask("/identity", bad).status, 400, "{coding}");
        }
        assert_eq!(ask(INFER, &pack(coding, &vec![b' '; LIMIT + 1])).status, 413, "{coding}");
    }
    let unknown = server.ask("POST", INFER, &[("content-encoding", "br")], &request(2));
    assert_eq!((unknown.status, unknown.header("accept-encoding")), (415, Some("gzip, deflate, zstd")));
    let twice = server.ask("POST", INFER, &[("content-encoding", "gzip, gzip")], &request(2));
    assert_eq!(twice.status, 415);
    server.expect_nothing_held();
}

fn packed_message(coding: &str, values: usize) -> Bytes {
    let plain = encoded("z", &vec![3.0; values]);
    let mut message = BytesMut::from(&framed(&pack(coding, &plain[5..]))[..]);
    message[0] = 1;
    message.freeze()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_call_is_answered_in_the_coding_of_its_message() {
    let server = Server::start();
    let client = client(&server).await;
    for coding in CODINGS {
        for accepted in [&[][..], &[("grpc-accept-encoding", "identity, deflate,gzip,zstd")]] {
            let metadata = [&[("grpc-encoding", coding)], accepted].concat();
            // Pieces, so that the message is put together first.
            let message = packed_message(coding, 100_000);
            let half = message.len() / 2;
            let pieces = [message.slice(..half), message.slice(half..)];
            let answer = call(&client, GRPC_INFER, &metadata, &pieces).await;
            assert_eq!(answer.status, 0, "{}", answer.message);
            assert_eq!(answer.headers["grpc-encoding"], coding);
            assert_eq!(answer.body[0], 1);
            let length = u32::from_be_bytes(answer.body[1..5].try_into().unwrap());
            assert_eq!(length as usize, answer.body.len() - 5);
            let response = decode_infer_response(unpack(coding, &answer.body[5..]).into()).unwrap();
            assert_eq!(response.outputs[0].shape, Shape::new(&[1, 100_000]));
        }
    }
    server.expect_nothing_held();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn calls_are_answered_plainly_where_that_is_wanted_or_better() {
    let server = Server::start();
    let client = client(&server).await;
    let only_gzip = ("grpc-accept-encoding", "identity,gzip");
    for (metadata, message) in [
        (&[("grpc-encoding", "zstd"), only_gzip][..], packed_message("zstd", 1000)),
        (&[("grpc-encoding", "gzip"), only_gzip], packed_message("gzip", 2)),
        (&[("grpc-encoding", "gzip"), only_gzip], encoded("z", &[3.0; 1000])),
        (&[only_gzip], encoded("z", &[3.0; 1000])),
    ] {
        let answer = call(&client, GRPC_INFER, metadata, &[message]).await;
        assert_eq!(answer.headers.get("grpc-encoding"), None);
        assert_eq!(answer.response().id.as_deref(), Some("z"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn bad_compressed_messages_are_refused_and_the_connection_goes_on() {
    let server = Server::start();
    let client = client(&server).await;
    for coding in CODINGS {
        let whole = pack(coding, &encoded("z", &[3.0])[5..]);
        let bomb = pack(coding, &vec![0; LIMIT + 1]);
        let trailing = [&whole[..], b"x"].concat();
        for (body, status) in [(&whole[..whole.len() - 2], 3), (&trailing, 3), (b"", 3), (&bomb, 8)] {
            let mut message = BytesMut::from(&framed(body)[..]);
            message[0] = 1;
            let answer = call(&client, GRPC_INFER, &[("grpc-encoding", coding)], &[message.freeze()]).await;
            assert_eq!(answer.status, status, "{coding}: {}", answer.message);
        }
    }
    let unknown = call(&client, GRPC_INFER, &[("grpc-encoding", "snappy")], &[encoded("z", &[3.0])]).await;
    assert_eq!(
        (unknown.status, &unknown.headers["grpc-accept-encoding"]),
        (12, &"identity,gzip,deflate,zstd".parse().unwrap())
    );
    assert_eq!(call(&client, GRPC_INFER, &[], &[encoded("z", &[3.0])]).await.status, 0);
    server.expect_nothing_held();
}
