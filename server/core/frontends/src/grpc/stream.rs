//! Streams of inferences: many requests in flight on one call.

use std::collections::VecDeque;
use std::future::Future;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use kingpole_engine::Responder;
use kingpole_values::{ByteString, Error, InferResponse, Parameter, Result};
use kingpole_wire::grpc::{encode_stream_error_message, encode_stream_response_message};
use tokio::sync::mpsc;

use super::Metadata;
use super::infer::{Decoded, Form};
use super::reply::{Gone, Reply, ReplyStream};
use crate::body::Messages;
use crate::connection::Shared;
use crate::frame::{self, Conversation, Outgoing};

/// Requests of one stream that may be read and not yet answered: the stream's backpressure.
const MAX_IN_FLIGHT: usize = 1024;

/// How a stream's messages look and in which order they are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// `ModelStreamInfer` as Triton speaks it: answers in the order of the requests.
    Triton,
    /// `kingpole.v1.Inference/Stream`: frames, answered in any order, told apart by their ids.
    Frame,
}

/// An encoded answer: at which turn, and the message.
struct Answer {
    sequence: u64,
    pieces: Vec<Bytes>,
}

/// Encodes the answer where it was made and queues it for the stream.
struct TritonReply {
    answers: mpsc::UnboundedSender<Answer>,
    sequence: u64,
    id: Option<ByteString>,
    mirror_contents: bool,
}

impl Responder for TritonReply {
    fn answer(self: Box<Self>, result: Result<InferResponse>) {
        let pieces = match result {
            Ok(mut response) => {
                response.parameters.push(("triton_final_response".into(), Parameter::Bool(true)));
                encode_stream_response_message(&response, self.mirror_contents).into_chunks().into_vec()
            }
            Err(error) => vec![encode_stream_error_message(&error, self.id.as_deref())],
        };
        // A stream that is gone has nobody to tell.
        let _ = self.answers.send(Answer { sequence: self.sequence, pieces });
    }

    fn is_cancelled(&mut self) -> bool {
        self.answers.is_closed()
    }
}

/// Who answers a stream's messages.
enum Speaker {
    Triton {
        sender: mpsc::UnboundedSender<Answer>,
        answers: mpsc::UnboundedReceiver<Answer>,
        /// Answers that came before their turn, from `next_out` on.
        early: VecDeque<Option<Answer>>,
        next_in: u64,
        next_out: u64,
    },
    Frame {
        conversation: Conversation,
        answers: mpsc::UnboundedReceiver<Outgoing>,
    },
}

impl Speaker {
    fn new(dialect: Dialect, shared: &Rc<Shared>) -> Self {
        match dialect {
            Dialect::Triton => {
                let (sender, answers) = mpsc::unbounded_channel();
                Self::Triton { sender, answers, early: VecDeque::new(), next_in: 0, next_out: 0 }
            }
            Dialect::Frame => {
                let (sender, answers) = mpsc::unbounded_channel();
                Self::Frame { conversation: Conversation::new(Rc::clone(shared), sender), answers }
            }
        }
    }

    fn in_flight(&self) -> usize {
        match self {
            Self::Triton { next_in, next_out, .. } => {
                usize::try_from(next_in - next_out).unwrap_or(usize::MAX)
            }
            Self::Frame { conversation, .. } => conversation.in_flight(),
        }
    }

    /// Take a message; an answer that is known at once is returned.
    fn receive(&mut self, message: Bytes, shared: &Shared, metadata: &Metadata) -> Vec<Bytes> {
        match self {
            Self::Triton { sender, next_in, .. } => {
                let (answers, sequence) = (sender.clone(), *next_in);
                *next_in += 1;
                match Form::Protobuf.decode(message, metadata) {
                    Ok(Decoded { request, used_contents, .. }) => {
                        let mirror_contents = used_contents && shared.configuration.mirror_contents;
                        let id = request.id.clone();
                        let responder = TritonReply { answers, sequence, id, mirror_contents };
                        shared.engine.infer(request, Instant::now(), Box::new(responder));
                    }
                    Err(error) => {
                        shared.engine.count_refused(error.code);
                        // Waits for its turn like any other.
                        let responder = TritonReply { answers, sequence, id: None, mirror_contents: false };
                        Box::new(responder).answer(Err(error));
                    }
                }
                Vec::new()
            }
            Self::Frame { conversation, .. } => {
                let answer = match kingpole_wire::frame::decode(message) {
                    Ok(frame) => conversation.receive(frame, metadata.timeout_us),
                    Err(error) => {
                        shared.engine.count_refused(error.code);
                        Some(frame::encode_error(&error, None, 0))
                    }
                };
                answer.map(frame::grpc_message).unwrap_or_default()
            }
        }
    }

