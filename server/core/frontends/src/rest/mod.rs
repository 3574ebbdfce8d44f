//! HTTP routes: which of the protocols a request is for, and Open Inference's own.

mod generate;
mod infer;
mod metadata;
mod object;
pub(crate) mod repository;
mod settings;
mod shared_memory;

use http::{HeaderValue, Method, StatusCode, header};
use kingpole_engine::Engine;
use kingpole_values::Code;

use crate::connection::Shared;
use crate::message::{HttpRequest, HttpResponse, decode_percent};
use crate::status::Dialect;
use crate::{cors, frame, graphpipe, migration, routes};

/// Answer a request, whichever HTTP version carried it.
pub(crate) async fn route(request: HttpRequest, shared: &Shared) -> HttpResponse {
    let origins = shared.configuration.origins.as_ref();
    if let Some(answer) = cors::preflight(origins, &request) {
        return answer;
    }
    let permission = cors::permission(origins, &request);
    let mut response = of_path(request, shared).await;
    if origins.is_some() {
        cors::tell(permission, &mut response);
    }
    response
}

async fn of_path(request: HttpRequest, shared: &Shared) -> HttpResponse {
    let content_type = request.headers.get(header::CONTENT_TYPE);
    if request.method == Method::POST && content_type.is_some_and(|value| value == frame::MEDIA_TYPE) {
        return frame::over_http(request, shared).await;
    }
    let path = request.uri.path().to_owned();
    let method = request.method.clone();
    let response = if path == frame::INFER_PATH {
        frame::refuse_other(&request)
    } else if path == "/v2" {
        open_inference(request, "", shared).await
    } else if let Some(rest) = path.strip_prefix("/v2/") {
        open_inference(request, rest, shared).await
    } else if migration::owns(&method, &path) {
        migration::route(request, &path, shared).await
    } else {
        let response = graphpipe::route(request, &path, shared).await;
        if !path.starts_with("/control/") {
            // Any path that is nobody else's may name a model here.
            return response;
        }
        response
    };
    routes::check(&method, &path, response.status);
    response
}

/// A model and maybe a version, as a path names them.
pub(crate) struct Named<'a> {
    pub(crate) model: &'a str,
    pub(crate) version: Option<&'a str>,
}

async fn open_inference(request: HttpRequest, path: &str, shared: &Shared) -> HttpResponse {
    // Percent sequences are decoded once, after splitting: an encoded slash belongs to its name.
    let decoded: Vec<_> = path.split('/').map(decode_percent).collect();
    let segments: Vec<&str> = decoded.iter().map(AsRef::as_ref).collect();
    let engine = &shared.engine;
    match segments.as_slice() {
        [""] => get(&request, || metadata::server(engine)),
        ["health", "live"] => get(&request, || health("live", engine.is_live())),
        ["health", "ready"] => get(&request, || health("ready", engine.is_ready())),
        ["models"] => get(&request, || metadata::models(engine)),
        ["models", "stats"] => get(&request, || metadata::statistics(engine, None, None)),
        ["models", model, "versions", version, action @ ..] => {
            let named = Named { model, version: Some(version) };
            of_model(request, named, action, shared).await
        }
        ["models", model, action @ ..] => {
            of_model(request, Named { model, version: None }, action, shared).await
        }
        ["logging"] => settings::logging(request, shared).await,
        ["trace", "setting"] => settings::trace(request, None, shared).await,
        ["repository", rest @ ..] => of_repository(request, rest, shared).await,
        [kind @ ("systemsharedmemory" | "cudasharedmemory"), rest @ ..] => {
            of_regions(request, *kind == "systemsharedmemory", rest, shared).await
        }
        _ => unknown(&request),
    }
}

