//! What frames on one stream say to each other. Knows no socket: frames in, encoded frames out.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use kingpole_engine::Responder;
use kingpole_values::{ByteString, Code, Error, InferRequest, InferResponse, Parameters, Result};
use kingpole_wire::Scatter;
use kingpole_wire::frame::{self, Frame, Message, Metadata, ModelName, ServerInfo, TensorSpec};

use super::arenas::{self, Arenas, Place};
use super::{encode_error, no_shared_memory};
use crate::budget::Account;
use crate::classification;
use crate::connection::Shared;
use crate::outlet::{Outlet, Want, Wanted, want};
use crate::{forward, respond};

/// Requests that a client may have open on one stream.
///
/// Source: protocol/spec/messages.md, rule 2.
pub(crate) const CREDIT: u32 = 1024;

/// What a stream begins with: the client's credit. One request needs none, so that there can be a first.
pub(crate) fn grant() -> Scatter {
    frame::encode_credit(CREDIT - 1)
}

/// What is on its way to the client, encoded.
pub(crate) enum Outgoing {
    /// What inference gave.
    Answer(Answer),
    /// What was known at once.
    AtOnce(Scatter),
    /// Nothing comes after this.
    End,
}

/// An encoded answer of an inference.
pub(crate) struct Answer {
    exchange: u64,
    frame: Scatter,
    /// Whether others follow.
    part: bool,
}

/// One stream's exchanges.
///
/// Every request received is answered by exactly one frame that is no part, unless the client cancelled it.
pub(crate) struct Conversation {
    shared: Rc<Shared>,
    answers: Outlet<Outgoing>,
    /// `None` for those that the client has cancelled.
    in_flight: HashMap<u64, Option<Want>>,
    /// Where the stream can carry shared memory.
    arenas: Option<Arenas>,
}

impl Conversation {
    pub(crate) fn new(shared: Rc<Shared>, answers: Outlet<Outgoing>, arenas: Option<Arenas>) -> Self {
        Self { shared, answers, in_flight: HashMap::new(), arenas }
    }

    /// Inference requests whose last answer was not yet given to `finish`.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// An answer was taken for writing: gives what is to be written. The place of an answer that the client
    /// no longer wants is taken by the credit that the answer would have given back.
    pub(crate) fn finish(&mut self, answer: Answer) -> Option<Scatter> {
        if answer.part {
            let wanted = self.in_flight.get(&answer.exchange).is_some_and(Option::is_some);
            return wanted.then_some(answer.frame);
        }
        let cancelled = self.in_flight.remove(&answer.exchange).is_some_and(|want| want.is_none());
        Some(if cancelled { frame::encode_cancelled(answer.exchange) } else { answer.frame })
    }

    /// Take a frame. Answers that are known at once are returned, others come through the channel.
    pub(crate) fn receive(
        &mut self,
        frame: Frame,
        timeout_us: Option<u64>,
        forwarded: &Parameters,
    ) -> Option<Scatter> {
        let exchange = frame.exchange;
        let engine = &self.shared.engine;
        let answered = match frame.message {
            Message::Request { mut request, shared, places } => {
                forward::add(forwarded, &mut request.parameters);
                let id = request.id.clone();
                let filled = match &self.arenas {
                    _ if shared.is_empty() && places.is_empty() => Ok(Vec::new()),
                    Some(arenas) => arenas.fill(&mut request, &shared, &places),
                    None => Err(no_shared_memory()),
                };
                return match filled.and_then(|places| self.infer(request, places, timeout_us, exchange)) {
                    Ok(()) => None,
                    Err(error) => {
                        self.shared.engine.count_refused(error.code);
                        Some(encode_error(&error, id.as_deref(), exchange))
                    }
                };
            }
            Message::Cancel => {
                if let Some(want) = self.in_flight.get_mut(&exchange) {
                    *want = None;
                }
                return None;
            }
            // A server sends nothing that a client would have to grant.
            Message::Credit { .. } => return None,
            Message::ReadyRequest(asked) if asked.model.is_empty() => {
                Ok(frame::encode_ready(engine.is_ready(), exchange))
            }
            Message::ReadyRequest(asked) => engine
                .model_ready(&asked.model, asked.version.as_deref())
                .map(|ready| frame::encode_ready(ready, exchange)),
            Message::ServerInfoRequest => Ok(frame::encode_server_info(&self.server_info(), exchange)),
            Message::MetadataRequest(asked) => {
                self.metadata(&asked).map(|metadata| frame::encode_metadata(&metadata, exchange))
            }
            Message::HandOver { arena, nbytes } => self
                .arenas
                .as_mut()
                .ok_or_else(no_shared_memory)
                .and_then(|arenas| arenas.take(arena, nbytes))
                .map(|()| frame::encode_done(exchange)),
            Message::Release { arena } => self
                .arenas
                .as_mut()
                .ok_or_else(no_shared_memory)
                .and_then(|arenas| arenas.release(arena))
                .map(|()| frame::encode_done(exchange)),
            Message::Unknown(kind) => Err(Error::new(
                Code::Unimplemented,
                format!("messages of kind {kind} are not known to this server"),
            )),
            Message::Response { .. }
            | Message::Error(_)
            | Message::Ready(_)
            | Message::Done
            | Message::ServerInfo(_)
            | Message::Metadata(_) => Err(Error::invalid("a client does not send answers")),
        };
        Some(answered.unwrap_or_else(|error| encode_error(&error, None, exchange)))
    }

