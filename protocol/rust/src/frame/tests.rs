//! Round trips, pieces of any size, and frames that lie.

use bytes::Bytes;
use kingpole_values::{Code, Datatype, Error, Shape, Timing};

use super::*;
use crate::{Scatter, sample};

fn messages() -> Vec<(Scatter, Message)> {
    let name = ModelName { model: "m".into(), version: Some("1".into()) };
    let spec = TensorSpec {
        name: "x".into(),
        datatype: Datatype::Fp32,
        shape: Shape::new(&[-1, 3]),
        optional: true,
    };
    let info = ServerInfo {
        name: "kingpole".into(),
        version: "0.1".into(),
        extensions: vec!["a".into(), "b".into()],
        max_frame_bytes: 1 << 30,
    };
    let metadata = Metadata {
        name: "m".into(),
        versions: vec!["1".into(), "2".into()],
        platform: "onnx".into(),
        inputs: vec![spec.clone()],
        outputs: vec![spec],
        max_batch_size: 8,
        description: "text".into(),
    };
    let mut messages = vec![
        (encode_credit(5), Message::Credit { requests: 5 }),
        (encode_hand_over(3, 1 << 40, 9), Message::HandOver { arena: 3, nbytes: 1 << 40 }),
        (encode_release(3, 9), Message::Release { arena: 3 }),
        (encode_done(9), Message::Done),
        (encode_cancel(9), Message::Cancel),
        (encode_ready_request(&name, 9), Message::ReadyRequest(name.clone())),
        (encode_ready(true, 9), Message::Ready(true)),
        (encode_server_info_request(9), Message::ServerInfoRequest),
        (encode_server_info(&info, 9), Message::ServerInfo(info)),
        (encode_metadata_request(&name, 9), Message::MetadataRequest(name)),
        (encode_metadata(&metadata, 9), Message::Metadata(metadata)),
    ];
    for code in Code::ALL {
        let error = Error::new(code, "what went wrong");
        let scatter = encode_error(&error, 20, Some("id"), 9);
        messages
            .push((scatter, Message::Error(FrameError { error, retry_after_ms: 20, id: Some("id".into()) })));
    }
    for tensor in sample::tensors() {
        let request = sample::request(tensor.clone());
        messages.push((
            encode_request(&request, &[], 9),
            Message::Request { request, shared: vec![], places: vec![] },
        ));
        let mut response = sample::response(tensor);
        response.timing = Timing { queue_us: 1, execute_us: 2, batch_rows: 3, reason: "full" };
        messages.push((encode_response(&response, &[], 9), Message::Response { response, shared: vec![] }));
    }
    messages
}

#[test]
fn every_message_survives_a_round_trip() {
    for (scatter, message) in messages() {
        let bytes = scatter.into_bytes();
        assert_eq!(bytes.len() % ALIGNMENT, 0);
        let exchange = if matches!(message, Message::Credit { .. }) { 0 } else { 9 };
        assert_eq!(decode(bytes).unwrap(), Frame { exchange, message });
    }
}

#[test]
fn a_reader_gives_the_same_frames_whatever_the_pieces() {
    let messages = messages();
    let stream: Vec<u8> = messages.iter().flat_map(|(scatter, _)| scatter.clone().into_bytes()).collect();
    for piece in [1, 7, 63, 4096, stream.len()] {
        let mut reader = FrameReader::new(1 << 20);
        let mut frames = Vec::new();
        for chunk in stream.chunks(piece) {
            reader.push(chunk);
            while let Some(frame) = reader.next_frame().unwrap() {
                frames.push(frame.message);
            }
        }
        assert!(reader.is_at_boundary());
        assert!(frames.iter().eq(messages.iter().map(|(_, message)| message)), "pieces of {piece}");
    }
}

