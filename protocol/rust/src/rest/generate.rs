//! The generate extension: inputs and outputs as plain fields of one JSON object.

use std::borrow::Cow;
use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};
use kingpole_values::{ByteString, Datatype, Error, InferRequest, InferResponse, Result, Shape, Tensor};
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::schema::{ParameterJson, ParametersJson, Text, json_error, parameters, text};
use super::{elements, write};
use crate::{MAX_PARAMETERS, MAX_TENSORS};

/// What has to be known of a model to read a request for it.
pub struct GenerateModel<'a> {
    /// Name, datatype and declared shape of each input; -1 is any size.
    pub inputs: Vec<(&'a str, Datatype, &'a Shape)>,
    /// Whether the first dimension of every input is that of the batch.
    pub batches: bool,
}

/// The fields of an object, in the order they came.
struct Fields<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Fields<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Self::Value, A::Error> {
                let mut fields: Vec<(Cow<'de, str>, &'de RawValue)> = Vec::new();
                while let Some((Text(name), value)) = map.next_entry()? {
                    if fields.iter().any(|(other, _)| *other == name) {
                        return Err(A::Error::custom(format_args!("field `{name}` is given twice")));
                    }
                    if fields.len() >= MAX_TENSORS + MAX_PARAMETERS {
                        return Err(A::Error::custom(format_args!(
                            "more than {} fields",
                            MAX_TENSORS + MAX_PARAMETERS
                        )));
                    }
                    fields.push((name, value));
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

/// Decode a request: fields that name an input are its elements; `parameters`, and every other field, are
/// parameters of the request, but for a text `id`.
///
/// # Errors
/// `INVALID_ARGUMENT`, naming the field.
#[allow(clippy::needless_pass_by_value)] // strings are views of the body: this gives it away
pub fn decode_generate_request(body: Bytes, model: &GenerateModel<'_>) -> Result<InferRequest> {
    let Fields(fields) = serde_json::from_slice(&body).map_err(|error| json_error(&error, &body))?;
    let mut request = InferRequest::default();
    let mut others: Vec<(Cow<'_, str>, ParameterJson<'_>)> = Vec::new();
    for (name, value) in fields {
        if let Some(&(_, datatype, declared)) = model.inputs.iter().find(|(input, ..)| *input == name) {
            if value.get() != "null" {
                request.inputs.push(read_input(&name, datatype, declared, model.batches, value.get())?);
            }
        } else if name == "id" {
            let id: Option<Text<'_>> = read_field(&name, value)?;
            request.id = id.map(|id| text(&body, id.0)).transpose()?.filter(|id| !id.is_empty());
        } else if name == "parameters" {
            let nested: Option<ParametersJson<'_>> = read_field(&name, value)?;
            others.extend(nested.into_iter().flat_map(|nested| nested.0));
        } else {
            others.push((name.clone(), read_field(&name, value)?));
        }
    }
    if others.len() > MAX_PARAMETERS {
        return Err(Error::invalid(format!("more than {MAX_PARAMETERS} parameters")));
    }
    for (index, (name, _)) in others.iter().enumerate() {
        if others[..index].iter().any(|(other, _)| other == name) {
            return Err(Error::invalid(format!("parameter '{name}' is given twice")));
        }
    }
    request.parameters = parameters(&body, Some(ParametersJson(others)))?;
    crate::parameters::lift_reserved(&mut request)?;
    crate::parameters::take_empty_final_response(&mut request)?;
    Ok(request)
}

fn read_field<'a, T: Deserialize<'a>>(name: &str, value: &'a RawValue) -> Result<T> {
    serde_json::from_str(value.get()).map_err(|error| Error::invalid(format!("field '{name}': {error}")))
}

fn read_input(name: &str, datatype: Datatype, declared: &Shape, batches: bool, json: &str) -> Result<Tensor> {
    // What a long text holds is not known before: there it grows.
    let (read, _) = elements::read(json.as_bytes(), name, datatype, 4096)?;
    let shape = implied_shape(name, declared, batches, read.count, &read.nesting)?;
    Ok(Tensor { name: name.into(), datatype, shape, data: read.data })
}

/// The shape of a value.
///
/// Lists nested as deep as the shape, or as one row of it, say it themselves. A bare value or a flat list is
/// a batch of one row, and its only dimension that may vary follows from the number of elements. Whether the
/// shape is the model's is judged where that of every request is.
fn implied_shape(
    name: &str,
    declared: &Shape,
    batches: bool,
    elements: usize,
    nesting: &[usize],
) -> Result<Shape> {
    let size_of = |length: usize| i64::try_from(length).unwrap_or(i64::MAX);
    if nesting.len() > 1 || nesting.len() == declared.len() {
        let row = batches && nesting.len() + 1 == declared.len();
        return Ok(row.then_some(1).into_iter().chain(nesting.iter().copied().map(size_of)).collect());
    }
    let mut sizes: Vec<i64> = declared.to_vec();
    if let Some(rows) = sizes.first_mut().filter(|_| batches) {
        *rows = 1;
    }
    let elements = size_of(elements);
    let fixed: i64 = sizes.iter().filter(|&&size| size >= 0).product();
    let variable = sizes.iter().filter(|&&size| size < 0).count();
    let filled = match variable {
        0 if elements == fixed => 0,
        1 if fixed > 0 && elements % fixed == 0 => elements / fixed,
        2.. if elements == fixed => 1,
        _ => {
            return Err(Error::invalid(format!(
                "input '{name}': {elements} elements do not fit, or do not say, the shape {declared}; \
                 nest the list as the shape is"
            )));
        }
    };
    sizes.iter_mut().filter(|size| **size < 0).for_each(|size| *size = filled);
    Ok(Shape::new(&sizes))
}

/// Encode a response: its parameters and outputs as fields, outputs of one element bare, others flat lists.
///
/// # Errors
/// `INVALID_ARGUMENT` when JSON cannot hold an output (not a finite number, not UTF-8).
pub fn encode_generate_response(response: &InferResponse) -> Result<Bytes> {
    let mut json = BytesMut::with_capacity(256);
    json.put_u8(b'{');
    if let Some(id) = &response.id {
        write::key(&mut json, "id");
        write::string(&mut json, id);
    }
    write::key(&mut json, "model_name");
    write::string(&mut json, &response.model);
    write::key(&mut json, "model_version");
    write::string(&mut json, &response.version);
    let is_output = |name: &ByteString| response.outputs.iter().any(|output| output.name == *name);
    for (name, value) in response.parameters.iter().filter(|(name, _)| !is_output(name)) {
        write::key(&mut json, name);
        write::parameter(&mut json, name, value)?;
    }
    for output in &response.outputs {
        write::key(&mut json, &output.name);
        write::bare(&mut json, output)?;
    }
    json.put_u8(b'}');
    Ok(json.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;
    use kingpole_values::{Code, Parameter};

    fn decode(json: &'static str) -> Result<InferRequest> {
        let (text, numbers) = (Shape::new(&[-1, 1]), Shape::new(&[-1, -1, 2]));
        let inputs = vec![("text", Datatype::Bytes, &text), ("numbers", Datatype::Int32, &numbers)];
        decode_generate_request(Bytes::from_static(json.as_bytes()), &GenerateModel { inputs, batches: true })
    }

    fn shape_of(json: &'static str) -> Vec<i64> {
        decode(json).unwrap().inputs[0].shape.to_vec()
    }

    #[test]
    fn fields_are_inputs_if_they_are_called_so_and_parameters_if_not() {
        let request = decode(
            r#"{"text": "hi", "id": "7", "parameters": {"n": 3, "timeout": 9}, "stream": false, "stop": "."}"#,
        )
        .unwrap();
        assert_eq!((request.id.as_deref(), request.timeout_us), (Some("7"), Some(9)));
        assert_eq!(request.inputs.len(), 1);
        assert_eq!(
            (&request.inputs[0].shape[..], &request.inputs[0].data[..]),
            (&[1, 1][..], &b"\x02\0\0\0hi"[..])
        );
        let expected = [
            ("n", Parameter::Int64(3)),
            ("stream", Parameter::Bool(false)),
            ("stop", Parameter::String(".".into())),
        ];
        assert_eq!(request.parameters, expected.map(|(name, value)| (name.into(), value)));
    }

    #[test]
    fn the_shape_follows_from_the_value() {
        assert_eq!(shape_of(r#"{"text": ["a"]}"#), [1, 1]);
        assert_eq!(shape_of(r#"{"text": [["a"], ["b"]]}"#), [2, 1]);
        assert_eq!(shape_of(r#"{"numbers": [1, 2, 3, 4]}"#), [1, 2, 2]);
        assert_eq!(shape_of(r#"{"numbers": [[1, 2], [3, 4], [5, 6]]}"#), [1, 3, 2]);
        assert_eq!(shape_of(r#"{"numbers": [[[1, 2]], [[3, 4]]]}"#), [2, 1, 2]);
        assert_eq!(shape_of(r#"{"numbers": []}"#), [1, 0, 2]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (json, text) in [
            ("[]", "an object"),
            (r#"{"text": 1}"#, "'text'"),
            (r#"{"numbers": [1, 2, 3]}"#, "'numbers': 3 elements"),
            (r#"{"numbers": [[1, 2], [3]]}"#, "'numbers'"),
            (r#"{"other": [1]}"#, "'other'"),
            (r#"{"other": 1, "parameters": {"other": 2}}"#, "'other' is given twice"),
            (r#"{"id": 5}"#, "'id'"),
            (r#"{"a": 1, "a": 2}"#, "`a` is given twice"),
            (r#"{"triton_x": 1}"#, "'triton_x'"),
        ] {
            let error = decode(json).unwrap_err();
            assert_eq!(error.code, Code::InvalidArgument);
            assert!(error.message.contains(text), "{json}: {error}");
        }
    }
}
