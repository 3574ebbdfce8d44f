//! `grpc.health.v1`: the server, and each model by its name.

use std::rc::Rc;

use kingpole_engine::Engine;
use kingpole_values::Error;
use kingpole_wire::grpc::proto::health::health_check_response::ServingStatus;
use kingpole_wire::grpc::proto::health::{HealthCheckRequest, HealthCheckResponse};
use prost::Message;

use super::messages::Messages;
use super::reply::{self, Reply};
use crate::connection::Shared;

const SERVICES: [&str; 4] =
    ["", "inference.GRPCInferenceService", "kingpole.v1.Inference", "grpc.health.v1.Health"];

/// The status of a service or model; `None` for one nobody has heard of.
fn status(engine: &Engine, service: &str) -> Option<ServingStatus> {
    let serving = if SERVICES.contains(&service) {
        engine.is_ready()
    } else {
        engine.model_ready(service, None).ok()? && !engine.is_draining()
    };
    Some(if serving { ServingStatus::Serving } else { ServingStatus::NotServing })
}

pub(crate) fn check(engine: &Engine, request: &HealthCheckRequest) -> Result<HealthCheckResponse, Error> {
    let status = status(engine, &request.service)
        .ok_or_else(|| Error::not_found(format!("no service or model is called '{}'", request.service)))?;
    Ok(HealthCheckResponse { status: status.into() })
}

/// Tell the status now and whenever it changes, until the client leaves or the server drains.
pub(crate) async fn watch(shared: Rc<Shared>, mut messages: Messages, reply: Reply) {
    let message = std::future::poll_fn(|cx| messages.poll_message(cx)).await;
    let request = match message {
        Some(Ok(message)) => HealthCheckRequest::decode(message),
        Some(Err(refused)) => return reply.error(&refused.error),
        None => return reply.error(&Error::invalid("the call has no request message")),
    };
    let Ok(request) = request else {
        return reply.error(&Error::invalid("HealthCheckRequest is malformed"));
    };
    let Some(mut stream) = reply.stream() else { return };
    let mut told = None;
    let mut drained = std::pin::pin!(Rc::clone(&shared).drained());
    let mut changes = shared.engine.changes();
    let mut draining = false;
    loop {
        // Before looking: what changes while we look is seen in the next turn.
        changes.mark_unchanged();
        let now = if draining {
            ServingStatus::NotServing
        } else {
            status(&shared.engine, &request.service).unwrap_or(ServingStatus::ServiceUnknown)
        };
        if told != Some(now) {
            told = Some(now);
            let response = HealthCheckResponse { status: now.into() };
            if stream.send(reply::frame(&response.encode_to_vec())).await.is_err() {
                return;
            }
        }
        if draining {
            return stream.finish(Some(&Error::unavailable("the server is shutting down")));
        }
        draining = tokio::select! {
            // An error means that the engine is gone, which drains the server as well.
            _ = changes.changed() => false,
            () = &mut drained => true,
            () = std::future::poll_fn(|cx| stream.poll_gone(cx)) => return,
        };
    }
}
