//! Bodies to values.

use bytes::{Bytes, BytesMut};
use kingpole_values::{
    ByteString, Datatype, Error, InferRequest, RequestedOutput, Result, Shape, Tensor, write_byte_string,
};

use super::flat::{Table, malformed, text};
use super::{GraphpipeMetadata, GraphpipeRequest, GraphpipeResponse, GraphpipeSpec, datatype_of};
use crate::MAX_TENSORS;

/// Strings of a flatbuffer may be shared by many offsets: what they make up together, times the body.
const MAX_STRING_EXPANSION: usize = 8;

/// Decode a request's body. Tensors (but for strings) and names are views of `body`.
///
/// # Errors
/// `INVALID_ARGUMENT`, naming the fault, for whatever the reference server answers by closing the
/// connection, or by a Null tensor.
#[allow(clippy::needless_pass_by_value)] // the request is a view of the body: this gives it away
pub fn decode_request(body: Bytes) -> Result<GraphpipeRequest> {
    let root = Table::root(&body)?;
    let member = root.table(1)?;
    match (root.byte(0)?, member) {
        (1, Some(infer)) => read_infer(&infer, body.len()),
        (2, _) => Ok(GraphpipeRequest::Metadata),
        (1, None) => Err(malformed("req_type says InferRequest, but there is none")),
        (kind, _) => {
            Err(malformed(&format!("req_type is {kind}; 1 (InferRequest) and 2 (MetadataRequest) exist")))
        }
    }
}

fn read_infer(infer: &Table<'_>, body_bytes: usize) -> Result<GraphpipeRequest> {
    let names = read_names(infer, 1, "an input's name")?;
    let outputs = read_names(infer, 3, "an output's name")?;
    let inputs = read_tensors(infer, 2, &names, "input", body_bytes)?;
    if names.len() > inputs.len() {
        return Err(Error::invalid(format!(
            "{} input names for {} input tensors",
            names.len(),
            inputs.len()
        )));
    }
    let outputs = outputs.into_iter().map(|name| RequestedOutput { name, parameters: Vec::new() }).collect();
    Ok(GraphpipeRequest::Infer {
        request: InferRequest { inputs, outputs, ..InferRequest::default() },
        config: infer.string(0, "config")?.filter(|config| !config.is_empty()),
    })
}

fn read_names(table: &Table<'_>, slot: usize, what: &'static str) -> Result<Vec<ByteString>> {
    let Some(names) = table.strings(slot)? else { return Ok(Vec::new()) };
    check_tensors(names.len())?;
    names.map(|name| text(name?, what)).collect()
}

fn read_tensors(
    table: &Table<'_>,
    slot: usize,
    names: &[ByteString],
    kind: &str,
    body_bytes: usize,
) -> Result<Vec<Tensor>> {
    let Some(tensors) = table.tables(slot)? else { return Ok(Vec::new()) };
    check_tensors(tensors.len())?;
    let mut read = Vec::with_capacity(tensors.len());
    let mut budget = body_bytes.saturating_mul(MAX_STRING_EXPANSION);
    for (index, tensor) in tensors.enumerate() {
        let name = names.get(index).cloned().unwrap_or_default();
        let label = if name.is_empty() { format!("{kind} {index}") } else { format!("{kind} '{name}'") };
        let (datatype, shape, data) = read_tensor(&tensor?, &label, &mut budget)?;
        let tensor = Tensor { name, datatype, shape, data };
        tensor.check_size().map_err(|error| match error.message.split_once(": ") {
            Some((_, what)) => Error::invalid(format!("{label}: {what}")),
            None => error,
        })?;
        read.push(tensor);
    }
    Ok(read)
}

fn read_tensor(tensor: &Table<'_>, label: &str, budget: &mut usize) -> Result<(Datatype, Shape, Bytes)> {
    let number = tensor.byte(0)?;
    let Some(datatype) = datatype_of(number) else {
        return Err(Error::invalid(if number == 0 {
            format!("{label}: type is Null")
        } else {
            format!("{label}: unknown type {number}")
        }));
    };
    let shape = read_shape(tensor, 1, label)?;
    if datatype != Datatype::Bytes {
        if tensor.vector(3, 4)?.is_some_and(|(_, length)| length > 0) {
            return Err(Error::invalid(format!(
                "{label}: {datatype} elements belong in data, got string_val"
            )));
        }
        return Ok((datatype, shape, tensor.bytes(2)?.unwrap_or_default()));
    }
    if tensor.vector(2, 1)?.is_some_and(|(_, length)| length > 0) {
        return Err(Error::invalid(format!("{label}: String elements belong in string_val, got data")));
    }
    let mut data = BytesMut::new();
    for element in tensor.strings(3)?.into_iter().flatten() {
        let element = element?;
        *budget = budget
            .checked_sub(element.len() + 4)
            .ok_or_else(|| Error::exhausted(format!("{label}: strings far longer together than the body")))?;
        write_byte_string(&mut data, &element);
    }
    Ok((datatype, shape, data.freeze()))
}

fn read_shape(table: &Table<'_>, slot: usize, label: &str) -> Result<Shape> {
    let Some(dimensions) = table.longs(slot)? else { return Ok(Shape::default()) };
    if dimensions.len() > Shape::MAX_RANK {
        return Err(Error::invalid(format!("{label}: more than {} dimensions", Shape::MAX_RANK)));
    }
    Ok(dimensions.collect())
}

fn check_tensors(announced: usize) -> Result<()> {
    if announced > MAX_TENSORS {
        return Err(Error::exhausted(format!("more than {MAX_TENSORS} tensors or names")));
    }
    Ok(())
}

/// Decode the answer to an inference.
#[allow(clippy::needless_pass_by_value)] // the response is a view of the body: this gives it away
pub fn decode_response(body: Bytes) -> Result<GraphpipeResponse> {
    let root = Table::root(&body)?;
    let outputs = read_tensors(&root, 0, &[], "output", body.len())?;
    let mut errors = Vec::new();
    if let Some(tables) = root.tables(1)? {
        check_tensors(tables.len())?;
        for error in tables {
            let error = error?;
            errors.push((error.long(0)?, error.string(1, "an error's message")?.unwrap_or_default()));
        }
    }
    Ok(GraphpipeResponse { outputs, errors })
}

/// Decode the answer to a request for metadata.
#[allow(clippy::needless_pass_by_value)] // the metadata is a view of the body: this gives it away
pub fn decode_metadata_response(body: Bytes) -> Result<GraphpipeMetadata> {
    let root = Table::root(&body)?;
    let field = |slot| Ok(root.string(slot, "a field of the metadata")?.unwrap_or_default());
    Ok(GraphpipeMetadata {
        name: field(0)?,
        version: field(1)?,
        server: field(2)?,
        description: field(3)?,
        inputs: read_specs(&root, 4)?,
        outputs: read_specs(&root, 5)?,
    })
}

fn read_specs(root: &Table<'_>, slot: usize) -> Result<Vec<GraphpipeSpec>> {
    let Some(specs) = root.tables(slot)? else { return Ok(Vec::new()) };
    check_tensors(specs.len())?;
    let specs = specs.map(|spec| {
        let spec = spec?;
        Ok(GraphpipeSpec {
            name: spec.string(0, "a name")?.unwrap_or_default(),
            description: spec.string(1, "a description")?.unwrap_or_default(),
            shape: read_shape(&spec, 2, "the metadata's shape")?,
            datatype: datatype_of(spec.byte(3)?),
        })
    });
    specs.collect()
}
