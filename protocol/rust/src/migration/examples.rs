//! `examples`, as TensorFlow Serving asks for classification and regression in JSON.

use bytes::Bytes;
use kingpole_values::{Error, InferRequest, Result};
use serde_json::value::RawValue;

use super::column::Column;
use super::cursor::Cursor;
use super::predict::named_rows;
use super::{DeclaredInput, JsonPredict, Layout};
use crate::rest::schema;
use crate::rest::schema::{Text, text};

#[derive(serde::Deserialize)]
#[serde(expecting = "an object")]
struct ExamplesJson<'a> {
    #[serde(borrow)]
    signature_name: Option<Text<'a>>,
    #[serde(borrow)]
    context: Option<&'a RawValue>,
    #[serde(borrow)]
    examples: Option<&'a RawValue>,
}

/// Decode a body of `examples`: each an object with a value, or a list of values, of every feature.
///
/// # Errors
/// `INVALID_ARGUMENT` for anything malformed, naming the tensor and the place in it.
#[allow(clippy::needless_pass_by_value)] // the signature's name is a view of the body: this gives it away
pub fn decode_examples(body: Bytes, declared: &[DeclaredInput]) -> Result<JsonPredict> {
    let fields: ExamplesJson<'_> = schema::read(&body)?;
    let Some(examples) = fields.examples else {
        return Err(Error::invalid("the request has no 'examples'"));
    };
    if fields.context.is_some_and(|context| !matches!(context.get(), "{}" | "null")) {
        return Err(Error::invalid("a 'context' of examples is not supported: give its features in each"));
    }
    let mut cursor = Cursor::new(examples.get());
    if !cursor.enter(b'[') {
        return Err(Error::invalid("'examples' must be a list"));
    }
    if cursor.peek() == b']' {
        return Err(Error::invalid("'examples' is empty"));
    }
    let columns = named_rows("examples", cursor, declared)?;
    // A feature is a list of values; a lone value stands for a list of one.
    let inputs = columns.into_iter().map(Column::finish_fitted).collect();
    let signature = fields.signature_name.map(|name| text(&body, name.0)).transpose()?;
    let request = InferRequest { inputs, ..InferRequest::default() };
    Ok(JsonPredict { request, layout: Layout::Rows, signature })
}