#[test]
fn payloads_lie_at_multiples_of_64_and_are_views() {
    let tensor = sample::tensor(Datatype::Fp32, &[100_000]);
    let data = tensor.data.clone();
    let scatter = encode_request(&sample::request(tensor), &[], 1);
    assert_eq!(scatter.chunks()[1].as_ptr(), data.as_ptr());
    assert_eq!(scatter.chunks()[0].len() % ALIGNMENT, 0);
    let bytes = scatter.into_bytes();
    let Message::Request { request, .. } = decode(bytes.clone()).unwrap().message else {
        panic!("a request")
    };
    assert!(bytes.as_ptr_range().contains(&request.inputs[0].data.as_ptr()));
}

#[test]
fn a_tensor_in_shared_memory_has_a_place_and_no_payload() {
    let request = sample::request(sample::tensor(Datatype::Int32, &[4]));
    let place = SharedTensor { index: 0, arena: 7, offset: 128, nbytes: 16 };
    let wanted = SharedTensor { index: 0, arena: 1, offset: u64::MAX, nbytes: 9 };
    let bytes = encode_request_in_place(&request, &[place], &[wanted], 1).into_bytes();
    let Message::Request { request, shared, places } = decode(bytes).unwrap().message else {
        panic!("a request")
    };
    assert_eq!((shared, places), (vec![place], vec![wanted]));
    assert!(request.inputs[0].data.is_empty());
}

#[test]
fn a_frame_too_large_is_refused_from_its_announcement() {
    let bytes =
        encode_request(&sample::request(sample::tensor(Datatype::Int64, &[5000])), &[], 1).into_bytes();
    let mut reader = FrameReader::new(4096);
    reader.push(&bytes[..2048]);
    let error = reader.next_frame().unwrap_err();
    assert_eq!(error.code, Code::ResourceExhausted);
    assert_eq!(reader.next_frame().unwrap_err(), error, "the stream is lost");
    let mut header = MAGIC.to_vec();
    header.extend([0xff; 8]);
    assert_eq!(decode(header.into()).unwrap_err().code, Code::ResourceExhausted);
}

#[test]
fn a_frame_given_up_is_passed_over_and_the_next_is_read() {
    let frame =
        encode_request(&sample::request(sample::tensor(Datatype::Int64, &[500])), &[], 7).into_bytes();
    let next = encode_server_info_request(8).into_bytes();
    let both = [&frame[..], &next[..]].concat();
    // With the header and something more, in one piece or byte by byte.
    for piece_bytes in [both.len(), 1] {
        let mut reader = FrameReader::new(1 << 20);
        reader.push(&frame[..PRELUDE_BYTES]);
        assert_eq!(reader.next_frame().unwrap(), None);
        assert_eq!(reader.skip_frame(), None, "nobody knows yet whose frame it is");
        let begun = frame.len() - 1;
        reader.push(&both[PRELUDE_BYTES..begun]);
        assert_eq!(reader.next_frame().unwrap(), None);
        assert_eq!(reader.skip_frame(), Some(7));
        assert!(!reader.is_at_boundary());
        let mut frames = Vec::new();
        for piece in both[begun..].chunks(piece_bytes) {
            reader.push(piece);
            frames.extend(reader.next_frame().unwrap());
        }
        assert_eq!(frames.len(), 1);
        assert_eq!(frames[0].exchange, 8);
        assert!(reader.is_at_boundary());
    }
}

#[test]
fn frames_that_lie_are_refused() {
    let good = encode_request(&sample::request(sample::tensor(Datatype::Fp32, &[2])), &[], 1).into_bytes();
    let refused = |bytes: Vec<u8>| decode(Bytes::from(bytes)).unwrap_err();
    for length in 0..good.len() {
        assert_eq!(refused(good[..length].to_vec()).code, Code::InvalidArgument, "cut at {length}");
    }
    let mut longer = good.to_vec();
    longer.extend([0; 64]);
    assert!(refused(longer).message.contains("the frame says"));
    let mut version = good.to_vec();
    version[7] = 2;
    assert_eq!(refused(version).message, "frame version 2 is not known; this side speaks 1");
    let mut count = good.to_vec();
    count[12] = 2;
    assert_eq!(refused(count).message, "the frame says 2 payloads, its header 1");
    assert!(refused(b"GET / HTTP/1.1\r\n".to_vec()).message.starts_with("not a Kingpole frame"));
}
