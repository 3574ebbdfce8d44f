//! `/invocations`, which `SageMaker` and `MLflow` share, told apart by media type and body, and their health checks.

use bytes::Bytes;
use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue, StatusCode};
use kingpole_engine::Engine;
use kingpole_values::{Code, Error, Result};
use kingpole_wire::migration::{
    JsonPredict, decode_csv, decode_invocation, decode_npy, encode_npy, encode_predictions,
};
use kingpole_wire::rest::{decode_infer_request, encode_infer_response_in_regions};
use serde_json::json;

use super::{Whole, declared, infer, read_whole, refused, unless_post, written};
use crate::connection::Shared;
use crate::message::{HttpRequest, HttpResponse, JSON};
use crate::regions;
use crate::rest::Named;
use crate::status::Dialect;

const ERROR_TYPE: HeaderName = HeaderName::from_static("x-amzn-errortype");
const TARGET_MODEL: &str = "x-amzn-sagemaker-target-model";

/// Open Inference with binary tensors, as `SageMaker`'s Triton container takes it.
const BINARY: &str = "application/vnd.sagemaker-triton.binary+json";
const HEADER_SIZE: &str = "json-header-size";

const NPY: &str = "application/x-npy";

const SUPPORTED: &str =
    "application/json, text/csv, application/x-npy, application/vnd.sagemaker-triton.binary+json";

pub(super) fn ping(engine: &Engine) -> HttpResponse {
    let status = if engine.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    HttpResponse::new(status, JSON, vec![Bytes::from_static(b"\n")])
}

pub(super) fn version(engine: &Engine) -> HttpResponse {
    HttpResponse::new(StatusCode::OK, JSON, vec![Bytes::from_static(engine.info().version.as_bytes())])
}

/// Infer with the model in the path, in the header, or the default one.
pub(super) async fn serve(request: HttpRequest, in_path: Option<&str>, shared: &Shared) -> HttpResponse {
    if let Some(refusal) = unless_post(&request) {
        return refusal;
    }
    let whole = match read_whole(request, shared).await {
        Ok(whole) => whole,
        Err(refusal) => return speak(refusal.answer, &refusal.error),
    };
    let model = match target(&whole.headers, shared) {
        Ok(in_header) => in_header.or(in_path.map(ToOwned::to_owned)).unwrap_or_default(),
        Err(error) => return refuse(&refused(error, shared)),
    };
    let named = Named { model: &model, version: None };
    if whole.is_graphpipe() {
        return whole.answer_graphpipe(&named, shared).await;
    }
    let answered = match whole.media_type().as_str() {
        "" | "application/json" | "application/octet-stream" | "application/x-www-form-urlencoded" => {
            answer_json(whole, &named, shared).await
        }
        "text/csv" => answer_csv(whole, &named, shared).await,
        NPY => answer_npy(whole, &named, shared).await,
        BINARY => answer_binary(whole, &named, shared).await,
        other => {
            let shown: String = other.chars().take(128).collect();
            let message = format!("Content-Type '{shown}' is not supported here; use one of {SUPPORTED}");
            let error = refused(Error::invalid(message), shared);
            return speak(HttpResponse::error(StatusCode::UNSUPPORTED_MEDIA_TYPE, &error.message), &error);
        }
    };
    answered.unwrap_or_else(|error| refuse(&error))
}

/// The model that the header names. Archives are called after their model.
fn target(headers: &HeaderMap, shared: &Shared) -> Result<Option<String>> {
    let Some(value) = headers.get(TARGET_MODEL) else { return Ok(None) };
    let name =
        value.to_str().map_err(|_| Error::invalid(format!("the header {TARGET_MODEL} is not text")))?;
    let name = name.trim_start_matches('/');
    let is_known = shared.engine.model_ready(name, None).is_ok();
    let name = if is_known { name } else { name.strip_suffix(".tar.gz").unwrap_or(name) };
    Ok(Some(name.to_owned()))
}

fn refuse(error: &Error) -> HttpResponse {
    speak(Dialect::Json.error(error), error)
}

