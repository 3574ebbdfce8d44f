//! What a frame answers: decoded, checked, and turned into a result. Knows no transport.

use bytes::Bytes;
use kingpole_values::{Code, InferResponse, Stage};
use kingpole_wire::Scatter;
use kingpole_wire::frame::{self, MAX_HEADER_BYTES, Message, SharedTensor};

use crate::arena::Placement;
use crate::{Error, Result};

/// The exchange of a request that is alone on its connection, call or stream.
pub(crate) const ONLY_EXCHANGE: u64 = 1;

/// One frame, decoded: the exchange that it belongs to, and what it says. `None` for the exchange: it cannot be told.
pub(crate) fn read(bytes: &Bytes) -> (Option<u64>, Result<Message>) {
    match frame::decode(bytes.clone()) {
        Ok(frame) => (Some(frame.exchange), Ok(frame.message)),
        Err(error) => (frame::peek_exchange(bytes), Err(Error::unreadable(error))),
    }
}

/// What a message says to whoever asked: an error becomes one, and a response is complete and of sizes that hold.
pub(crate) fn judge(message: Message, placement: Option<&Placement>) -> Result<Message> {
    match message {
        Message::Error(error) => Err(error.into()),
        Message::Response { mut response, shared } => {
            take_shared(&mut response, &shared, placement)?;
            for output in &response.outputs {
                output.check_size().map_err(Error::unreadable)?;
            }
            Ok(Message::Response { response, shared: Vec::new() })
        }
        other => Ok(other),
    }
}

fn take_shared(
    response: &mut InferResponse,
    shared: &[SharedTensor],
    placement: Option<&Placement>,
) -> Result<()> {
    for place in shared {
        let Some(data) = placement.and_then(|placement| placement.find(place)) else {
            return Err(Error::internal(format!(
                "output '{}' is said to be in shared memory where it was not asked for",
                response.outputs[place.index].name
            )));
        };
        response.outputs[place.index].data = data;
    }
    Ok(())
}

/// Whether the server has more to say to the same request.
pub(crate) fn goes_on(message: &Result<Message>) -> bool {
    matches!(message, Ok(Message::Response { response, .. }) if response.stage == Stage::Part)
}

/// The one response to a request; several are an error that says what to do.
pub(crate) fn one_response(message: Message) -> Result<InferResponse> {
    match message {
        Message::Response { response, .. } if response.stage == Stage::Only => Ok(response),
        Message::Response { response, .. } => Err(Error::new(
            Code::Unimplemented,
            format!("model '{}' answers a request with any number of responses: use stream", response.model),
        )),
        other => Err(unexpected(&other, "a response")),
    }
}

/// One of the responses to a request, if there is one, and whether it is the last.
pub(crate) fn next_response(message: Message) -> Result<(Option<InferResponse>, bool)> {
    match message {
        Message::Response { response, .. } => Ok(match response.stage {
            Stage::Only => (Some(response), true),
            Stage::Part => (Some(response), false),
            Stage::End => (None, true),
        }),
        Message::Credit { .. } | Message::Ready(_) => Ok((None, false)),
        other => Err(unexpected(&other, "a response")),
    }
}

/// The error of an answer to another question.
pub(crate) fn unexpected(message: &Message, wanted: &str) -> Error {
    let got = match message {
        Message::Response { .. } => "a response",
        Message::Ready(_) => "readiness",
        Message::ServerInfo(_) => "who it is",
        Message::Metadata(_) => "metadata",
        Message::Credit { .. } => "credit",
        Message::Done => "that it is done",
        _ => "something that no server says",
    };
    Error::internal(format!("the server answered with {got}, not with {wanted}"))
}

/// Refuse a frame whose header is longer than any receiver takes.
pub(crate) fn check_frame(scatter: Scatter) -> Result<Scatter> {
    let length = scatter.chunks().first().and_then(|chunk| chunk.get(8..12));
    let length = length.map_or(0, |said| u32::from_le_bytes([said[0], said[1], said[2], said[3]]) as usize);
    if length > MAX_HEADER_BYTES {
        return Err(Error::invalid(format!(
            "the request's names, shapes and parameters have {length} bytes, at most {MAX_HEADER_BYTES} can be sent"
        )));
    }
    Ok(scatter)
}
