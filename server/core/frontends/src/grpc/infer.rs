//! One inference over gRPC: decoded where the connection is read, answered from wherever it was run.

use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use kingpole_engine::Responder;
use kingpole_values::{Code, Error, InferRequest, InferResponse};
use kingpole_wire::Scatter;

use kingpole_wire::grpc::{GrpcInferRequest, encode_infer_response_message};

use super::Metadata;
use super::messages::{MessageError, Messages};
use super::reply::{PREFIX_BYTES, Reply};
use crate::budget::Account;
use crate::coding::Coding;
use crate::connection::Shared;
use crate::http2::unless_reset;
use crate::regions::{self, RegionOutputs};
use crate::{classification, forward, frame, pack, respond};

/// How a message holds a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// `ModelInferRequest`.
    Protobuf,
    /// A Kingpole frame.
    Frame,
}

/// A request and how its answer is to be written.
pub(crate) struct Decoded {
    pub(crate) request: InferRequest,
    pub(crate) used_contents: bool,
    /// Whether the end of several responses is told by one without outputs.
    pub(crate) empty_final_response: bool,
    /// What a frame's answer repeats.
    pub(crate) exchange: u64,
    /// Outputs that go to shared memory.
    pub(crate) regions: Option<Box<RegionOutputs>>,
}

impl Form {
    pub(crate) fn decode(
        self,
        message: Bytes,
        metadata: &Metadata,
        shared: &Shared,
    ) -> kingpole_values::Result<Decoded> {
        let mut decoded = match self {
            Self::Protobuf => {
                let GrpcInferRequest { mut request, regions, used_contents, empty_final_response } =
                    kingpole_wire::grpc::decode_infer_request(message)?;
                let regions = regions::fill(&mut request, regions, shared)?;
                Decoded { request, used_contents, empty_final_response, exchange: 0, regions }
            }
            Self::Frame => {
                let (request, exchange) = frame::decode_request(message)?;
                let (used_contents, empty_final_response) = (false, false);
                Decoded { request, used_contents, empty_final_response, exchange, regions: None }
            }
        };
        respond::shorten(&mut decoded.request, metadata.timeout_us);
        forward::add(&metadata.forwarded, &mut decoded.request.parameters);
        Ok(decoded)
    }
}

/// A call whose request may still be on its way.
pub(crate) struct InferCall {
    pub(crate) form: Form,
    pub(crate) messages: Messages,
    pub(crate) metadata: Metadata,
    pub(crate) received: Instant,
}

impl InferCall {
    /// Read, decode and queue. A small request is there whole with its header, so that this needs no
    /// task; only what has to wait gets one.
    pub(crate) fn begin(mut self, cx: &mut Context<'_>, shared: &Rc<Shared>, reply: Reply) {
        match self.messages.poll_message(cx) {
            Poll::Ready(message) => self.infer(message, shared, reply),
            Poll::Pending => {
                let shared = Rc::clone(shared);
                tokio::task::spawn_local(async move {
                    let message = std::future::poll_fn(|cx| self.messages.poll_message(cx));
                    match tokio::time::timeout(shared.configuration.body_timeout, message).await {
                        Ok(message) => self.infer(message, &shared, reply),
                        Err(_) => reply.error(&Error::new(
                            Code::DeadlineExceeded,
                            "the client took too long to send its request",
                        )),
                    }
                });
            }
        }
    }