/// The same refusal in words for the clients of both: `MLflow` has a code and a message, AWS a type and a message.
fn speak(refusal: HttpResponse, error: &Error) -> HttpResponse {
    let kind = match error.code {
        Code::NotFound => "ValidationError",
        Code::Unavailable => "ServiceUnavailable",
        _ => "ModelError",
    };
    let body = json!({ "error": error.message, "error_code": error.code.name(), "message": error.message });
    let pieces = vec![body.to_string().into()];
    HttpResponse { pieces, ..refusal }.with(ERROR_TYPE, HeaderValue::from_static(kind))
}

async fn answer_json(whole: Whole, named: &Named<'_>, shared: &Shared) -> Result<HttpResponse> {
    let Whole { headers, body, received } = whole;
    let decode = || {
        let specification = shared.engine.model(named.model, named.version)?;
        decode_invocation(body.clone(), &declared(&specification))
    };
    let Some(predict) = decode().map_err(|error| refused(error, shared))? else {
        return answer_open_inference(Whole { headers, body, received }, None, named, shared).await;
    };
    answer_predict(predict, &headers, received, named, shared).await
}

async fn answer_csv(whole: Whole, named: &Named<'_>, shared: &Shared) -> Result<HttpResponse> {
    let decode = || {
        let header = match whole.media_parameter("header") {
            None => None,
            Some("present") => Some(true),
            Some("absent") => Some(false),
            Some(_) => return Err(Error::invalid("the media type's 'header' is neither present nor absent")),
        };
        let specification = shared.engine.model(named.model, named.version)?;
        decode_csv(&whole.body, header, &declared(&specification))
    };
    let predict = decode().map_err(|error| refused(error, shared))?;
    answer_predict(predict, &whole.headers, whole.received, named, shared).await
}

async fn answer_npy(whole: Whole, named: &Named<'_>, shared: &Shared) -> Result<HttpResponse> {
    let Whole { headers, body, received } = whole;
    let decode = || {
        let specification = shared.engine.model(named.model, named.version)?;
        decode_npy(body, &declared(&specification))
    };
    let predict = decode().map_err(|error| refused(error, shared))?;
    answer_predict(predict, &headers, received, named, shared).await
}

/// Answer as JSON, or as an array if that is what the client says that it accepts.
async fn answer_predict(
    predict: JsonPredict,
    headers: &HeaderMap,
    received: std::time::Instant,
    named: &Named<'_>,
    shared: &Shared,
) -> Result<HttpResponse> {
    let response = infer(predict.request, named, headers, received, shared).await?;
    if headers.get(header::ACCEPT).is_some_and(|accepted| accepted == NPY) {
        let array = encode_npy(&response)?;
        let content_type = HeaderValue::from_static(NPY);
        return written(content_type, array.into_chunks().into_vec(), shared);
    }
    let body = encode_predictions(&response, "predictions", predict.layout)?;
    written(JSON, vec![body], shared)
}

async fn answer_binary(whole: Whole, named: &Named<'_>, shared: &Shared) -> Result<HttpResponse> {
    let size = whole.media_parameter(HEADER_SIZE).and_then(|size| size.parse().ok()).filter(|&size| size > 0);
    let Some(size) = size else {
        let message = format!("the media type's '{HEADER_SIZE}' must say how many bytes are JSON");
        return Err(refused(Error::invalid(message), shared));
    };
    answer_open_inference(whole, Some(size), named, shared).await
}

async fn answer_open_inference(
    whole: Whole,
    header_length: Option<usize>,
    named: &Named<'_>,
    shared: &Shared,
) -> Result<HttpResponse> {
    let Whole { headers, body, received } = whole;
    let mut decoded = decode_infer_request(body, header_length).map_err(|error| refused(error, shared))?;
    decoded.request.model = named.model.into();
    decoded.request.version = named.version.map(Into::into);
    let regions = regions::fill(&mut decoded.request, decoded.regions, shared);
    let regions = regions.map_err(|error| refused(error, shared))?;
    let mut response = infer(decoded.request, named, &headers, received, shared).await?;
    let in_regions = regions.map(|regions| regions.write(&mut response)).transpose()?.unwrap_or_default();
    let encoded = encode_infer_response_in_regions(&response, &decoded.reply, &in_regions)?;
    let content_type = match encoded.header_length {
        None => JSON,
        Some(length) => HeaderValue::try_from(format!("{BINARY};{HEADER_SIZE}={length}")).unwrap_or(JSON),
    };
    written(content_type, encoded.body.into_chunks().into_vec(), shared)
}
