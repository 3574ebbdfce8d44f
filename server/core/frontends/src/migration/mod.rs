//! The paths of other servers, so that their clients work unchanged: `TensorFlow` Serving, `KServe` V1, `SageMaker`,
//! `MLflow`.
//!
//! `GraphPipe` takes a POST to nearly any path: what has its bytes is answered as its clients expect, here too.
//!
//! Source: protocol/spec/migration.md.

mod invocations;
mod sagemaker;
pub(crate) mod tensorflow_grpc;
mod tensorflow_rest;

use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use kingpole_engine::{Engine, IndexRow, ModelSpec};
use kingpole_values::{ByteString, Code, Error, InferRequest, InferResponse, Result};
use kingpole_wire::migration::DeclaredInput;

use crate::connection::Shared;
use crate::message::{HttpRequest, HttpResponse, decode_percent};
use crate::rest::{Named, not_allowed};
use crate::status::Dialect;
use crate::{body, graphpipe, respond};

/// Whether a request is for one of these paths and not for a model of such a name.
pub(crate) fn owns(method: &Method, path: &str) -> bool {
    match path {
        "/ping" | "/health" | "/version" | "/invocations" | "/models" | "/v1/models" => true,
        _ if path.starts_with("/v1/models/") => true,
        _ if path.starts_with("/models/") => {
            path[8..].ends_with("/invoke")
                || (*method == Method::DELETE && path.len() > 8 && !path[8..].contains('/'))
        }
        _ => path.starts_with("/endpoints/") && path.ends_with("/invocations"),
    }
}

/// Answer a request for a path that [`owns`] names.
pub(crate) async fn route(request: HttpRequest, path: &str, shared: &Shared) -> HttpResponse {
    // Percent sequences are decoded once, after splitting: an encoded slash belongs to its name.
    let decoded: Vec<_> = path.trim_start_matches('/').split('/').map(decode_percent).collect();
    let segments: Vec<&str> = decoded.iter().map(AsRef::as_ref).collect();
    match segments.as_slice() {
        ["ping" | "health"] => match unless_get(&request) {
            None => invocations::ping(&shared.engine),
            Some(refusal) => refusal,
        },
        ["version"] => match unless_get(&request) {
            None => invocations::version(&shared.engine),
            Some(refusal) => refusal,
        },
        ["invocations"] => invocations::serve(request, None, shared).await,
        ["endpoints", model, "invocations"] | ["models", model, "invoke"] => {
            invocations::serve(request, Some(model), shared).await
        }
        ["models"] => sagemaker::models(request, shared).await,
        ["models", model] => sagemaker::unload(model, shared).await,
        ["v1", "models", rest @ ..] => tensorflow_rest::route(request, rest, shared).await,
        _ => HttpResponse::error(StatusCode::NOT_FOUND, &format!("nothing is at '{path}'")),
    }
}

fn unless_get(request: &HttpRequest) -> Option<HttpResponse> {
    let fits = request.method == Method::GET || request.method == Method::HEAD;
    (!fits).then(|| not_allowed(request, "GET, HEAD"))
}

fn unless_post(request: &HttpRequest) -> Option<HttpResponse> {
    (request.method != Method::POST).then(|| not_allowed(request, "POST"))
}

/// A request whose body has been read.
struct Whole {
    headers: HeaderMap,
    body: Bytes,
    received: Instant,
}

/// Why a body was not read, and what is answered unless the protocol has an own body for it.
struct Refusal {
    error: Error,
    answer: HttpResponse,
}

async fn read_whole(request: HttpRequest, shared: &Shared) -> std::result::Result<Whole, Box<Refusal>> {
    let HttpRequest { headers, body, received, .. } = request;
    match body::read(body, &headers, shared).await {
        Ok(body) => Ok(Whole { headers, body, received }),
        Err(error) => {
            let answer = Dialect::Json.body_error(&error);
            let error = refused(Error::from(error), shared);
            Err(Box::new(Refusal { error, answer }))
        }
    }
}

impl Whole {
    /// The media type without its parameters, in lower case; empty if there is none.
    fn media_type(&self) -> String {
        let whole = self.content_type();
        whole.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
    }

