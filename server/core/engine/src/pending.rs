//! A request on its way through the core, and its way back.

use std::sync::Arc;
use std::task::{Context, Poll};

use kingpole_values::{
    ByteString, Code, Error, InferResponse, Parameters, Result, Sequence, Stage, Tensor, Timing,
};
use smallvec::SmallVec;
use tokio::sync::oneshot;

use crate::metrics::ResponseEvent;
use crate::{Model, Trace};

/// The way back of one request. Called exactly once.
pub trait Responder: Send {
    /// Give the answer.
    fn answer(self: Box<Self>, result: Result<InferResponse>);

    /// Whether the client has gone. A request that nobody waits for is dropped from its queue.
    fn is_cancelled(&mut self) -> bool {
        false
    }

    /// Ready when the client has gone; until then `cx` is told of it, where that can be seen.
    fn poll_cancelled(&mut self, _cx: &mut Context<'_>) -> Poll<()> {
        if self.is_cancelled() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Whether it can be given several responses, as a decoupled model makes them.
    fn takes_parts(&self) -> bool {
        false
    }

    /// Give one response of several. `answer` still comes: with an error, or with the end.
    fn part(&mut self, _response: InferResponse) {}

    /// Ready when it can be given another part, or when its client has gone; until then the model waits.
    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }
}

struct Waiter(oneshot::Sender<Result<InferResponse>>);

impl Responder for Waiter {
    fn answer(self: Box<Self>, result: Result<InferResponse>) {
        // Whoever asked has gone, so that there is nobody to tell.
        let _ = self.0.send(result);
    }

    fn is_cancelled(&mut self) -> bool {
        self.0.is_closed()
    }

    fn poll_cancelled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.poll_closed(cx)
    }
}

/// A way back that somebody waits at the other end of. Dropping that end cancels the request.
pub fn waiter() -> (Box<dyn Responder>, oneshot::Receiver<Result<InferResponse>>) {
    let (sender, answer) = oneshot::channel();
    (Box::new(Waiter(sender)), answer)
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

    pub fn poll_cancelled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().map_or(Poll::Pending, |responder| responder.poll_cancelled(cx))
    }

    pub fn takes_parts(&self) -> bool {
        self.0.as_ref().is_some_and(|responder| responder.takes_parts())
    }

    fn part(&mut self, response: InferResponse) {
        if let Some(responder) = &mut self.0 {
            responder.part(response);
        }
    }

    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().map_or(Poll::Ready(()), |responder| responder.poll_ready(cx))
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
    /// Inputs lie in memory that others may write to: what runs with them takes a copy.
    pub inputs_may_change: bool,
    pub id: Option<ByteString>,
    pub parameters: Parameters,
    pub enqueued_us: u64,
    pub deadline_us: Option<u64>,
    /// How often it was handed to something that then went away.
    pub attempts: u8,
    /// Responses given so far, of a decoupled model.
    pub given: u32,
    /// When the last of them was given.
    pub given_us: u64,
    /// Must run in a batch of its own: it was part of one that failed.
    pub alone: bool,
    /// Where it stands in a sequence, for a model that keeps them.
    pub sequence: Option<Sequence>,
    /// Whether it is in a batch; only kept for models that keep sequences.
    pub in_batch: bool,
    /// Why it can never run.
    pub doom: Option<Error>,
    /// Tells whoever relays its responses that it is answered: closed when this is dropped.
    pub relayed: Option<oneshot::Sender<()>>,
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

    fn response(&mut self, outputs: Vec<Tensor>, timing: Timing, stage: Stage) -> InferResponse {
        InferResponse {
            model: self.model.spec.name.clone(),
            version: self.model.spec.version.clone(),
            id: if stage == Stage::Part { self.id.clone() } else { self.id.take() },
            outputs,
            parameters: Vec::new(),
            timing,
            stage,
        }
    }

    /// Answer with this request's own rows of a batch's outputs; with none of them, at the end of its parts.
    pub fn respond(mut self, rows: Vec<Tensor>, timing: Timing, now_us: u64) {
        let total_us = now_us.saturating_sub(self.enqueued_us);
        self.model.metrics.record_success(self.reactor, total_us, timing.queue_us, timing.execute_us);
        self.trace(&timing, now_us);
        let stage = if self.model.spec.decoupled {
            self.count_response(ResponseEvent::Ended, now_us);
            Stage::End
        } else {
            Stage::Only
        };
        let response = self.response(rows, timing, stage);
        self.answer.give(Ok(response));
    }

    fn trace(&self, timing: &Timing, answered_us: u64) {
        let scope = self.model.trace.load();
        let Some(scope) = scope.as_ref().filter(|scope| scope.takes()) else { return };
        let started_us = self.enqueued_us + timing.queue_us;
        scope.give(Trace {
            number: 0,
            model: self.model.spec.name.clone(),
            version: self.model.spec.version.clone(),
            id: self.id.clone(),
            enqueued_us: self.enqueued_us,
            started_us,
            ended_us: (started_us + timing.execute_us).min(answered_us),
            answered_us,
        });
    }

    fn count_response(&self, event: ResponseEvent, now_us: u64) {
        self.model.metrics.record_response(self.given, event, now_us.saturating_sub(self.given_us));
    }

    /// Give one response of several, of an execution that began then.
    pub fn respond_part(&mut self, outputs: Vec<Tensor>, timing: Timing, started_us: u64, now_us: u64) {
        self.given_us = self.given_us.max(started_us);
        self.count_response(ResponseEvent::Given, now_us);
        (self.given, self.given_us) = (self.given.saturating_add(1), now_us);
        let response = self.response(outputs, timing, Stage::Part);
        self.answer.part(response);
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
        if self.model.spec.decoupled {
            let cancelled = error.code == Code::Cancelled;
            let event = if cancelled { ResponseEvent::Cancelled } else { ResponseEvent::Failed };
            self.count_response(event, now_us);
        }
        self.answer.give(Err(error));
    }

    /// End a request whose client has gone: there is nobody to tell.
    pub fn discard(self, now_us: u64) {
        self.fail(Error::new(Code::Cancelled, "the client has gone"), now_us);
    }
}
