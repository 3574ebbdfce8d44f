//! The generate extension: one JSON object in; one out, or one for each response as server-sent events.

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderValue, StatusCode, header};
use kingpole_engine::ModelSpec;
use kingpole_values::{Error, InferRequest, InferResponse, Result, Stage};
use kingpole_wire::Scatter;
use kingpole_wire::rest::{GenerateModel, decode_generate_request, encode_error, encode_generate_response};

use super::Named;
use crate::connection::Shared;
use crate::message::{HttpRequest, HttpResponse, JSON};
use crate::respond::Responses;
use crate::status::Dialect;
use crate::streamed::{Form, Streamed};
use crate::{body, respond};

const EVENTS: HeaderValue = HeaderValue::from_static("text/event-stream; charset=utf-8");

/// Answer `generate` with exactly one response.
pub(super) async fn once(request: HttpRequest, named: &Named<'_>, shared: &Shared) -> HttpResponse {
    let responses = match begin(request, named, shared).await {
        Ok(responses) => responses,
        Err(refusal) => return refusal,
    };
    let held = only(responses).await.and_then(|response| {
        let mut encoded = [encode_generate_response(&response)?];
        shared.memory.hold_answer(&mut encoded)?;
        Ok(encoded)
    });
    match held {
        Ok(encoded) => HttpResponse::new(StatusCode::OK, JSON, encoded.into()),
        Err(error) => Dialect::Json.error(&error),
    }
}

/// Answer `generate_stream` with an event for each response.
pub(super) async fn stream(request: HttpRequest, named: &Named<'_>, shared: &Shared) -> HttpResponse {
    let responses = match begin(request, named, shared).await {
        Ok(responses) => responses,
        Err(refusal) => return refusal,
    };
    match Streamed::open(responses, Events, &shared.memory).await {
        Ok(streamed) => HttpResponse::new(StatusCode::OK, EVENTS, Vec::new())
            .with(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"))
            .streaming(streamed),
        Err(error) => Dialect::Json.error(&error),
    }
}

async fn begin(
    request: HttpRequest,
    named: &Named<'_>,
    shared: &Shared,
) -> std::result::Result<Responses, HttpResponse> {
    let HttpRequest { headers, body, received, .. } = request;
    let body = match body::read(body, &headers, shared).await {
        Ok(body) => body,
        Err(error) => {
            let refusal = Dialect::Json.body_error(&error);
            shared.engine.count_refused(Error::from(error).code);
            return Err(refusal);
        }
    };
    let decoded = decode(body, named, shared).and_then(|mut request| {
        respond::shorten(&mut request, respond::timeout_us(&headers)?);
        Ok(request)
    });
    match decoded {
        Ok(mut request) => {
            if let Some(pattern) = &shared.configuration.http_headers {
                pattern.forward(&headers, &mut request.parameters);
            }
            Ok(respond::stream(&shared.engine, request, received))
        }
        Err(error) => {
            shared.engine.count_refused(error.code);
            Err(Dialect::Json.error(&error))
        }
    }
}

fn decode(body: Bytes, named: &Named<'_>, shared: &Shared) -> Result<InferRequest> {
    let specification = shared.engine.model(named.model, named.version)?;
    let mut request = decode_generate_request(body, &generate_model(&specification))?;
    request.model = named.model.into();
    request.version = named.version.map(Into::into);
    Ok(request)
}

fn generate_model(specification: &ModelSpec) -> GenerateModel<'_> {
    let inputs = specification.inputs.iter();
    GenerateModel {
        inputs: inputs.map(|input| (&*input.name, input.datatype, &input.shape)).collect(),
        batches: specification.max_batch_size > 0,
    }
}

/// The one response of a request; a second one is an error, for which the model is not run to its end.
async fn only(mut responses: Responses) -> Result<InferResponse> {
    let mut first = None;
    while let Some(response) = responses.next().await {
        let response = response?;
        match response.stage {
            Stage::Only => return Ok(response),
            Stage::Part if first.is_none() => first = Some(response),
            Stage::Part => return Err(not_one("more")),
            Stage::End => return first.ok_or_else(|| not_one("none")),
        }
    }
    Err(Error::internal("the request was dropped unanswered"))
}

fn not_one(got: &str) -> Error {
    Error::invalid(format!(
        "generate expects the model to produce exactly 1 response, it gave {got}; \
         use generate_stream for models that produce any number of responses"
    ))
}

/// Server-sent events. Source: the HTML standard, "Server-sent events".
struct Events;

impl Form for Events {
    fn response(&self, response: &InferResponse) -> Result<Scatter> {
        if response.stage == Stage::End {
            return Ok(Scatter::default());
        }
        Ok(event("data: ", &encode_generate_response(response)?))
    }

    fn error(&self, error: &Error) -> Scatter {
        event("event: error\ndata: ", &encode_error(error))
    }
}

/// JSON has no line breaks of its own, so that it is one line of an event.
fn event(before: &str, json: &Bytes) -> Scatter {
    let mut text = BytesMut::with_capacity(before.len() + json.len() + 2);
    text.put_slice(before.as_bytes());
    text.put_slice(json);
    text.put_slice(b"\n\n");
    text.freeze().into()
}