    fn infer(
        &mut self,
        mut request: InferRequest,
        places: Vec<Place>,
        timeout_us: Option<u64>,
        exchange: u64,
    ) -> Result<()> {
        respond::shorten(&mut request, timeout_us);
        if self.in_flight.contains_key(&exchange) {
            return Err(Error::invalid(format!("exchange {exchange} is already in flight")));
        }
        if self.in_flight.len() >= CREDIT as usize {
            return Err(Error::exhausted(format!(
                "more than the {CREDIT} requests that this stream was granted are open"
            )));
        }
        let (want, wanted) = want();
        self.in_flight.insert(exchange, Some(want));
        let responder = FrameReply {
            answers: self.answers.clone(),
            exchange,
            id: request.id.clone(),
            wanted,
            places,
            memory: Arc::clone(&self.shared.memory),
            failure: None,
        };
        classification::infer(&self.shared.engine, request, Instant::now(), Box::new(responder));
        Ok(())
    }

    fn server_info(&self) -> ServerInfo {
        let info = self.shared.engine.info();
        ServerInfo {
            name: info.name.into(),
            version: info.version.into(),
            extensions: info.extensions.iter().map(|&extension| extension.into()).collect(),
            max_frame_bytes: self.shared.configuration.max_body_bytes as u64,
        }
    }

    fn metadata(&self, asked: &ModelName) -> Result<Metadata> {
        let engine = &self.shared.engine;
        let specification = engine.model(&asked.model, asked.version.as_deref())?;
        let tensors = |specifications: &[kingpole_engine::TensorSpec]| {
            let tensor = |tensor: &kingpole_engine::TensorSpec| TensorSpec {
                name: tensor.name.clone(),
                datatype: tensor.datatype,
                shape: tensor.shape.clone(),
                optional: tensor.optional,
            };
            specifications.iter().map(tensor).collect()
        };
        Ok(Metadata {
            name: specification.name.clone(),
            versions: engine.versions(&specification.name),
            platform: specification.platform.as_str().into(),
            inputs: tensors(&specification.inputs),
            outputs: tensors(&specification.outputs),
            max_batch_size: specification.max_batch_size,
            description: specification.description.as_str().into(),
        })
    }
}

/// Encodes the answer where it was made and queues it for the stream.
struct FrameReply {
    answers: Outlet<Outgoing>,
    exchange: u64,
    id: Option<ByteString>,
    wanted: Wanted,
    places: Vec<Place>,
    memory: Arc<Account>,
    /// Why a part could not be given: said at the end.
    failure: Option<Error>,
}

impl FrameReply {
    fn encode(&self, response: &InferResponse) -> Result<Scatter> {
        let written = arenas::write(&self.places, response);
        let mut frame = frame::encode_response(response, &written, self.exchange);
        self.memory.hold_answer(frame.chunks_mut())?;
        Ok(frame)
    }
}

impl Responder for FrameReply {
    fn answer(mut self: Box<Self>, result: Result<InferResponse>) {
        let result = self.failure.take().map_or(result, Err);
        let frame = result.and_then(|response| self.encode(&response));
        let frame = frame.unwrap_or_else(|error| encode_error(&error, self.id.as_deref(), self.exchange));
        self.answers.put(Outgoing::Answer(Answer { exchange: self.exchange, frame, part: false }));
    }

    fn is_cancelled(&mut self) -> bool {
        self.failure.is_some() || self.wanted.is_cancelled()
    }

    fn poll_cancelled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.wanted.poll_cancelled(cx)
    }

    fn takes_parts(&self) -> bool {
        true
    }

    fn part(&mut self, response: InferResponse) {
        match self.encode(&response) {
            Ok(frame) => {
                let (nbytes, exchange) = (frame.len(), self.exchange);
                self.answers.put_part(Outgoing::Answer(Answer { exchange, frame, part: true }), nbytes);
            }
            Err(error) => self.failure = Some(error),
        }
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.answers.poll_ready(cx)
    }
}