async fn of_repository(request: HttpRequest, path: &[&str], shared: &Shared) -> HttpResponse {
    let known = matches!(path, ["index"] | [_, "index"])
        || matches!(path, ["models", _, "load" | "unload"] | [_, "models", _, "load" | "unload"]);
    if !known {
        return unknown(&request);
    }
    if let Some(refusal) = unless_post(&request) {
        return refusal;
    }
    match path {
        ["models", model, action] => repository::change(request, model, *action == "load", shared).await,
        [named, "models", ..] => repository::named_repository(named),
        // The index is of all repositories, whichever is named.
        _ => repository::index(request, shared).await,
    }
}

async fn of_regions(request: HttpRequest, is_system: bool, path: &[&str], shared: &Shared) -> HttpResponse {
    let (region, action) = match path {
        [action] => (None, *action),
        ["region", name, action] => (Some(*name), *action),
        _ => return unknown(&request),
    };
    match (action, region) {
        ("status", _) => get(&request, || shared_memory::status(is_system, region, shared)),
        ("unregister", _) => match unless_post(&request) {
            None => shared_memory::unregister(is_system, region, shared),
            Some(refusal) => refusal,
        },
        ("register", Some(name)) => match unless_post(&request) {
            None => shared_memory::register(is_system, request, name, shared).await,
            Some(refusal) => refusal,
        },
        _ => unknown(&request),
    }
}

async fn of_model(request: HttpRequest, named: Named<'_>, action: &[&str], shared: &Shared) -> HttpResponse {
    let engine = &shared.engine;
    match action {
        [] => get(&request, || metadata::model(engine, &named)),
        ["ready"] => get(&request, || model_ready(engine, &named)),
        ["config"] => get(&request, || metadata::configuration(engine, &named)),
        ["stats"] => get(&request, || metadata::statistics(engine, Some(named.model), named.version)),
        ["trace", "setting"] if named.version.is_none() => {
            settings::trace(request, Some(named.model), shared).await
        }
        ["infer"] => match unless_post(&request) {
            None => infer::serve(request, &named, shared).await,
            Some(refusal) => refusal,
        },
        ["generate"] => match unless_post(&request) {
            None => generate::once(request, &named, shared).await,
            Some(refusal) => refusal,
        },
        ["generate_stream"] => match unless_post(&request) {
            None => generate::stream(request, &named, shared).await,
            Some(refusal) => refusal,
        },
        _ => unknown(&request),
    }
}

fn get(request: &HttpRequest, answer: impl FnOnce() -> HttpResponse) -> HttpResponse {
    if request.method == Method::GET || request.method == Method::HEAD {
        return answer();
    }
    not_allowed(request, "GET, HEAD")
}

/// The refusal of anything but a POST.
fn unless_post(request: &HttpRequest) -> Option<HttpResponse> {
    (request.method != Method::POST).then(|| not_allowed(request, "POST"))
}

pub(crate) fn not_allowed(request: &HttpRequest, allowed: &'static str) -> HttpResponse {
    let message = format!("{} is not possible here; use {allowed}", request.method);
    HttpResponse::error(StatusCode::METHOD_NOT_ALLOWED, &message)
        .with(header::ALLOW, HeaderValue::from_static(allowed))
}

fn unknown(request: &HttpRequest) -> HttpResponse {
    HttpResponse::error(StatusCode::NOT_FOUND, &format!("nothing is at '{}'", request.uri.path()))
}

fn readiness(yes: bool) -> StatusCode {
    if yes { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

fn health(what: &str, yes: bool) -> HttpResponse {
    HttpResponse::json(readiness(yes), &serde_json::json!({ what: yes }))
}

fn model_ready(engine: &Engine, named: &Named<'_>) -> HttpResponse {
    match engine.model_ready(named.model, named.version) {
        Ok(ready) => {
            HttpResponse::json(readiness(ready), &serde_json::json!({ "name": named.model, "ready": ready }))
        }
        Err(error) if error.code == Code::Unavailable => {
            HttpResponse::json(readiness(false), &serde_json::json!({ "name": named.model, "ready": false }))
        }
        Err(error) => Dialect::Json.error(&error),
    }
}
