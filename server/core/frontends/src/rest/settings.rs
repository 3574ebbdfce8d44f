//! The logging and trace extensions: what is set, and setting it.

use http::{Method, StatusCode};
use kingpole_engine::Engine;
use kingpole_values::{ByteString, Error, Parameter, Parameters, Result};
use serde_json::{Map, Value, json};

use super::{not_allowed, object};
use crate::connection::Shared;
use crate::message::{HttpRequest, HttpResponse};
use crate::status::Dialect;

const METHODS: &str = "GET, HEAD, POST";

/// Answer at `/v2/logging`.
pub(super) async fn logging(request: HttpRequest, shared: &Shared) -> HttpResponse {
    let told = |engine: &Engine| {
        let settings = engine.log_settings().named();
        let value = |(name, value): (ByteString, Parameter)| (String::from(name), json_of(value));
        HttpResponse::json(StatusCode::OK, &Value::Object(settings.into_iter().map(value).collect()))
    };
    match request.method {
        Method::GET | Method::HEAD => told(&shared.engine),
        Method::POST => {
            let object = match object::read(request, shared).await {
                Ok(read) => read.fields,
                Err(refusal) => return *refusal,
            };
            match log_changes(object).and_then(|changes| shared.engine.change_log(&changes)) {
                Ok(()) => told(&shared.engine),
                Err(error) => Dialect::Json.error(&error),
            }
        }
        _ => not_allowed(&request, METHODS),
    }
}

fn json_of(value: Parameter) -> Value {
    match value {
        Parameter::Bool(value) => value.into(),
        Parameter::Int64(value) => value.into(),
        Parameter::Uint64(value) => value.into(),
        Parameter::Double(value) => value.into(),
        Parameter::String(value) => String::from(value).into(),
    }
}

fn log_changes(object: Map<String, Value>) -> Result<Parameters> {
    let change = |(name, value): (String, Value)| {
        let value = match value {
            Value::Bool(value) => Parameter::Bool(value),
            Value::String(text) => Parameter::String(text.into()),
            Value::Number(number) => match number.as_u64() {
                Some(value) => Parameter::Uint64(value),
                None => Parameter::Double(number.as_f64().unwrap_or_default()),
            },
            _ => {
                let message = format!("log setting '{name}' must be a string, a number, true or false");
                return Err(Error::invalid(message));
            }
        };
        Ok((name.into(), value))
    };
    object.into_iter().map(change).collect()
}

/// Answer at `/v2/trace/setting`, and at that of a model.
pub(super) async fn trace(request: HttpRequest, model: Option<&str>, shared: &Shared) -> HttpResponse {
    if let Some(Err(error)) = model.map(|model| shared.engine.model(model, None)) {
        return Dialect::Json.error(&error);
    }
    match request.method {
        Method::GET | Method::HEAD => tell_trace(&shared.engine, model),
        Method::POST => {
            let object = match object::read(request, shared).await {
                Ok(read) => read.fields,
                Err(refusal) => return *refusal,
            };
            let changed = trace_changes(object).and_then(|changes| {
                let changes: Vec<_> = changes.iter().map(|(name, values)| (&**name, &values[..])).collect();
                shared.engine.change_trace(model, &changes)
            });
            match changed {
                Ok(()) => tell_trace(&shared.engine, model),
                Err(error) => Dialect::Json.error(&error),
            }
        }
        _ => not_allowed(&request, METHODS),
    }
}

/// A level is a list in the extension's JSON, everything else a string.
fn tell_trace(engine: &Engine, model: Option<&str>) -> HttpResponse {
    let setting = |(name, value): (&str, String)| {
        let value = if name == "trace_level" { json!([value]) } else { json!(value) };
        (name.to_owned(), value)
    };
    HttpResponse::json(
        StatusCode::OK,
        &Value::Object(engine.trace_settings(model).into_iter().map(setting).collect()),
    )
}

/// Null asks for the default, which is no value.
fn trace_changes(object: Map<String, Value>) -> Result<Vec<(String, Vec<String>)>> {
    let text = |name: &str, value: Value| match value {
        Value::String(text) => Ok(text),
        Value::Number(number) => Ok(number.to_string()),
        _ => Err(Error::invalid(format!("trace setting '{name}' must be a string or a list of strings"))),
    };
    let change = |(name, value): (String, Value)| {
        let values = match value {
            Value::Null => Vec::new(),
            Value::Array(values) => {
                values.into_iter().map(|value| text(&name, value)).collect::<Result<_>>()?
            }
            value => vec![text(&name, value)?],
        };
        Ok((name, values))
    };
    object.into_iter().map(change).collect()
}
