//! Rows (`instances`) and columns (`inputs`) in JSON, as TensorFlow Serving and `KServe` V1 ask for predictions.

use std::borrow::Cow;

use bytes::Bytes;
use kingpole_values::{ByteString, Error, InferRequest, Result, Tensor};
use serde_json::value::RawValue;

use super::column::Column;
use super::cursor::Cursor;
use super::{DeclaredInput, JsonPredict, Layout, find_input, only_input, shown};
use crate::MAX_TENSORS;
use crate::rest::schema;
use crate::rest::schema::{Text, text};

#[derive(serde::Deserialize)]
#[serde(expecting = "an object")]
struct PredictJson<'a> {
    #[serde(borrow)]
    signature_name: Option<Text<'a>>,
    #[serde(borrow)]
    instances: Option<&'a RawValue>,
    #[serde(borrow)]
    inputs: Option<&'a RawValue>,
}

/// Decode a body that has either `instances` or `inputs`.
///
/// # Errors
/// `INVALID_ARGUMENT` for anything malformed, naming the tensor and the place in it.
#[allow(clippy::needless_pass_by_value)] // the signature's name is a view of the body: this gives it away
pub fn decode_predict(body: Bytes, declared: &[DeclaredInput]) -> Result<JsonPredict> {
    let fields: PredictJson<'_> = schema::read(&body)?;
    let signature = fields.signature_name.map(|name| text(&body, name.0)).transpose()?;
    read_values(fields.instances, fields.inputs, signature, declared)
}

pub(super) fn read_values(
    instances: Option<&RawValue>,
    inputs: Option<&RawValue>,
    signature: Option<ByteString>,
    declared: &[DeclaredInput],
) -> Result<JsonPredict> {
    let (layout, tensors) = match (instances, inputs) {
        (Some(instances), None) => {
            (Layout::Rows, read_rows("instances", Cursor::new(instances.get()), declared)?)
        }
        (None, Some(inputs)) => (Layout::Columns, read_columns(Cursor::new(inputs.get()), declared)?),
        (Some(_), Some(_)) => {
            return Err(Error::invalid("the request has both 'instances' and 'inputs', expected one"));
        }
        (None, None) => {
            return Err(Error::invalid("the request has neither 'instances' nor 'inputs'"));
        }
    };
    let request = InferRequest { inputs: tensors, ..InferRequest::default() };
    Ok(JsonPredict { request, layout, signature })
}

fn read_columns(mut cursor: Cursor<'_>, declared: &[DeclaredInput]) -> Result<Vec<Tensor>> {
    let is_object = cursor.peek() == b'{' && { cursor }.base64()?.is_none();
    if !is_object {
        return Ok(vec![Column::new(&declared[only_input(declared)?]).whole(cursor)?]);
    }
    cursor.enter(b'{');
    let mut tensors = Vec::new();
    while cursor.member(b'}') {
        let name = cursor.key()?;
        check_count(tensors.len())?;
        // An input that is given twice is the validator's to refuse.
        tensors.push(Column::new(&declared[find_input(declared, &name)?]).whole(cursor.value())?);
    }
    Ok(tensors)
}

fn check_count(already: usize) -> Result<()> {
    if already >= MAX_TENSORS {
        return Err(Error::invalid(format!("more than {MAX_TENSORS} inputs")));
    }
    Ok(())
}

/// Read a list, each element of which has one row of every input.
fn read_rows(what: &str, mut cursor: Cursor<'_>, declared: &[DeclaredInput]) -> Result<Vec<Tensor>> {
    if !cursor.enter(b'[') {
        return Err(Error::invalid(format!("'{what}' must be a list")));
    }
    if cursor.peek() == b']' {
        return Err(Error::invalid(format!("'{what}' is empty")));
    }
    if is_named(cursor)? {
        let columns = named_rows(what, cursor, declared)?;
        return Ok(columns.into_iter().map(Column::finish).collect());
    }
    let mut column = Column::new(&declared[only_input(declared)?]);
    while cursor.member(b']') {
        column.row(&mut cursor)?;
    }
    Ok(vec![column.finish()])
}

/// Whether the next row is an object of inputs, not a value of the only one.
fn is_named(mut cursor: Cursor<'_>) -> Result<bool> {
    Ok(cursor.peek() == b'{' && cursor.base64()?.is_none())
}

/// Read objects that each have a value of every input.
pub(super) fn named_rows<'a>(
    what: &str,
    mut cursor: Cursor<'a>,
    declared: &'a [DeclaredInput],
) -> Result<Vec<Column<'a>>> {
    // Which columns the first row has, in its order, is what the others must have.
    let mut columns: Vec<(Cow<'a, str>, Column<'a>)> = Vec::new();
    let mut row = 0;
    while cursor.member(b']') {
        if !cursor.enter(b'{') {
            return Err(Error::invalid(format!(
                "{what}[{row}] must be an object of inputs, as {what}[0] is"
            )));
        }
        let mut position = 0;
        while cursor.member(b'}') {
            let name = cursor.key()?;
            // Rows mostly repeat the first one's order, so the column at the same position is tried first.
            let index = match columns.get(position) {
                Some((known, _)) if *known == name => Some(position),
                _ => columns.iter().position(|(known, _)| *known == name),
            };
            let index = match index {
                Some(index) => index,
                None if row == 0 => {
                    check_count(columns.len())?;
                    columns.push((name.clone(), Column::new(&declared[find_input(declared, &name)?])));
                    columns.len() - 1
                }
                None => {
                    return Err(Error::invalid(format!(
                        "{what}[{row}] has '{}', which {what}[0] has not",
                        shown(&name)
                    )));
                }
            };
            let column = &mut columns[index].1;
            if column.rows() > row {
                return Err(Error::invalid(format!("{what}[{row}] has '{}' twice", shown(&name))));
            }
            column.row(&mut cursor)?;
            position += 1;
        }
        row += 1;
        if let Some((name, _)) = columns.iter().find(|(_, column)| column.rows() < row) {
            let index = row - 1;
            return Err(Error::invalid(format!(
                "{what}[{index}] lacks '{}', which {what}[0] has",
                shown(name)
            )));
        }
    }
    Ok(columns.into_iter().map(|(_, column)| column).collect())
}
