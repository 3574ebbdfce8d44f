//! The shared memory extensions: status, register, unregister.

use http::StatusCode;
use kingpole_values::{Error, Result};
use serde_json::{Map, Value, json};

use super::object;
use crate::connection::Shared;
use crate::message::{HttpRequest, HttpResponse};
use crate::regions;
use crate::status::Dialect;

fn answer(result: Result<Value>) -> HttpResponse {
    match result {
        Ok(value) => HttpResponse::json(StatusCode::OK, &value),
        Err(error) => Dialect::Json.error(&error),
    }
}

pub(super) fn status(is_system: bool, region: Option<&str>, shared: &Shared) -> HttpResponse {
    if !is_system {
        // Clients ask for all of them to learn whether there are any: there never are.
        return answer(region.map_or(Ok(json!([])), |name| Err(regions::unknown_cuda(name))));
    }
    answer(regions::of(shared).and_then(|regions| regions.status(region)).map(|found| {
        let row = |(name, region): (String, std::sync::Arc<regions::Region>)| {
            json!({"name": name, "key": region.key, "offset": region.offset(), "byte_size": region.bytes()})
        };
        found.into_iter().map(row).collect()
    }))
}

pub(super) fn unregister(is_system: bool, region: Option<&str>, shared: &Shared) -> HttpResponse {
    if !is_system {
        return answer(Ok(json!({})));
    }
    answer(regions::of(shared).map(|regions| {
        regions.unregister(region);
        json!({})
    }))
}

pub(super) async fn register(
    is_system: bool,
    request: HttpRequest,
    name: &str,
    shared: &Shared,
) -> HttpResponse {
    let object = match object::read(request, shared).await {
        Ok(read) => read.fields,
        Err(refusal) => return *refusal,
    };
    if !is_system {
        return answer(Err(regions::no_cuda()));
    }
    answer(regions::of(shared).and_then(|regions| {
        let Some(Value::String(key)) = object.get("key") else {
            return Err(Error::invalid("'key' is missing or not a text"));
        };
        let offset = number(&object, "offset")?.unwrap_or(0);
        let Some(bytes) = number(&object, "byte_size")? else {
            return Err(Error::invalid("'byte_size' is missing"));
        };
        regions.register(name, key, offset, bytes)?;
        Ok(json!({}))
    }))
}

fn number(object: &Map<String, Value>, name: &str) -> Result<Option<u64>> {
    match object.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value
            .as_u64()
            .map(Some)
            .ok_or_else(|| Error::invalid(format!("'{name}' is not an integer of at least 0"))),
    }
}
