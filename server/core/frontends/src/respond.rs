//! The way back of a request that a future waits for.

use std::task::{Context, Poll};
use std::time::Instant;

use http::HeaderMap;
use kingpole_engine::{ControlRequest, Engine, Responder, waiter};
use kingpole_values::{Error, InferRequest, InferResponse, Result};

use crate::classification;
use crate::outlet::{Outflow, Outlet, Want, Wanted, outlet, want};

/// What the names of parameters begin with whose values are a model's files.
pub(crate) const FILE: &str = "file:";

/// Gives any number of responses to whoever holds the other end.
struct Speaker {
    responses: Outlet<Result<InferResponse>>,
    wanted: Wanted,
}

impl Responder for Speaker {
    fn answer(self: Box<Self>, result: Result<InferResponse>) {
        self.responses.put(result);
    }

    fn is_cancelled(&mut self) -> bool {
        self.wanted.is_cancelled()
    }

    fn poll_cancelled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.wanted.poll_cancelled(cx)
    }

    fn takes_parts(&self) -> bool {
        true
    }

    fn part(&mut self, response: InferResponse) {
        let nbytes = response.outputs.iter().map(|output| output.data.len()).sum();
        self.responses.put_part(Ok(response), nbytes);
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.responses.poll_ready(cx)
    }
}

/// The responses to one request, as they come; dropping this cancels the request.
pub(crate) struct Responses {
    responses: Outflow<Result<InferResponse>>,
    _want: Want,
}

impl Responses {
    /// The next response, an error, or the end; `None` after the last of them.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<InferResponse>>> {
        self.responses.poll_next(cx)
    }

    pub(crate) async fn next(&mut self) -> Option<Result<InferResponse>> {
        self.responses.next().await
    }
}

/// Infer, whether it is answered by one response or by many.
pub(crate) fn stream(engine: &Engine, request: InferRequest, received: Instant) -> Responses {
    let ((sender, responses), (want, wanted)) = (outlet(), want());
    classification::infer(engine, request, received, Box::new(Speaker { responses: sender, wanted }));
    Responses { responses, _want: want }
}

/// Infer and wait for the answer.
pub(crate) async fn infer(
    engine: &Engine,
    request: InferRequest,
    received: Instant,
) -> Result<InferResponse> {
    let (responder, answer) = waiter();
    classification::infer(engine, request, received, responder);
    answer.await.unwrap_or_else(|_| Err(Error::internal("the request was dropped unanswered")))
}

/// Ask for a change of the repository and wait until it is made.
pub(crate) async fn control(engine: &Engine, request: ControlRequest) -> Result<()> {
    let nobody = || Error::unavailable("loading and unloading models is not enabled on this server");
    engine.control(request)?.await.unwrap_or_else(|_| Err(nobody()))
}

/// What the header `kingpole-timeout-us` says.
pub(crate) fn timeout_us(headers: &HeaderMap) -> Result<Option<u64>> {
    let Some(value) = headers.get("kingpole-timeout-us") else { return Ok(None) };
    let timeout_us = value.to_str().ok().and_then(|text| text.parse().ok());
    timeout_us.map(Some).ok_or_else(|| Error::invalid("the header kingpole-timeout-us is not a number"))
}

/// Give a request the shorter of its own timeout and that of what carried it.
pub(crate) fn shorten(request: &mut InferRequest, timeout_us: Option<u64>) {
    request.timeout_us = match (request.timeout_us, timeout_us) {
        (Some(own), Some(carried)) => Some(own.min(carried)),
        (own, carried) => own.or(carried),
    };
}
