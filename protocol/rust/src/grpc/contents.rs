//! Typed tensor contents (`InferTensorContents`) to raw little-endian bytes and back.

use bytes::{BufMut, Bytes, BytesMut};
use kingpole_values::{Datatype, Error, Result, split_byte_strings, write_byte_string};

use super::protobuf::{FIXED32, FIXED64, LENGTH, Reader, VARINT, put_tag, put_varint, wrong_wire};

const FIELD_NAMES: [&str; 8] = [
    "bool_contents",
    "int_contents",
    "int64_contents",
    "uint_contents",
    "uint64_contents",
    "fp32_contents",
    "fp64_contents",
    "bytes_contents",
];

/// The field of `InferTensorContents` that holds a datatype; `None` for those that travel raw only.
pub(super) fn field_of(datatype: Datatype) -> Option<u32> {
    Some(match datatype {
        Datatype::Bool => 1,
        Datatype::Int8 | Datatype::Int16 | Datatype::Int32 => 2,
        Datatype::Int64 => 3,
        Datatype::Uint8 | Datatype::Uint16 | Datatype::Uint32 => 4,
        Datatype::Uint64 => 5,
        Datatype::Fp32 => 6,
        Datatype::Fp64 => 7,
        Datatype::Bytes => 8,
        Datatype::Fp16 | Datatype::Bf16 => return None,
    })
}

/// Append the elements of one `InferTensorContents` message to `data`.
pub(super) fn read_contents(
    mut contents: Reader<'_>,
    name: &str,
    datatype: Datatype,
    data: &mut BytesMut,
) -> Result<()> {
    let expected = field_of(datatype);
    while let Some((field, wire)) = contents.tag()? {
        if !(1..=8).contains(&field) {
            contents.skip(wire)?;
            continue;
        }
        let field_name = FIELD_NAMES[field as usize - 1];
        if expected != Some(field) {
            let empty = wire == LENGTH && field != 8 && contents.nested()?.is_empty();
            if empty {
                continue;
            }
            return Err(Error::invalid(match expected {
                Some(expected) => format!(
                    "tensor '{name}': {datatype} elements belong in {}, got {field_name}",
                    FIELD_NAMES[expected as usize - 1]
                ),
                None => format!(
                    "tensor '{name}': {datatype} elements travel in raw_input_contents only, got {field_name}"
                ),
            }));
        }
        if field == 8 {
            if wire != LENGTH {
                return Err(wrong_wire(field_name));
            }
            write_byte_string(data, checked_element(contents.nested()?.rest(), name)?);
            continue;
        }
        if wire == LENGTH {
            let mut packed = contents.nested()?;
            if field >= 6 {
                let width = if field == 6 { 4 } else { 8 };
                if packed.rest().len() % width != 0 {
                    return Err(Error::invalid(format!(
                        "tensor '{name}': {field_name} ends within an element"
                    )));
                }
                data.put_slice(packed.rest());
                continue;
            }
            data.reserve(packed.rest().len());
            while !packed.is_empty() {
                put_integer(packed.varint()?, name, datatype, data)?;
            }
        } else {
            match (field, wire) {
                (1..=5, VARINT) => put_integer(contents.varint()?, name, datatype, data)?,
                (6, FIXED32) => data.put_slice(&contents.fixed::<4>()?),
                (7, FIXED64) => data.put_slice(&contents.fixed::<8>()?),
                _ => return Err(wrong_wire(field_name)),
            }
        }
    }
    Ok(())
}

fn checked_element<'a>(element: &'a [u8], name: &str) -> Result<&'a [u8]> {
    if u32::try_from(element.len()).is_err() {
        return Err(Error::invalid(format!("tensor '{name}': an element is 4 GiB or longer")));
    }
    Ok(element)
}