    fn content_type(&self) -> &str {
        self.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// What the media type says of `name`.
    fn media_parameter(&self, name: &str) -> Option<&str> {
        self.content_type().split(';').skip(1).find_map(|parameter| {
            let (found, value) = parameter.split_once('=')?;
            found.trim().eq_ignore_ascii_case(name).then(|| value.trim().trim_matches('"'))
        })
    }

    /// Whether this is a `GraphPipe` client's: its body begins with a small offset, so that there is a NUL among
    /// the first four bytes, which no text has. Its clients send no media type or one of these.
    fn is_graphpipe(&self) -> bool {
        let is_text = self.body.len() < 4 || !self.body[..4].contains(&0);
        let media_type = self.media_type();
        !is_text
            && ["", "application/octet-stream", "application/x-www-form-urlencoded"].contains(&&*media_type)
    }

    async fn answer_graphpipe(self, named: &Named<'_>, shared: &Shared) -> HttpResponse {
        graphpipe::answer(self.body, &self.headers, self.received, named, None, shared).await
    }
}

/// Name the model, and infer.
async fn infer(
    mut request: InferRequest,
    named: &Named<'_>,
    headers: &HeaderMap,
    received: Instant,
    shared: &Shared,
) -> Result<InferResponse> {
    request.model = named.model.into();
    request.version = named.version.map(Into::into);
    match respond::timeout_us(headers) {
        Ok(timeout_us) => respond::shorten(&mut request, timeout_us),
        Err(error) => return Err(refused(error, shared)),
    }
    if let Some(pattern) = &shared.configuration.http_headers {
        pattern.forward(headers, &mut request.parameters);
    }
    respond::infer(&shared.engine, request, received).await
}

/// A good answer, charged until it is written.
fn written(content_type: HeaderValue, mut pieces: Vec<Bytes>, shared: &Shared) -> Result<HttpResponse> {
    shared.memory.hold_answer(&mut pieces)?;
    Ok(HttpResponse::new(StatusCode::OK, content_type, pieces))
}

/// An error that came before the engine saw a request, counted.
fn refused(error: Error, shared: &Shared) -> Error {
    shared.engine.count_refused(error.code);
    error
}

fn declared(specification: &ModelSpec) -> Vec<DeclaredInput> {
    let input = |input: &kingpole_engine::TensorSpec| DeclaredInput {
        name: input.name.clone(),
        datatype: input.datatype,
        shape: input.shape.clone(),
        optional: input.optional,
    };
    specification.inputs.iter().map(input).collect()
}

/// A model has one signature, which may be left unnamed.
const SIGNATURE: &str = "serving_default";

fn check_signature(signature: &str) -> Result<()> {
    if signature.is_empty() || signature == SIGNATURE {
        return Ok(());
    }
    let shown: String = signature.chars().take(128).collect();
    Err(Error::invalid(format!(
        "signature '{}' is not found: a model has one, '{SIGNATURE}'",
        shown.escape_debug()
    )))
}

/// How `TensorFlow` Serving calls the state of a version, the code and the reason.
fn state_of(row: &IndexRow) -> (&'static str, Option<Code>, &str) {
    match row.state.as_str() {
        "READY" => ("AVAILABLE", None, ""),
        "LOADING" => ("LOADING", None, ""),
        "UNLOADING" => ("UNLOADING", None, ""),
        "UNAVAILABLE" if row.reason.is_empty() || row.reason == "unloaded" => ("END", None, &row.reason),
        "UNAVAILABLE" => ("END", Some(Code::Unavailable), &row.reason),
        _ => ("UNKNOWN", None, &row.reason),
    }
}

/// What is known of a model's versions, or of one; an error if nobody has heard of it.
fn versions_of(engine: &Engine, named: &Named<'_>) -> Result<(bool, Vec<IndexRow>)> {
    let ready = engine.model_ready(named.model, named.version)?;
    let name: ByteString =
        if named.model.is_empty() { engine.model("", None)?.name.clone() } else { named.model.into() };
    let mut rows = engine.index(false);
    rows.retain(|row| {
        name == row.name
            && named.version.is_none_or(|version| row.version.as_deref().is_none_or(|known| known == version))
    });
    Ok((ready, rows))
}