    fn infer(self, message: Option<Result<Bytes, MessageError>>, shared: &Rc<Shared>, reply: Reply) {
        let is_whole = matches!(message, Some(Ok(_)));
        let decoded = message
            .unwrap_or_else(|| Err(Error::invalid("the call has no request message").into()))
            .map_err(Error::from)
            .and_then(|message| self.form.decode(message, &self.metadata, shared));
        match decoded {
            Ok(Decoded { request, used_contents, exchange, regions, .. }) => {
                let mirror_contents = used_contents && shared.configuration.mirror_contents;
                let memory = Arc::clone(&shared.memory);
                let writing = Writing { form: self.form, mirror_contents, exchange, regions };
                let packed = self.messages.coding_of_last().filter(|_| self.metadata.accepts_own_coding);
                self.messages.finish();
                if let Some(coding) = packed {
                    let call = PackedCall { writing, coding, reply, received: self.received };
                    tokio::task::spawn_local(call.infer(request, Rc::clone(shared)));
                    return;
                }
                let responder = InferReply { reply, writing, memory };
                classification::infer(&shared.engine, request, self.received, Box::new(responder));
            }
            Err(error) => {
                shared.engine.count_refused(error.code);
                reply.error(&error);
                if is_whole {
                    self.messages.finish();
                }
            }
        }
    }
}

/// Writes the answer straight into the HTTP/2 stream: the connection wakes up and sends it.
struct InferReply {
    reply: Reply,
    writing: Writing,
    memory: Arc<Account>,
}

/// How an answer is to be written.
struct Writing {
    form: Form,
    mirror_contents: bool,
    exchange: u64,
    regions: Option<Box<RegionOutputs>>,
}

impl Writing {
    fn encode(&self, mut response: InferResponse, memory: &Arc<Account>) -> kingpole_values::Result<Scatter> {
        let mut message = match self.form {
            Form::Protobuf => {
                let written = match &self.regions {
                    Some(regions) => regions.write(&mut response)?,
                    None => Vec::new(),
                };
                encode_infer_response_message(&response, self.mirror_contents, &written)
            }
            Form::Frame => kingpole_wire::frame::encode_response(&response, &[], self.exchange),
        };
        memory.hold_answer(message.chunks_mut())?;
        Ok(message)
    }
}

impl Responder for InferReply {
    fn answer(self: Box<Self>, result: kingpole_values::Result<InferResponse>) {
        let message = result.and_then(|response| self.writing.encode(response, &self.memory));
        match (message, self.writing.form) {
            (Ok(message), Form::Protobuf) => self.reply.message(message.into_chunks()),
            (Ok(frame), Form::Frame) => self.reply.message(frame::grpc_message(frame)),
            (Err(error), _) => self.reply.error(&error),
        }
    }

    fn is_cancelled(&mut self) -> bool {
        self.reply.is_cancelled()
    }

    fn poll_cancelled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.reply.poll_cancelled(cx)
    }
}

/// A call whose answer is compressed, as its request was. Compressing takes turns, so that this is a task.
struct PackedCall {
    writing: Writing,
    coding: Coding,
    reply: Reply,
    received: Instant,
}

impl PackedCall {
    async fn infer(self, request: InferRequest, shared: Rc<Shared>) {
        let Self { writing, coding, mut reply, received } = self;
        let infer = async {
            let response = respond::infer(&shared.engine, request, received).await?;
            let message = writing.encode(response, &shared.memory)?;
            let pieces = match writing.form {
                Form::Protobuf => message.into_chunks().into_vec(),
                Form::Frame => frame::grpc_message(message),
            };
            let packed = match pieces.iter().map(Bytes::len).sum::<usize>() {
                0..pack::LEAST_BYTES => None,
                _ => pack::pack(coding, &without_prefix(&pieces), false).await,
            };
            let mut packed = packed.as_slice().to_vec();
            shared.memory.hold_answer(&mut packed)?;
            Ok((pieces, packed.pop()))
        };
        match unless_reset(std::pin::pin!(infer), reply.respond()).await {
            None => {}
            Some(Ok((_, Some(packed)))) => reply.packed_message(coding, packed),
            Some(Ok((pieces, None))) => reply.message(pieces),
            Some(Err(error)) => reply.error(&error),
        }
    }
}

fn without_prefix(pieces: &[Bytes]) -> Vec<Bytes> {
    let mut skipped = PREFIX_BYTES;
    let rest = |piece: &Bytes| {
        let skip = skipped.min(piece.len());
        skipped -= skip;
        piece.slice(skip..)
    };
    pieces.iter().map(rest).collect()
}
