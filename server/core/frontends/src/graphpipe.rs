//! `GraphPipe` over HTTP: a POST to nearly any path, metadata by GET, `/control/`.

use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use kingpole_engine::{Engine, ModelSpec, TensorSpec};
use kingpole_values::{ByteString, Code, Datatype, Error, InferRequest, Parameter, Result};
use kingpole_wire::graphpipe::{
    GraphpipeMetadata, GraphpipeRequest, GraphpipeSpec, decode_request, encode_infer_response,
    encode_metadata_response, type_number,
};
use serde::Serialize;
use serde_json::json;
use serde_json::ser::{PrettyFormatter, Serializer};

use crate::coding::Wanted;
use crate::connection::Shared;
use crate::message::{HttpRequest, HttpResponse, JSON, OCTETS, TEXT, decode_percent};
use crate::rest::Named;
use crate::status::Dialect;
use crate::{body, pack, respond};

/// The parameter of a request that `GraphPipe`'s free text for the server becomes.
const CONFIG: ByteString = ByteString::from_static("config");

/// Answer a request for a path that belongs to no other protocol.
pub(crate) async fn route(request: HttpRequest, path: &str, shared: &Shared) -> HttpResponse {
    if let Some(control) = path.strip_prefix("/control/") {
        return answer_control(&request.method, control, shared);
    }
    let decoded: Vec<_> = path.trim_matches('/').split('/').map(decode_percent).collect();
    let segments: Vec<&str> = decoded.iter().map(AsRef::as_ref).collect();
    let default = Named { model: "", version: None };
    let (named, stray) = match segments.as_slice() {
        // The one model, or the one that the configuration says.
        [""] => (default, None),
        [model] | ["models", model] => (Named { model, version: None }, None),
        ["models", model, "versions", version] => (Named { model, version: Some(version) }, None),
        // The reference server takes a request at any path.
        _ => (default, Some(path)),
    };
    match request.method {
        // Whoever asks for something else than an inference is told of the path.
        Method::GET | Method::HEAD if stray.is_some() => nothing_at(path),
        Method::GET | Method::HEAD => match metadata(&shared.engine, &named) {
            Ok(metadata) => write_json(&metadata, named.model.is_empty()),
            // Whether a model is served says nothing about the server's life, which KServe V1 asks for here.
            Err(error) if named.model.is_empty() => {
                HttpResponse::json(StatusCode::OK, &json!({ "status": ALIVE, "error": error.message }))
            }
            Err(error) => Dialect::Text.error(&error),
        },
        // The reference server takes every other method for POST.
        Method::POST | Method::PUT => infer(request, &named, stray, shared).await,
        _ => {
            // DELETE is not GraphPipe's: SageMaker's clients unload a model with it.
            let allowed = match segments.as_slice() {
                ["models", _] => "GET, HEAD, POST, PUT, DELETE",
                _ => "GET, HEAD, POST, PUT",
            };
            Dialect::Text
                .write(StatusCode::METHOD_NOT_ALLOWED, "use POST to infer, GET for metadata")
                .with(header::ALLOW, HeaderValue::from_static(allowed))
        }
    }
}

fn nothing_at(path: &str) -> HttpResponse {
    Dialect::Text.write(StatusCode::NOT_FOUND, &format!("nothing is at '{path}'"))
}

