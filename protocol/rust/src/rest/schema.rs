//! The JSON of requests and responses, as serde reads it; bounded while it is read.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use bytes::Bytes;
use kingpole_values::{ByteString, Error, Parameter, Parameters, Result, Shape};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::elements::Elements;
use crate::{MAX_PARAMETERS, MAX_TENSORS};

/// A list of at most `MAX` elements: the bound holds while it is read.
pub(super) struct Capped<T, const MAX: usize>(pub(super) Vec<T>);

impl<T, const MAX: usize> Default for Capped<T, MAX> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

#[derive(Default, serde::Deserialize)]
#[serde(expecting = "an object")]
pub(super) struct RequestJson<'a> {
    #[serde(borrow)]
    pub(super) id: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) parameters: Option<ParametersJson<'a>>,
    #[serde(borrow, default, deserialize_with = "objects")]
    pub(super) inputs: Option<Capped<TensorJson<'a>, MAX_TENSORS>>,
    #[serde(borrow, default, deserialize_with = "objects")]
    pub(super) outputs: Option<Capped<OutputJson<'a>, MAX_TENSORS>>,
}

#[derive(serde::Deserialize)]
#[serde(expecting = "an object")]
pub(super) struct ResponseJson<'a> {
    #[serde(borrow)]
    pub(super) id: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) model_name: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) model_version: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) parameters: Option<ParametersJson<'a>>,
    #[serde(borrow, default, deserialize_with = "objects")]
    pub(super) outputs: Option<Capped<TensorJson<'a>, MAX_TENSORS>>,
}

#[derive(Default, serde::Deserialize)]
#[serde(expecting = "a tensor object")]
pub(super) struct TensorJson<'a> {
    #[serde(borrow)]
    pub(super) name: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) datatype: Option<Text<'a>>,
    pub(super) shape: Option<Capped<i64, { Shape::MAX_RANK }>>,
    #[serde(borrow)]
    pub(super) parameters: Option<ParametersJson<'a>>,
    #[serde(borrow)]
    pub(super) data: Option<&'a RawValue>,
    /// What `data` says, where it was read at once.
    #[serde(skip)]
    pub(super) elements: Option<Elements>,
}

#[derive(serde::Deserialize)]
#[serde(expecting = "an output object")]
pub(super) struct OutputJson<'a> {
    #[serde(borrow)]
    pub(super) name: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) parameters: Option<ParametersJson<'a>>,
}

/// Parameters in the order they came.
pub(crate) struct ParametersJson<'a>(pub(crate) Vec<(Cow<'a, str>, ParameterJson<'a>)>);

pub(crate) enum ParameterJson<'a> {
    Null,
    Bool(bool),
    Int64(i64),
    Uint64(u64),
    Double(f64),
    String(Cow<'a, str>),
}

/// A string that is borrowed where JSON allows: serde borrows a `Cow` only as a field of its own.
#[derive(serde::Deserialize)]
pub(crate) struct Text<'a>(#[serde(borrow)] pub(crate) Cow<'a, str>);

/// An object's fields by name. serde alone would also take a list of them, by position.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
            type Value = T;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> std::result::Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map))
            }
        }
        deserializer.deserialize_map(Fields(PhantomData)).map(Self)
    }
}

