//! Streams of inferences: many requests in flight on one call.

use std::collections::VecDeque;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use kingpole_engine::Responder;
use kingpole_values::{ByteString, Error, InferResponse, Parameter, Result};
use kingpole_wire::grpc::{encode_stream_error_message, encode_stream_response_message};
use tokio::sync::mpsc;

use super::Metadata;
use super::infer::{Decoded, Form};
use super::messages::{MessageError, Messages};
use super::reply::{Gone, Reply, ReplyStream};
use crate::budget::{Account, Charge};
use crate::connection::Shared;
use crate::frame::{self, Conversation, Outgoing};
use crate::http2::STREAM_WINDOW_BYTES;
use crate::regions::RegionOutputs;

/// Requests of one stream that may be read and not yet answered: the stream's backpressure.
const MAX_IN_FLIGHT: usize = frame::CREDIT as usize;

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
    regions: Option<Box<RegionOutputs>>,
    memory: Arc<Account>,
}

impl TritonReply {
    /// The way back of the next request.
    fn next(answers: &mpsc::UnboundedSender<Answer>, next_in: &mut u64, shared: &Shared) -> Self {
        let sequence = *next_in;
        *next_in += 1;
        let (answers, memory) = (answers.clone(), Arc::clone(&shared.memory));
        Self { answers, sequence, id: None, mirror_contents: false, regions: None, memory }
    }
}

impl Responder for TritonReply {
    fn answer(self: Box<Self>, result: Result<InferResponse>) {
        let message = result.and_then(|mut response| {
            response.parameters.push(("triton_final_response".into(), Parameter::Bool(true)));
            let written = self.regions.as_ref().map(|regions| regions.write(&mut response)).transpose()?;
            let written = written.unwrap_or_default();
            let message = encode_stream_response_message(&response, self.mirror_contents, &written);
            let mut pieces = message.into_chunks().into_vec();
            self.memory.hold_answer(&mut pieces)?;
            Ok(pieces)
        });
        let pieces =
            message.unwrap_or_else(|error| vec![encode_stream_error_message(&error, self.id.as_deref())]);
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
                Self::Frame { conversation: Conversation::new(Rc::clone(shared), sender, None), answers }
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
                let mut responder = TritonReply::next(sender, next_in, shared);
                match Form::Protobuf.decode(message, metadata, shared) {
                    Ok(Decoded { request, used_contents, regions, .. }) => {
                        responder.regions = regions;
                        responder.mirror_contents = used_contents && shared.configuration.mirror_contents;
                        responder.id.clone_from(&request.id);
                        shared.engine.infer(request, Instant::now(), Box::new(responder));
                    }
                    Err(error) => {
                        shared.engine.count_refused(error.code);
                        // Waits for its turn like any other.
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

    /// Answer a message that was refused before it was there whole. An error ends the stream.
    fn refuse(&mut self, refused: MessageError, shared: &Shared) -> Result<Vec<Bytes>> {
        let MessageError { error, beginning } = refused;
        let Some(beginning) = beginning else { return Err(error) };
        match self {
            Self::Triton { sender, next_in, .. } => {
                shared.engine.count_refused(error.code);
                Box::new(TritonReply::next(sender, next_in, shared)).answer(Err(error));
                Ok(Vec::new())
            }
            Self::Frame { .. } => {
                // Without its number nobody knows which request is meant.
                let Some(exchange) = kingpole_wire::frame::peek_exchange(&beginning) else {
                    return Err(error);
                };
                shared.engine.count_refused(error.code);
                Ok(frame::grpc_message(frame::encode_error(&error, None, exchange)))
            }
        }
    }

    /// Whether more may be read, with so many pieces waiting to be written: a client that does not read
    /// its answers is not read from. Credit bounds the requests of frames, so that a Cancel can be read.
    fn has_room(&self, unwritten: usize) -> bool {
        let requests = match self {
            Self::Triton { .. } => self.in_flight(),
            Self::Frame { .. } => 0,
        };
        requests + unwritten < MAX_IN_FLIGHT
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
                    // What is known at once does not come this way here.
                    let Outgoing::Answer(answer) = answer else { continue };
                    outgoing.extend(frame::grpc_message(conversation.finish(answer)));
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
    /// While nothing is read, for what the client may send into its window all the same.
    paused: Option<Charge>,
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
    let mut serving = InferStream {
        speaker: Speaker::new(dialect, &shared),
        shared,
        metadata,
        messages,
        stream,
        outgoing: VecDeque::new(),
        ended: false,
        failure: None,
        paused: None,
    };
    if dialect == Dialect::Frame {
        serving.outgoing.extend(frame::grpc_message(frame::grant()));
    }
    let answered = std::future::poll_fn(|cx| {
        if !serving.ended && drained.as_mut().poll(cx).is_ready() {
            serving.end(Error::unavailable("the server is shutting down"));
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
                Poll::Ready(Ok(())) if !read && self.speaker.has_room(self.outgoing.len()) => {}
                _ => break,
            }
        }
        self.stream.poll_gone(cx).map(|()| false)
    }

    /// Read until nothing is there. False if it stopped for want of room.
    fn read(&mut self, cx: &mut Context<'_>) -> bool {
        while !self.ended {
            if !self.speaker.has_room(self.outgoing.len()) {
                if let Err(error) = self.pause() {
                    self.end(error);
                }
                return false;
            }
            self.paused = None;
            match self.messages.poll_message(cx) {
                Poll::Pending => break,
                Poll::Ready(None) => self.ended = true,
                Poll::Ready(Some(Err(refused))) => match self.speaker.refuse(refused, &self.shared) {
                    Ok(answer) => self.outgoing.extend(answer),
                    Err(error) => self.end(error),
                },
                Poll::Ready(Some(Ok(message))) => {
                    self.outgoing.extend(self.speaker.receive(message, &self.shared, &self.metadata));
                }
            }
        }
        true
    }

    fn end(&mut self, error: Error) {
        self.ended = true;
        self.failure = Some(error);
    }

    fn pause(&mut self) -> Result<()> {
        if self.paused.is_none() {
            let mut charge = self.shared.memory.open();
            charge.cover(STREAM_WINDOW_BYTES as usize)?;
            self.paused = Some(charge);
        }
        Ok(())
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
