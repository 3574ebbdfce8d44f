//! The repository extension: index, load, unload.

use http::StatusCode;
use kingpole_engine::ControlRequest;
use kingpole_values::{Error, Parameter, Parameters, Result};
use serde_json::{Map, Value, json};

use crate::body;
use crate::connection::Shared;
use crate::message::{HttpRequest, HttpResponse};
use crate::status::Dialect;

/// An empty body is an empty object.
pub(super) async fn read_object(
    request: HttpRequest,
    shared: &Shared,
) -> std::result::Result<Map<String, Value>, Box<HttpResponse>> {
    let body = body::read(request.body, &request.headers, shared)
        .await
        .map_err(|error| Dialect::Json.body_error(&error))?;
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(Map::new());
    }
    serde_json::from_slice(&body)
        .map_err(|error| Dialect::Json.error(&Error::invalid(format!("malformed JSON: {error}"))).into())
}

pub(super) async fn index(request: HttpRequest, shared: &Shared) -> HttpResponse {
    let object = match read_object(request, shared).await {
        Ok(object) => object,
        Err(refusal) => return *refusal,
    };
    let ready_only = match object.get("ready") {
        None | Some(Value::Null) => false,
        Some(Value::Bool(ready)) => *ready,
        Some(_) => return Dialect::Json.error(&Error::invalid("'ready' is neither true nor false")),
    };
    let rows: Vec<Value> = shared
        .engine
        .index(ready_only)
        .into_iter()
        .map(|row| {
            let mut fields = Map::new();
            fields.insert("name".to_owned(), row.name.into());
            if let Some(version) = row.version {
                fields.insert("version".to_owned(), version.into());
            }
            fields.insert("state".to_owned(), row.state.into());
            fields.insert("reason".to_owned(), row.reason.into());
            Value::Object(fields)
        })
        .collect();
    HttpResponse::json(StatusCode::OK, &Value::Array(rows))
}

pub(super) async fn change(request: HttpRequest, model: &str, load: bool, shared: &Shared) -> HttpResponse {
    let object = match read_object(request, shared).await {
        Ok(object) => object,
        Err(refusal) => return *refusal,
    };
    let parameters = match read_parameters(object.get("parameters")) {
        Ok(parameters) => parameters,
        Err(error) => return Dialect::Json.error(&error),
    };
    let model = model.to_owned();
    let wish = if load {
        ControlRequest::Load { model, parameters }
    } else {
        let unload_dependents = parameters
            .iter()
            .any(|(name, value)| name == "unload_dependents" && *value == Parameter::Bool(true));
        ControlRequest::Unload { model, unload_dependents }
    };
    match crate::respond::control(&shared.engine, wish).await {
        Ok(()) => HttpResponse::json(StatusCode::OK, &json!({})),
        Err(error) => Dialect::Json.error(&error),
    }
}

fn read_parameters(value: Option<&Value>) -> Result<Parameters> {
    let object = match value {
        None | Some(Value::Null) => return Ok(Parameters::new()),
        Some(Value::Object(object)) => object,
        Some(_) => return Err(Error::invalid("'parameters' is not an object")),
    };
    object
        .iter()
        .map(|(name, value)| {
            let parameter = match value {
                Value::Bool(value) => Parameter::Bool(*value),
                Value::String(text) => Parameter::String(text.as_str().into()),
                Value::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
                    (Some(value), ..) => Parameter::Int64(value),
                    (None, Some(value), _) => Parameter::Uint64(value),
                    (None, None, value) => Parameter::Double(value.unwrap_or_default()),
                },
                // A configuration given as an object instead of as its text.
                Value::Object(_) | Value::Array(_) => Parameter::String(value.to_string().into()),
                Value::Null => return Err(Error::invalid(format!("parameter '{name}' is null"))),
            };
            Ok((name.as_str().into(), parameter))
        })
        .collect()
}
