//! The repository extension: index, load, unload.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::StatusCode;
use kingpole_engine::ControlRequest;
use kingpole_values::{Code, Error, Parameter, Parameters, Result};
use serde_json::{Map, Value, json};

use super::object;
use crate::budget::Charge;
use crate::connection::Shared;
use crate::message::{HttpRequest, HttpResponse};
use crate::respond::{FILE, control};
use crate::status::Dialect;

pub(super) async fn index(request: HttpRequest, shared: &Shared) -> HttpResponse {
    let object = match object::read(request, shared).await {
        Ok(read) => read.fields,
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

/// What a load or unload that names a repository is answered.
pub(super) fn named_repository(repository: &str) -> HttpResponse {
    Dialect::Json.error(&unnamed(repository))
}

/// Models are found by their names alone, over all repositories.
pub(crate) fn unnamed(repository: &str) -> Error {
    let shown: String = repository.chars().take(64).collect::<String>().escape_debug().to_string();
    let message =
        format!("repositories have no names here: leave '{shown}' out, the model's name says enough");
    Error::new(Code::Unimplemented, message)
}

pub(super) async fn change(request: HttpRequest, model: &str, load: bool, shared: &Shared) -> HttpResponse {
    // The body lives until the change is made, and is charged for as long.
    let object::Read { fields: mut object, body: _held, charge } = match object::read(request, shared).await {
        Ok(read) => read,
        Err(refusal) => return *refusal,
    };
    let (parameters, files) = match read_parameters(object.remove("parameters"), &charge) {
        Ok(read) => read,
        Err(error) => return Dialect::Json.error(&error),
    };
    let model = model.to_owned();
    let wish = if load {
        ControlRequest::Load { model, parameters, files }
    } else {
        ControlRequest::Unload { model, parameters }
    };
    match control(&shared.engine, wish).await {
        Ok(()) => HttpResponse::json(StatusCode::OK, &json!({})),
        Err(error) => Dialect::Json.error(&error),
    }
}

type Files = Vec<(String, Bytes)>;

fn read_parameters(value: Option<Value>, charge: &Charge) -> Result<(Parameters, Files)> {
    let object = match value {
        None | Some(Value::Null) => return Ok(Default::default()),
        Some(Value::Object(object)) => object,
        Some(_) => return Err(Error::invalid("'parameters' is not an object")),
    };
    let (mut parameters, mut files) = (Parameters::new(), Files::new());
    for (name, value) in object {
        if name.starts_with(FILE) {
            let content = read_file(&name, value, charge.another())?;
            files.push((name, content));
        } else {
            let value = read_parameter(&name, value)?;
            parameters.push((name.into(), value));
        }
    }
    Ok((parameters, files))
}

fn read_file(name: &str, value: Value, mut charge: Charge) -> Result<Bytes> {
    let Value::String(text) = value else {
        return Err(Error::invalid(format!("parameter '{name}': a file's content is a string of base64")));
    };
    charge.cover(text.len() / 4 * 3)?;
    let content = STANDARD
        .decode(text)
        .map_err(|error| Error::invalid(format!("parameter '{name}' is not base64: {error}")))?;
    Ok(charge.hold(content.into()))
}

fn read_parameter(name: &str, value: Value) -> Result<Parameter> {
    Ok(match value {
        Value::Bool(value) => Parameter::Bool(value),
        Value::String(text) => Parameter::String(text.into()),
        Value::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(value), ..) => Parameter::Int64(value),
            (None, Some(value), _) => Parameter::Uint64(value),
            (None, None, value) => Parameter::Double(value.unwrap_or_default()),
        },
        // A configuration given as an object instead of as its text.
        Value::Object(_) | Value::Array(_) => Parameter::String(value.to_string().into()),
        Value::Null => return Err(Error::invalid(format!("parameter '{name}' is null"))),
    })
}
