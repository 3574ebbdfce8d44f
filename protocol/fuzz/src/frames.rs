//! Kingpole frames.

use bytes::Bytes;
use kingpole_wire::frame::{self, Frame, FrameReader, Message};

use super::{bounded, is_view, value};

/// The most a reader makes room for on the strength of an announcement.
const READER_BYTES: usize = 4 << 20;
const MAX_FRAME_BYTES: usize = 1 << 20;

/// One whole frame.
pub fn frame_decode(input: &[u8]) {
    let bytes = Bytes::copy_from_slice(input);
    let decoded = bounded(input.len(), 0, || frame::decode(bytes.clone()));
    let Some(Frame { exchange, message }) = value(decoded) else { return };
    let again = match &message {
        Message::Request { request, shared, places } => {
            assert!(request.inputs.iter().all(|input| is_view(input, &bytes)));
            frame::encode_request_in_place(request, shared, places, exchange)
        }
        Message::Response { response, shared } => {
            assert!(response.outputs.iter().all(|output| is_view(output, &bytes)));
            frame::encode_response(response, shared, exchange)
        }
        Message::ServerInfo(info) => frame::encode_server_info(info, exchange),
        Message::Metadata(metadata) => frame::encode_metadata(metadata, exchange),
        _ => return,
    };
    let again = again.into_bytes();
    if let Some(again) = value(frame::decode(again)) {
        // As text: a NaN among the parameters is not equal to itself.
        assert_eq!(format!("{again:?}"), format!("{:?}", Frame { exchange, message }));
    }
}

/// Frames on a stream: the first two bytes say in which pieces the rest comes.
pub fn frame_pieces(input: &[u8]) {
    let Some((seed, stream)) = input.split_first_chunk::<2>() else { return };
    let whole = read(stream, usize::MAX, 0);
    let pieces = read(stream, usize::from(seed[0]) + 1, usize::from(seed[1]));
    assert_eq!(pieces, whole);
}

/// The frames of a stream and how it ended, read in pieces of about `piece` bytes.
fn read(stream: &[u8], piece: usize, step: usize) -> (Vec<String>, bool) {
    bounded(stream.len(), READER_BYTES, || {
        let mut reader = FrameReader::new(MAX_FRAME_BYTES);
        let (mut frames, mut rest, mut next) = (Vec::new(), stream, piece);
        while !rest.is_empty() {
            let (bytes, tail) = rest.split_at(next.min(rest.len()));
            rest = tail;
            next = (next.saturating_add(step) % 257).max(1).max(if piece == usize::MAX { piece } else { 1 });
            reader.push(bytes);
            loop {
                match reader.next_frame() {
                    Ok(Some(frame)) => frames.push(format!("{frame:?}")),
                    Ok(None) => break,
                    Err(error) => {
                        value::<()>(Err(error.clone()));
                        assert_eq!(reader.next_frame(), Err(error), "the stream stays lost");
                        return (frames, true);
                    }
                }
            }
        }
        (frames, false)
    })
}