    /// Move every answer whose turn it is.
    fn poll_answers(&mut self, cx: &mut Context<'_>, outgoing: &mut VecDeque<Bytes>) {
        match self {
            Self::Triton { answers, early, next_out, .. } => {
                while let Poll::Ready(Some(answer)) = answers.poll_recv(cx) {
                    let turn = usize::try_from(answer.sequence - *next_out).unwrap_or(usize::MAX);
                    if early.len() <= turn {
                        early.resize_with(turn + 1, || None);
                    }
                    early[turn] = Some(answer);
                    while let Some(answer) = early.front_mut().and_then(Option::take) {
                        early.pop_front();
                        *next_out += 1;
                        outgoing.extend(answer.pieces);
                    }
                }
            }
            Self::Frame { conversation, answers } => {
                while let Poll::Ready(Some(answer)) = answers.poll_recv(cx) {
                    if conversation.finish(&answer) {
                        outgoing.extend(frame::grpc_message(answer.frame));
                    }
                }
            }
        }
    }
}

struct InferStream {
    shared: Rc<Shared>,
    metadata: Metadata,
    messages: Messages,
    stream: ReplyStream,
    speaker: Speaker,
    outgoing: VecDeque<Bytes>,
    ended: bool,
    failure: Option<Error>,
}

/// Serve one stream until the client has ended it and every request is answered.
pub(crate) async fn serve(
    shared: Rc<Shared>,
    dialect: Dialect,
    messages: Messages,
    reply: Reply,
    metadata: Metadata,
) {
    let Some(stream) = reply.stream() else { return };
    let mut drained = std::pin::pin!(Rc::clone(&shared).drained());
    let speaker = Speaker::new(dialect, &shared);
    let outgoing = VecDeque::new();
    let mut serving =
        InferStream { shared, metadata, messages, stream, speaker, outgoing, ended: false, failure: None };
    let answered = std::future::poll_fn(|cx| {
        if !serving.ended && drained.as_mut().poll(cx).is_ready() {
            serving.ended = true;
            serving.failure = Some(Error::unavailable("the server is shutting down"));
        }
        serving.poll(cx)
    })
    .await;
    if answered {
        serving.stream.finish(serving.failure.as_ref());
    }
}

impl InferStream {
    /// Ready with true when everything was answered, with false when the client has gone.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        loop {
            let read = self.read(cx);
            self.speaker.poll_answers(cx, &mut self.outgoing);
            match self.write(cx) {
                Poll::Ready(Err(Gone)) => return Poll::Ready(false),
                Poll::Ready(Ok(())) if self.ended && self.speaker.in_flight() == 0 => {
                    return Poll::Ready(true);
                }
                // Reading stopped for want of room, and writing made some.
                Poll::Ready(Ok(())) if !read && self.has_room() => {}
                _ => break,
            }
        }
        self.stream.poll_gone(cx).map(|()| false)
    }

    fn has_room(&self) -> bool {
        // What waits to be written counts as well: a client that does not read is not read from.
        self.speaker.in_flight() + self.outgoing.len() < MAX_IN_FLIGHT
    }

    /// Read until nothing is there. False if it stopped for want of room.
    fn read(&mut self, cx: &mut Context<'_>) -> bool {
        while !self.ended {
            if !self.has_room() {
                return false;
            }
            match self.messages.poll_message(cx) {
                Poll::Pending => break,
                Poll::Ready(None) => self.ended = true,
                Poll::Ready(Some(Err(error))) => {
                    self.ended = true;
                    self.failure = Some(error);
                }
                Poll::Ready(Some(Ok(message))) => {
                    self.outgoing.extend(self.speaker.receive(message, &self.shared, &self.metadata));
                }
            }
        }
        true
    }

    /// Ready once everything was written.
    fn write(&mut self, cx: &mut Context<'_>) -> Poll<std::result::Result<(), Gone>> {
        loop {
            ready!(self.stream.poll_sent(cx))?;
            match self.outgoing.pop_front() {
                Some(piece) => self.stream.begin(piece),
                None => return Poll::Ready(Ok(())),
            }
        }
    }
}