/// What can be asked at `/control/`; what it can be told elsewhere, to end, is refused.
fn answer_control(method: &Method, control: &str, shared: &Shared) -> HttpResponse {
    let engine = &shared.engine;
    let is_question = matches!(control, "is_ready" | "is_alive" | "client_count");
    if is_question && method != Method::GET && method != Method::HEAD {
        return Dialect::Text
            .write(StatusCode::METHOD_NOT_ALLOWED, "use GET to ask")
            .with(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    let (well, otherwise) = match control {
        "is_ready" => (engine.is_ready(), "not ready"),
        "is_alive" => (engine.is_live(), "not alive"),
        "client_count" => {
            return plain(StatusCode::OK, &shared.configuration.connections.count().to_string());
        }
        "shutdown" => {
            let message = "this server is not ended by its clients; send its process a signal";
            return Dialect::Text.error(&Error::new(Code::PermissionDenied, message));
        }
        _ => return nothing_at(&format!("/control/{control}")),
    };
    if well { plain(StatusCode::OK, "ok") } else { plain(StatusCode::SERVICE_UNAVAILABLE, otherwise) }
}

fn plain(status: StatusCode, text: &str) -> HttpResponse {
    HttpResponse::new(status, TEXT, vec![Bytes::from(format!("{text}\n"))])
}

async fn infer(
    request: HttpRequest,
    named: &Named<'_>,
    stray: Option<&str>,
    shared: &Shared,
) -> HttpResponse {
    let HttpRequest { headers, body, received, .. } = request;
    let wanted = Wanted::of(&headers);
    if let Some(refusal) = Dialect::Text.unless_possible(wanted) {
        shared.engine.count_refused(Code::InvalidArgument);
        return refusal;
    }
    let body = match body::read(body, &headers, shared).await {
        Ok(body) => body,
        Err(error) => {
            let refusal = Dialect::Text.body_error(&error);
            shared.engine.count_refused(Error::from(error).code);
            return refusal;
        }
    };
    pack::response(
        answer(body, &headers, received, named, stray, shared).await,
        wanted,
        Dialect::Text,
        shared,
    )
    .await
}

/// Answer a request whose body has been read; one that is no request is answered by 404 at a path that is
/// `stray`.
pub(crate) async fn answer(
    body: Bytes,
    headers: &HeaderMap,
    received: Instant,
    named: &Named<'_>,
    stray: Option<&str>,
    shared: &Shared,
) -> HttpResponse {
    let refuse = |error: &Error| {
        shared.engine.count_refused(error.code);
        Dialect::Text.error(error)
    };
    let mut request = match decode_request(body) {
        Ok(GraphpipeRequest::Infer { mut request, config }) => {
            request.parameters.extend(config.map(|config| (CONFIG, Parameter::String(config))));
            request
        }
        Ok(GraphpipeRequest::Metadata) => {
            return match metadata(&shared.engine, named) {
                Ok(metadata) => {
                    HttpResponse::new(StatusCode::OK, OCTETS, vec![encode_metadata_response(&metadata)])
                }
                Err(error) => Dialect::Text.error(&error),
            };
        }
        Err(error) => {
            return refuse(&match stray {
                None => error,
                Some(path) => Error::not_found(format!("nothing is at '{path}'; {}", error.message)),
            });
        }
    };
    request.model = named.model.into();
    request.version = named.version.map(Into::into);
    match respond::timeout_us(headers) {
        Ok(timeout_us) => respond::shorten(&mut request, timeout_us),
        Err(error) => return refuse(&error),
    }
    if let Some(pattern) = &shared.configuration.http_headers {
        pattern.forward(headers, &mut request.parameters);
    }
    // An unknown model is the engine's to refuse.
    if let Ok(specification) = shared.engine.model(named.model, named.version) {
        restore_bool(&mut request, &specification);
    }
    let answered = respond::infer(&shared.engine, request, received).await;
    let held = answered.and_then(|response| {
        let mut encoded = encode_infer_response(&response)?;
        shared.memory.hold_answer(encoded.chunks_mut())?;
        Ok(encoded)
    });
    match held {
        Ok(encoded) => HttpResponse::new(StatusCode::OK, OCTETS, encoded.into_chunks().into_vec()),
        Err(error) => Dialect::Text.error(&error),
    }
}

/// `GraphPipe` has no BOOL: its clients send Uint8, which is what a BOOL input then means.
fn restore_bool(request: &mut InferRequest, specification: &ModelSpec) {
    for (position, input) in request.inputs.iter_mut().enumerate() {
        let declared = if input.name.is_empty() {
            specification.inputs.get(position)
        } else {
            specification.inputs.iter().find(|declared| declared.name == input.name)
        };
        let wants_bool = declared.is_some_and(|declared| declared.datatype == Datatype::Bool);
        if wants_bool && input.datatype == Datatype::Uint8 {
            input.datatype = Datatype::Bool;
        }
    }
}

fn metadata(engine: &Engine, named: &Named<'_>) -> Result<GraphpipeMetadata> {
    let specification = engine.model(named.model, named.version)?;
    let tensors = |specifications: &[TensorSpec]| {
        let tensor = |tensor: &TensorSpec| GraphpipeSpec {
            name: tensor.name.clone(),
            description: String::new().into(),
            shape: tensor.shape.clone(),
            datatype: Some(tensor.datatype),
        };
        specifications.iter().map(tensor).collect()
    };
    Ok(GraphpipeMetadata {
        name: specification.name.clone(),
        version: specification.version.clone(),
        server: engine.info().name.into(),
        description: specification.description.as_str().into(),
        inputs: tensors(&specification.inputs),
        outputs: tensors(&specification.outputs),
    })
}

/// What `KServe` V1's clients look for at `/`, in the field `status`.
const ALIVE: &str = "alive";

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct MetadataJson<'a> {
    name: &'a str,
    version: &'a str,
    server: &'a str,
    description: &'a str,
    inputs: Vec<TensorJson<'a>>,
    outputs: Vec<TensorJson<'a>>,
    #[serde(rename = "status", skip_serializing_if = "Option::is_none")]
    status: Option<&'static str>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct TensorJson<'a> {
    name: &'a str,
    description: &'a str,
    shape: &'a [i64],
    r#type: u8,
}

fn tensors_json(specifications: &[GraphpipeSpec]) -> Vec<TensorJson<'_>> {
    specifications.iter().map(tensor_json).collect()
}

fn tensor_json(tensor: &GraphpipeSpec) -> TensorJson<'_> {
    TensorJson {
        name: &tensor.name,
        description: &tensor.description,
        shape: &tensor.shape,
        r#type: tensor.datatype.and_then(type_number).unwrap_or_default(),
    }
}

/// Metadata as the reference server writes it: Go's field names, four spaces.
fn write_json(metadata: &GraphpipeMetadata, is_root: bool) -> HttpResponse {
    let fields = MetadataJson {
        name: &metadata.name,
        version: &metadata.version,
        server: &metadata.server,
        description: &metadata.description,
        inputs: tensors_json(&metadata.inputs),
        outputs: tensors_json(&metadata.outputs),
        status: is_root.then_some(ALIVE),
    };
    let mut text = Vec::with_capacity(512);
    let mut serializer = Serializer::with_formatter(&mut text, PrettyFormatter::with_indent(b"    "));
    match fields.serialize(&mut serializer) {
        Ok(()) => HttpResponse::new(StatusCode::OK, JSON, vec![text.into()]),
        Err(error) => Dialect::Text.error(&Error::internal(error.to_string())),
    }
}
