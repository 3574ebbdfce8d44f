//! JSON of tensors, written straight from little-endian bytes.

use bytes::{BufMut, BytesMut};
use half::{bf16, f16};
use kingpole_values::{Datatype, Error, Parameter, Parameters, Result, Tensor, split_byte_strings};

use super::half_precision;
use crate::regions::{RegionRange, range_parameters};

/// A JSON string.
pub(crate) fn string(out: &mut BytesMut, text: &str) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.put_u8(b'"');
    let mut plain_from = 0;
    let bytes = text.as_bytes();
    for (at, &byte) in bytes.iter().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.put_slice(&bytes[plain_from..at]);
        plain_from = at + 1;
        match byte {
            b'"' => out.put_slice(b"\\\""),
            b'\\' => out.put_slice(b"\\\\"),
            b'\n' => out.put_slice(b"\\n"),
            b'\r' => out.put_slice(b"\\r"),
            b'\t' => out.put_slice(b"\\t"),
            _ => {
                out.put_slice(b"\\u00");
                out.put_u8(HEX[usize::from(byte >> 4)]);
                out.put_u8(HEX[usize::from(byte & 15)]);
            }
        }
    }
    out.put_slice(&bytes[plain_from..]);
    out.put_u8(b'"');
}

/// `"name":` and a separator before it if it is not the first of its object.
pub(crate) fn key(out: &mut BytesMut, name: &str) {
    if !matches!(out.last(), Some(b'{' | b'[') | None) {
        out.put_u8(b',');
    }
    string(out, name);
    out.put_u8(b':');
}

/// How a tensor's elements travel.
#[derive(Clone, Copy)]
pub(super) enum Travel<'a> {
    /// In its object.
    Json,
    /// After the JSON.
    Binary,
    /// In shared memory.
    Region(&'a RegionRange),
}

/// A tensor object: its elements as JSON, or where else they are.
pub(super) fn tensor(out: &mut BytesMut, tensor: &Tensor, travel: Travel<'_>) -> Result<()> {
    out.put_u8(b'{');
    key(out, "name");
    string(out, &tensor.name);
    key(out, "datatype");
    string(out, tensor.datatype.name());
    key(out, "shape");
    list(out, tensor.shape.iter(), |out, &dimension| {
        out.put_slice(itoa::Buffer::new().format(dimension).as_bytes());
        Ok(())
    })?;
    match travel {
        Travel::Json => {
            key(out, "data");
            elements(out, tensor)?;
        }
        Travel::Binary => {
            key(out, "parameters");
            out.put_slice(b"{\"binary_data_size\":");
            out.put_slice(itoa::Buffer::new().format(tensor.data.len()).as_bytes());
            out.put_u8(b'}');
        }
        Travel::Region(range) => {
            let mut said = range_parameters(range);
            // Triton's C++ client looks for it in any output that has parameters.
            said.push(("binary_data_size".into(), Parameter::Int64(0)));
            parameters(out, &said)?;
        }
    }
    out.put_u8(b'}');
    Ok(())
}

/// A parameters object, with a separator before it; nothing if there are none.
pub(super) fn parameters(out: &mut BytesMut, parameters: &Parameters) -> Result<()> {
    if parameters.is_empty() {
        return Ok(());
    }
    key(out, "parameters");
    out.put_u8(b'{');
    for (name, value) in parameters {
        key(out, name);
        parameter(out, name, value)?;
    }
    out.put_u8(b'}');
    Ok(())
}

pub(super) fn parameter(out: &mut BytesMut, name: &str, value: &Parameter) -> Result<()> {
    match value {
        Parameter::Bool(value) => boolean(out, *value),
        Parameter::Int64(value) => out.put_slice(itoa::Buffer::new().format(*value).as_bytes()),
        Parameter::Uint64(value) => out.put_slice(itoa::Buffer::new().format(*value).as_bytes()),
        Parameter::Double(value) if value.is_finite() => {
            out.put_slice(ryu::Buffer::new().format_finite(*value).as_bytes());
        }
        Parameter::Double(value) => {
            return Err(Error::invalid(format!(
                "parameter '{name}' is {value}, which JSON cannot hold: use gRPC"
            )));
        }
        Parameter::String(value) => string(out, value),
    }
    Ok(())
}