/// A list of objects, or null.
fn objects<'de, D, T, const MAX: usize>(
    deserializer: D,
) -> std::result::Result<Option<Capped<T, MAX>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    let objects = Option::<Capped<Object<T>, MAX>>::deserialize(deserializer)?;
    Ok(objects.map(|objects| Capped(objects.0.into_iter().map(|object| object.0).collect())))
}

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for Capped<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct List<T, const MAX: usize>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for List<T, MAX> {
            type Value = Capped<T, MAX>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> std::result::Result<Self::Value, A::Error> {
                let mut elements = Vec::new();
                while let Some(element) = list.next_element()? {
                    if elements.len() >= MAX {
                        return Err(A::Error::custom(format_args!("a list of more than {MAX} elements")));
                    }
                    elements.push(element);
                }
                Ok(Capped(elements))
            }
        }
        deserializer.deserialize_seq(List(PhantomData))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for ParametersJson<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = ParametersJson<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object of parameters")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Self::Value, A::Error> {
                let mut entries: Vec<(Cow<'de, str>, ParameterJson<'de>)> = Vec::new();
                while let Some((Text(name), value)) = map.next_entry()? {
                    if entries.iter().any(|(other, _)| *other == name) {
                        return Err(A::Error::custom(format_args!("parameter `{name}` is given twice")));
                    }
                    if entries.len() >= MAX_PARAMETERS {
                        return Err(A::Error::custom(format_args!("more than {MAX_PARAMETERS} parameters")));
                    }
                    entries.push((name, value));
                }
                Ok(ParametersJson(entries))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for ParameterJson<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Scalar;
        impl<'de> Visitor<'de> for Scalar {
            type Value = ParameterJson<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a string, a number or a bool as a parameter's value")
            }

            fn visit_unit<E>(self) -> std::result::Result<Self::Value, E> {
                Ok(ParameterJson::Null)
            }

            fn visit_bool<E>(self, value: bool) -> std::result::Result<Self::Value, E> {
                Ok(ParameterJson::Bool(value))
            }

            fn visit_i64<E>(self, value: i64) -> std::result::Result<Self::Value, E> {
                Ok(ParameterJson::Int64(value))
            }

            fn visit_u64<E>(self, value: u64) -> std::result::Result<Self::Value, E> {
                Ok(i64::try_from(value).map_or(ParameterJson::Uint64(value), ParameterJson::Int64))
            }

            fn visit_f64<E>(self, value: f64) -> std::result::Result<Self::Value, E> {
                Ok(ParameterJson::Double(value))
            }

            fn visit_borrowed_str<E>(self, value: &'de str) -> std::result::Result<Self::Value, E> {
                Ok(ParameterJson::String(Cow::Borrowed(value)))
            }

            fn visit_str<E>(self, value: &str) -> std::result::Result<Self::Value, E> {
                Ok(ParameterJson::String(Cow::Owned(value.to_owned())))
            }
        }
        deserializer.deserialize_any(Scalar)
    }
}

/// A string of the JSON as a view of the body where it has no escapes.
pub(crate) fn text(body: &Bytes, text: Cow<'_, str>) -> Result<ByteString> {
    match text {
        Cow::Borrowed("") => Ok(ByteString::new()),
        Cow::Borrowed(text) => ByteString::try_from(body.slice_ref(text.as_bytes()))
            .map_err(|_| Error::invalid("a string is not UTF-8")),
        Cow::Owned(text) => Ok(text.into()),
    }
}

/// Parameters as values; null ones are left out.
pub(crate) fn parameters(body: &Bytes, parameters: Option<ParametersJson<'_>>) -> Result<Parameters> {
    let Some(ParametersJson(entries)) = parameters else { return Ok(Parameters::new()) };
    let mut read = Parameters::with_capacity(entries.len());
    for (name, value) in entries {
        let value = match value {
            ParameterJson::Null => continue,
            ParameterJson::Bool(value) => Parameter::Bool(value),
            ParameterJson::Int64(value) => Parameter::Int64(value),
            ParameterJson::Uint64(value) => Parameter::Uint64(value),
            ParameterJson::Double(value) => Parameter::Double(value),
            ParameterJson::String(value) => Parameter::String(text(body, value)?),
        };
        read.push((text(body, name)?, value));
    }
    Ok(read)
}

/// Read the whole text in full, as an object's fields.
pub(crate) fn read<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T> {
    // serde does not look into the strings of fields that it ignores.
    let text = std::str::from_utf8(json).map_err(|error| {
        Error::invalid(format!("malformed JSON: not UTF-8 after {} bytes", error.valid_up_to()))
    })?;
    let Object(fields) = serde_json::from_str(text).map_err(|error| json_error(&error, json))?;
    Ok(fields)
}

/// What serde found wrong in `json`, as a sentence.
pub(super) fn json_error(error: &serde_json::Error, json: &[u8]) -> Error {
    if error.is_data() {
        return Error::invalid(format!("the request's JSON is not as expected: {error}"));
    }
    let way_out = if is_number_unknown_to_json(json, error) {
        "; JSON has no NaN and no Infinity: send the tensor as binary data, or use gRPC"
    } else {
        ""
    };
    Error::invalid(format!("malformed JSON: {error}{way_out}"))
}

/// Whether the text at the error is what many JSON libraries write for a float that is not finite.
fn is_number_unknown_to_json(json: &[u8], error: &serde_json::Error) -> bool {
    let Some(line) = error.line().checked_sub(1).and_then(|line| json.split(|&byte| byte == b'\n').nth(line))
    else {
        return false;
    };
    // serde counts the bytes it has taken: the one at fault is the last, or for a minus the one after.
    let at = error.column().saturating_sub(1);
    let text = line.get(at..).unwrap_or_default();
    ["NaN", "Infinity"].iter().any(|word| text.starts_with(word.as_bytes()))
}
