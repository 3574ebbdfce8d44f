//! Streams of inferences: many requests in flight on one call.

use std::collections::VecDeque;
use std::future::Future;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use kingpole_values::{Error, Result};

use super::Metadata;
use super::messages::{MessageError, Messages};
use super::open_inference::{Exchange, Taken};
use super::reply::{Reply, ReplyStream};
use crate::StreamDialect;
use crate::budget::Charge;
use crate::connection::Shared;
use crate::frame::{self, Conversation, Outgoing};
use crate::http2::{Gone, STREAM_WINDOW_BYTES};
use crate::outlet::{Outflow, outlet};

/// Requests of one stream that may be read and not yet answered: the stream's backpressure.
const MAX_IN_FLIGHT: usize = frame::CREDIT as usize;

/// Pieces that may wait between being taken and being written.
const FEW_PIECES: usize = 16;

/// How a stream's messages look and in which order they are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// `ModelStreamInfer`, with either of its messages.
    OpenInference {
        dialect: StreamDialect,
        /// Whether an error of a model ends the stream with its status.
        errors_end_the_stream: bool,
    },
    /// `kingpole.v1.Inference/Stream`: frames, answered in any order, told apart by their ids.
    Frame,
}

/// Who answers a stream's messages.
enum Speaker {
    OpenInference(Exchange),
    Frame { conversation: Conversation, answers: Outflow<Outgoing> },
}

impl Speaker {
    fn new(dialect: Dialect, shared: &Rc<Shared>) -> Self {
        match dialect {
            Dialect::OpenInference { dialect, errors_end_the_stream } => {
                Self::OpenInference(Exchange::new(dialect, errors_end_the_stream, Rc::clone(shared)))
            }
            Dialect::Frame => {
                let (sender, answers) = outlet();
                Self::Frame { conversation: Conversation::new(Rc::clone(shared), sender, None), answers }
            }
        }
    }

    fn in_flight(&self) -> usize {
        match self {
            Self::OpenInference(exchange) => exchange.in_flight(),
            Self::Frame { conversation, .. } => conversation.in_flight(),
        }
    }

    /// Take a message; an answer that is known at once is returned.
    fn receive(&mut self, message: Bytes, shared: &Shared, metadata: &Metadata) -> Vec<Bytes> {
        match self {
            Self::OpenInference(exchange) => {
                exchange.receive(message, metadata);
                Vec::new()
            }
            Self::Frame { conversation, .. } => {
                let answer = match kingpole_wire::frame::decode(message) {
                    Ok(frame) => conversation.receive(frame, metadata.timeout_us, &metadata.forwarded),
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
            Self::OpenInference(exchange) => {
                exchange.refuse(error);
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
            Self::OpenInference(exchange) => exchange.in_flight(),
            Self::Frame { .. } => 0,
        };
        requests + unwritten < MAX_IN_FLIGHT
    }

    /// Take answers for writing, but no more than a few: those left behind hold up whoever makes more.
    fn poll_answers(&mut self, cx: &mut Context<'_>, outgoing: &mut VecDeque<Bytes>) -> Taken {
        match self {
            Self::OpenInference(exchange) => exchange.poll_answers(cx, outgoing),
            Self::Frame { conversation, answers } => {
                while outgoing.len() < FEW_PIECES {
                    let Poll::Ready(Some(answer)) = answers.poll_next(cx) else { return Taken::All };
                    // What is known at once does not come this way here.
                    let Outgoing::Answer(answer) = answer else { continue };
                    outgoing.extend(conversation.finish(answer).into_iter().flat_map(frame::grpc_message));
                }
                Taken::Enough
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
            let taken = self.speaker.poll_answers(cx, &mut self.outgoing);
            let enough = matches!(taken, Taken::Enough);
            if let Taken::Fatal(error) = taken {
                self.end(error);
            }
            match self.write(cx) {
                Poll::Ready(Err(Gone)) => return Poll::Ready(false),
                Poll::Ready(Ok(())) if self.ended && self.speaker.in_flight() == 0 => {
                    return Poll::Ready(true);
                }
                // Taking answers or reading stopped for want of room, and writing made some.
                Poll::Ready(Ok(())) if enough => {}
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
