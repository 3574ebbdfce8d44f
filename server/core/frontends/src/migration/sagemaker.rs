//! `SageMaker`'s multi-model endpoints: which models are loaded, load one, unload one.
//!
//! A model is loaded from the server's own repository, by name: the URL that the caller gives is not read.

use http::{Method, StatusCode};
use kingpole_engine::ControlRequest;
use kingpole_values::{Error, Parameters};
use serde_json::{Map, Value, json};

use super::{read_whole, refused};
use crate::connection::Shared;
use crate::message::{HttpRequest, HttpResponse};
use crate::respond::control;
use crate::rest::not_allowed;
use crate::status::Dialect;

pub(super) async fn models(request: HttpRequest, shared: &Shared) -> HttpResponse {
    match request.method {
        Method::GET | Method::HEAD => list(shared),
        Method::POST => load(request, shared).await,
        _ => not_allowed(&request, "GET, HEAD, POST"),
    }
}

fn list(shared: &Shared) -> HttpResponse {
    let mut names: Vec<String> = shared.engine.index(true).into_iter().map(|row| row.name).collect();
    names.sort();
    names.dedup();
    let models = names.iter().map(|name| json!({ "modelName": name, "modelUrl": name }));
    HttpResponse::json(StatusCode::OK, &json!({ "models": models.collect::<Vec<_>>() }))
}

async fn load(request: HttpRequest, shared: &Shared) -> HttpResponse {
    let whole = match read_whole(request, shared).await {
        Ok(whole) => whole,
        Err(refusal) => return refusal.answer,
    };
    let refuse = |error: Error| Dialect::Json.error(&refused(error, shared));
    let object: Map<String, Value> = match serde_json::from_slice(&whole.body) {
        Ok(object) => object,
        Err(error) => return refuse(Error::invalid(format!("malformed JSON: {error}"))),
    };
    let Some(Value::String(model)) = object.get("model_name") else {
        return refuse(Error::invalid("'model_name' must say which model to load"));
    };
    if shared.engine.model(model, None).is_ok() && !model.is_empty() {
        return HttpResponse::error(StatusCode::CONFLICT, &format!("model '{model}' is loaded already"));
    }
    let request =
        ControlRequest::Load { model: model.clone(), parameters: Parameters::new(), files: Vec::new() };
    match control(&shared.engine, request).await {
        Ok(()) => HttpResponse::json(StatusCode::OK, &json!({ "modelName": model, "modelUrl": model })),
        Err(error) => Dialect::Json.error(&error),
    }
}

pub(super) async fn unload(model: &str, shared: &Shared) -> HttpResponse {
    if let Err(error) = shared.engine.model_ready(model, None) {
        return Dialect::Json.error(&error);
    }
    let request = ControlRequest::Unload { model: model.to_owned(), parameters: Parameters::new() };
    match control(&shared.engine, request).await {
        Ok(()) => HttpResponse::json(StatusCode::OK, &json!({})),
        Err(error) => Dialect::Json.error(&error),
    }
}
