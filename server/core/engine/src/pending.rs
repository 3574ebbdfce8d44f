//! A request on its way through the core, and its way back.

use std::sync::Arc;

use kingpole_values::{ByteString, Code, Error, InferResponse, Parameters, Result, Tensor, Timing};
use smallvec::SmallVec;

use crate::Model;

/// The way back of one request. Called exactly once.
pub trait Responder: Send {
    /// Give the answer.
    fn answer(self: Box<Self>, result: Result<InferResponse>);

    /// Whether the client has gone. A request that nobody waits for is dropped from its queue.
    fn is_cancelled(&mut self) -> bool {
        false
    }
}

/// Holds a responder until it is used. Dropped unused, it answers `INTERNAL`, so that a fault of
/// ours is seen as an error and never as silence.
pub(crate) struct Answer(Option<Box<dyn Responder>>);

impl Answer {
    pub fn new(responder: Box<dyn Responder>) -> Self {
        Self(Some(responder))
    }

    pub fn give(mut self, result: Result<InferResponse>) {
        if let Some(responder) = self.0.take() {
            responder.answer(result);
        }
    }

    pub fn is_cancelled(&mut self) -> bool {
        self.0.as_mut().is_some_and(|responder| responder.is_cancelled())
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if let Some(responder) = self.0.take() {
            responder.answer(Err(Error::internal("the request was dropped unanswered; this is a bug")));
        }
    }
}

/// One admitted request.
pub(crate) struct Pending {
    pub model: Arc<Model>,
    /// The reactor that admitted it; its metrics are counted there.
    pub reactor: usize,
    pub inputs: SmallVec<[Option<Tensor>; 2]>,
    pub outputs: SmallVec<[u16; 4]>,
    pub rows: u32,
    pub bytes: usize,
    pub id: Option<ByteString>,
    pub parameters: Parameters,
    pub enqueued_us: u64,
    pub deadline_us: Option<u64>,
    /// How often it was handed to something that then went away.
    pub attempts: u8,
    /// Must run in a batch of its own: it was part of one that failed.
    pub alone: bool,
    pub answer: Answer,
}

impl Pending {
    /// Whether both may ride in one batch: same inputs present, same shape but for dimension 0.
    pub fn joins(&self, head: &Self) -> bool {
        self.inputs.iter().zip(&head.inputs).all(|pair| match pair {
            (Some(mine), Some(theirs)) => mine.shape.get(1..) == theirs.shape.get(1..),
            (None, None) => true,
            _ => false,
        })
    }

    pub fn is_expired(&self, now_us: u64) -> bool {
        self.deadline_us.is_some_and(|deadline_us| deadline_us <= now_us)
    }

    /// Answer with this request's own rows of a batch's outputs.
    pub fn respond(self, rows: Vec<Tensor>, timing: Timing, now_us: u64) {
        let total_us = now_us.saturating_sub(self.enqueued_us);
        self.model.metrics.record_success(self.reactor, total_us, timing.queue_us);
        let response = InferResponse {
            model: self.model.spec.name.clone(),
            version: self.model.spec.version.clone(),
            id: self.id,
            outputs: rows,
            parameters: Vec::new(),
            timing,
        };
        self.answer.give(Ok(response));
    }

    /// Answer that the deadline has passed.
    pub fn expire(self, now_us: u64) {
        let message = format!(
            "the deadline passed {} µs after the request arrived, before model '{}' answered",
            now_us.saturating_sub(self.enqueued_us),
            self.model.spec.name
        );
        self.fail(Error::new(Code::DeadlineExceeded, message), now_us);
    }

    /// Answer with an error.
    pub fn fail(self, error: Error, now_us: u64) {
        let total_us = now_us.saturating_sub(self.enqueued_us);
        self.model.metrics.record_failure(self.reactor, error.code, total_us);
        self.answer.give(Err(error));
    }

    /// End a request whose client has gone: there is nobody to tell.
    pub fn discard(self, now_us: u64) {
        self.fail(Error::new(Code::Cancelled, "the client has gone"), now_us);
    }
}
