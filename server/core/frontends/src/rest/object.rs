//! Bodies that are one JSON object.

use bytes::Bytes;
use kingpole_values::Error;
use serde_json::{Map, Value};

use crate::body;
use crate::budget::Charge;
use crate::connection::Shared;
use crate::message::{HttpRequest, HttpResponse};
use crate::status::Dialect;

/// An object and the bytes that it was made of, which are counted as held for as long as they live.
pub(super) struct Read {
    pub(super) fields: Map<String, Value>,
    pub(super) body: Bytes,
    /// For what the fields hold beside it.
    pub(super) charge: Charge,
}

/// Read a body that is an object; an empty one is an empty object.
pub(super) async fn read(request: HttpRequest, shared: &Shared) -> Result<Read, Box<HttpResponse>> {
    let body = body::read(request.body, &request.headers, shared)
        .await
        .map_err(|error| Dialect::Json.body_error(&error))?;
    let mut charge = shared.memory.open();
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(Read { fields: Map::new(), body, charge });
    }
    charge.cover(body.len()).map_err(|error| Dialect::Json.error(&error))?;
    let fields = serde_json::from_slice(&body)
        .map_err(|error| Dialect::Json.error(&Error::invalid(format!("malformed JSON: {error}"))))?;
    Ok(Read { fields, body, charge })
}