/// Append one integer (or bool) as its datatype, refusing what does not fit.
#[allow(clippy::cast_possible_wrap)] // two's complement is what protobuf means
fn put_integer(value: u64, name: &str, datatype: Datatype, data: &mut BytesMut) -> Result<()> {
    let signed = value as i64;
    let refused = || {
        let shown: i128 = match datatype {
            Datatype::Uint8 | Datatype::Uint16 | Datatype::Uint32 | Datatype::Bool => i128::from(value),
            _ => i128::from(signed),
        };
        Error::invalid(format!("tensor '{name}': {shown} does not fit in {datatype}"))
    };
    match datatype {
        Datatype::Bool => data.put_u8(u8::from(value != 0)),
        Datatype::Int8 => data.put_i8(i8::try_from(signed).map_err(|_| refused())?),
        Datatype::Int16 => data.put_i16_le(i16::try_from(signed).map_err(|_| refused())?),
        Datatype::Int32 => data.put_i32_le(i32::try_from(signed).map_err(|_| refused())?),
        Datatype::Int64 => data.put_i64_le(signed),
        Datatype::Uint8 => data.put_u8(u8::try_from(value).map_err(|_| refused())?),
        Datatype::Uint16 => data.put_u16_le(u16::try_from(value).map_err(|_| refused())?),
        Datatype::Uint32 => data.put_u32_le(u32::try_from(value).map_err(|_| refused())?),
        Datatype::Uint64 => data.put_u64_le(value),
        Datatype::Fp16 | Datatype::Fp32 | Datatype::Fp64 | Datatype::Bytes | Datatype::Bf16 => {
            return Err(wrong_wire("a tensor's contents"));
        }
    }
    Ok(())
}

/// The body of an `InferTensorContents` message holding `data`.
///
/// `datatype` must have a field of its own ([`field_of`]); a BYTES tensor that is not well formed
/// ends at its first fault.
#[allow(clippy::cast_sign_loss)] // two's complement is what protobuf means
pub(super) fn write_contents(datatype: Datatype, data: &Bytes) -> BytesMut {
    let mut contents = BytesMut::with_capacity(data.len() + 16);
    let Some(field) = field_of(datatype) else { return contents };
    if datatype == Datatype::Bytes {
        for element in split_byte_strings(data).map_while(Result::ok) {
            super::protobuf::put_bytes(&mut contents, field, element);
        }
        return contents;
    }
    if data.is_empty() {
        return contents;
    }
    let mut packed = BytesMut::with_capacity(data.len());
    match datatype {
        Datatype::Fp32 | Datatype::Fp64 => packed.put_slice(data),
        // Any byte but 0 is true; as it is, one above 127 would be the beginning of a longer number.
        Datatype::Bool => each(data, |[byte]: [u8; 1]| packed.put_u8(u8::from(byte != 0))),
        Datatype::Uint8 => each(data, |[byte]: [u8; 1]| put_varint(&mut packed, u64::from(byte))),
        Datatype::Uint16 => each(data, |b| put_varint(&mut packed, u64::from(u16::from_le_bytes(b)))),
        Datatype::Uint32 => each(data, |b| put_varint(&mut packed, u64::from(u32::from_le_bytes(b)))),
        Datatype::Uint64 => each(data, |b| put_varint(&mut packed, u64::from_le_bytes(b))),
        Datatype::Int8 => each(data, |b| put_varint(&mut packed, i64::from(i8::from_le_bytes(b)) as u64)),
        Datatype::Int16 => each(data, |b| put_varint(&mut packed, i64::from(i16::from_le_bytes(b)) as u64)),
        Datatype::Int32 => each(data, |b| put_varint(&mut packed, i64::from(i32::from_le_bytes(b)) as u64)),
        Datatype::Int64 => each(data, |b| put_varint(&mut packed, i64::from_le_bytes(b) as u64)),
        Datatype::Fp16 | Datatype::Bf16 | Datatype::Bytes => {}
    }
    put_tag(&mut contents, field, LENGTH);
    put_varint(&mut contents, packed.len() as u64);
    contents.put_slice(&packed);
    contents
}

fn each<const N: usize>(data: &[u8], mut put: impl FnMut([u8; N])) {
    for element in data.as_chunks::<N>().0 {
        put(*element);
    }
}
