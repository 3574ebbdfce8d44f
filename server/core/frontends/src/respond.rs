//! The way back of a request that a future waits for.

use std::time::Instant;

use http::HeaderMap;
use kingpole_engine::{ControlRequest, Engine, Responder};
use kingpole_values::{Error, InferRequest, InferResponse, Result};
use tokio::sync::oneshot;

/// Answers a waiting future; dropping the future cancels the request.
struct Waiter(oneshot::Sender<Result<InferResponse>>);

impl Responder for Waiter {
    fn answer(self: Box<Self>, result: Result<InferResponse>) {
        // The client has gone, so that there is nobody to tell.
        let _ = self.0.send(result);
    }

    fn is_cancelled(&mut self) -> bool {
        self.0.is_closed()
    }
}

/// Infer and wait for the answer.
pub(crate) async fn infer(
    engine: &Engine,
    request: InferRequest,
    received: Instant,
) -> Result<InferResponse> {
    let (sender, answer) = oneshot::channel();
    engine.infer(request, received, Box::new(Waiter(sender)));
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