/// A tensor's elements: the bare one if there is one, else a flat list.
pub(super) fn bare(out: &mut BytesMut, tensor: &Tensor) -> Result<()> {
    if tensor.shape.elements() != Some(1) {
        return elements(out, tensor);
    }
    let mut list = BytesMut::new();
    elements(&mut list, tensor)?;
    out.put_slice(&list[1..list.len() - 1]);
    Ok(())
}

fn boolean(out: &mut BytesMut, value: bool) {
    out.put_slice(if value { b"true" } else { b"false" });
}

fn list<T>(
    out: &mut BytesMut,
    elements: impl Iterator<Item = T>,
    mut write: impl FnMut(&mut BytesMut, T) -> Result<()>,
) -> Result<()> {
    out.put_u8(b'[');
    for (position, element) in elements.enumerate() {
        if position > 0 {
            out.put_u8(b',');
        }
        write(out, element)?;
    }
    out.put_u8(b']');
    Ok(())
}

macro_rules! integers {
    ($out:expr, $data:expr, $kind:ty) => {
        list($out, $data.as_chunks().0.iter(), |out, bytes| {
            out.put_slice(itoa::Buffer::new().format(<$kind>::from_le_bytes(*bytes)).as_bytes());
            Ok(())
        })
    };
}

/// Floats as the shortest text that reads back as the same float.
macro_rules! floats {
    ($out:expr, $tensor:expr, $read:expr) => {
        list($out, $tensor.data.as_chunks().0.iter(), |out, bytes| {
            let value = $read(*bytes);
            if !value.is_finite() {
                return Err(not_finite($tensor, f64::from(value)));
            }
            out.put_slice(ryu::Buffer::new().format_finite(value).as_bytes());
            Ok(())
        })
    };
}

fn elements(out: &mut BytesMut, tensor: &Tensor) -> Result<()> {
    let data = &tensor.data[..];
    out.reserve(data.len() * 3);
    match tensor.datatype {
        Datatype::Bool => list(out, data.iter(), |out, &byte| {
            boolean(out, byte != 0);
            Ok(())
        }),
        Datatype::Uint8 => integers!(out, data, u8),
        Datatype::Uint16 => integers!(out, data, u16),
        Datatype::Uint32 => integers!(out, data, u32),
        Datatype::Uint64 => integers!(out, data, u64),
        Datatype::Int8 => integers!(out, data, i8),
        Datatype::Int16 => integers!(out, data, i16),
        Datatype::Int32 => integers!(out, data, i32),
        Datatype::Int64 => integers!(out, data, i64),
        Datatype::Fp16 => {
            floats!(out, tensor, |bytes| half_precision::FP16.shortest(f16::from_le_bytes(bytes).to_f64()))
        }
        Datatype::Bf16 => {
            floats!(out, tensor, |bytes| half_precision::BF16.shortest(bf16::from_le_bytes(bytes).to_f64()))
        }
        Datatype::Fp32 => floats!(out, tensor, f32::from_le_bytes),
        Datatype::Fp64 => floats!(out, tensor, f64::from_le_bytes),
        Datatype::Bytes => list(out, split_byte_strings(data), |out, element| {
            let Ok(text) = std::str::from_utf8(element?) else {
                return Err(Error::invalid(format!(
                    "tensor '{}' holds bytes that are not UTF-8, which JSON cannot hold: ask for it with \
                     'binary_data': true, or use gRPC",
                    tensor.name
                )));
            };
            string(out, text);
            Ok(())
        }),
    }
}

fn not_finite(tensor: &Tensor, value: f64) -> Error {
    Error::invalid(format!(
        "tensor '{}' holds {value}, which JSON cannot hold: ask for it with 'binary_data': true, or use gRPC",
        tensor.name
    ))
}
