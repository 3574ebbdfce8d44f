//! TensorFlow's `TensorProto`: raw content as a view of the body, typed values to little-endian bytes.
//!
//! Source: protocol/schema/tensorflow.proto; TensorFlow's documentation of `TensorProto`.

use bytes::{BufMut, Bytes, BytesMut};
use kingpole_values::{
    ByteString, Datatype, Error, Result, Shape, Tensor, split_byte_strings, write_byte_string,
};
use smallvec::SmallVec;

use crate::grpc::protobuf::{
    FIXED32, FIXED64, LENGTH, Reader, VARINT, put_bytes, put_tag, put_varint, varint_bytes, wrong_wire,
};

/// Most bytes that values which stand for others may add to a message: a few bytes must not become gigabytes.
const MAX_FILLED_BYTES: usize = 16 << 20;

const STRING_VAL: u32 = 8;

/// The number in `DataType`.
pub(super) const fn number_of(datatype: Datatype) -> u8 {
    match datatype {
        Datatype::Fp32 => 1,
        Datatype::Fp64 => 2,
        Datatype::Int32 => 3,
        Datatype::Uint8 => 4,
        Datatype::Int16 => 5,
        Datatype::Int8 => 6,
        Datatype::Bytes => 7,
        Datatype::Int64 => 9,
        Datatype::Bool => 10,
        Datatype::Bf16 => 14,
        Datatype::Uint16 => 17,
        Datatype::Fp16 => 19,
        Datatype::Uint32 => 22,
        Datatype::Uint64 => 23,
    }
}

/// The field that holds typed values of a datatype.
const fn field_of(datatype: Datatype) -> u32 {
    match datatype {
        Datatype::Fp32 => 5,
        Datatype::Fp64 => 6,
        Datatype::Int32 | Datatype::Int16 | Datatype::Int8 | Datatype::Uint16 | Datatype::Uint8 => 7,
        Datatype::Bytes => STRING_VAL,
        Datatype::Int64 => 10,
        Datatype::Bool => 11,
        Datatype::Fp16 | Datatype::Bf16 => 13,
        Datatype::Uint32 => 16,
        Datatype::Uint64 => 17,
    }
}

/// A message's allowance for values that stand for others.
pub(super) struct Filling {
    left_bytes: usize,
}

impl Filling {
    pub(super) fn new() -> Self {
        Self { left_bytes: MAX_FILLED_BYTES }
    }

    fn spend(&mut self, nbytes: Option<usize>, name: &str) -> Result<usize> {
        match nbytes.and_then(|nbytes| Some((nbytes, self.left_bytes.checked_sub(nbytes)?))) {
            Some((nbytes, left_bytes)) => {
                self.left_bytes = left_bytes;
                Ok(nbytes)
            }
            None => Err(Error::exhausted(format!(
                "tensor '{name}': values that stand for others would pass {MAX_FILLED_BYTES} bytes; send them as \
                 tensor_content"
            ))),
        }
    }
}

/// A tensor as its message has it; which field its values must be in is known only at the end.
struct Parts<'a> {
    datatype: u64,
    shape: Shape,
    unknown_rank: bool,
    content: Bytes,
    /// Fields of typed values, in the order they came.
    values: SmallVec<[(u32, Values<'a>); 2]>,
    strings: BytesMut,
    string_count: usize,
}

/// Typed values as they travel.
enum Values<'a> {
    Packed(Reader<'a>),
    Varint(u64),
    Fixed4([u8; 4]),
    Fixed8([u8; 8]),
}

/// Read a `TensorProto` as the tensor `name`.
pub(super) fn read(reader: Reader<'_>, name: ByteString, filling: &mut Filling) -> Result<Tensor> {
    let parts = read_parts(reader, &name)?;
    let datatype = Datatype::ALL.into_iter().find(|&known| u64::from(number_of(known)) == parts.datatype);
    let Some(datatype) = datatype else {
        return Err(Error::invalid(format!(
            "tensor '{name}': TensorFlow's type number {} is not supported",
            parts.datatype
        )));
    };
    if parts.unknown_rank {
        return Err(Error::invalid(format!("tensor '{name}': its shape is of unknown rank")));
    }
    let typed = !parts.values.is_empty() || parts.string_count > 0;
    let shape = parts.shape.clone();
    let data = match (parts.content.is_empty(), typed) {
        (false, true) => {
            return Err(Error::invalid(format!("tensor '{name}' has both tensor_content and typed values")));
        }
        (false, false) if datatype == Datatype::Bytes => read_packed_strings(&parts.content, &shape, &name)?,
        (false, false) => parts.content,
        (true, _) => read_typed(parts, &name, datatype, filling)?,
    };
    Ok(Tensor { name, datatype, shape, data })
}

fn read_parts<'a>(mut reader: Reader<'a>, name: &str) -> Result<Parts<'a>> {
    let mut parts = Parts {
        datatype: 0,
        shape: Shape::default(),
        unknown_rank: false,
        content: Bytes::new(),
        values: SmallVec::new(),
        strings: BytesMut::new(),
        string_count: 0,
    };
    while let Some((field, wire)) = reader.tag()? {
        match (field, wire) {
            (1, VARINT) => parts.datatype = reader.varint()?,
            (2, LENGTH) => read_shape(reader.nested()?, &mut parts, name)?,
            (4, LENGTH) => parts.content = reader.bytes()?,
            (STRING_VAL, LENGTH) => {
                let element = reader.nested()?;
                check_length(element.rest(), name)?;
                write_byte_string(&mut parts.strings, element.rest());
                parts.string_count += 1;
            }
            (5 | 6 | 7 | 10 | 11 | 13 | 16 | 17, _) => {
                let values = match wire {
                    LENGTH => Values::Packed(reader.nested()?),
                    VARINT => Values::Varint(reader.varint()?),
                    FIXED32 => Values::Fixed4(reader.fixed()?),
                    FIXED64 => Values::Fixed8(reader.fixed()?),
                    _ => return Err(wrong_wire("a tensor's values")),
                };
                if !matches!(&values, Values::Packed(packed) if packed.is_empty()) {
                    parts.values.push((field, values));
                }
            }
            (9 | 12 | 14 | 15, _) => {
                return Err(Error::invalid(format!(
                    "tensor '{name}': complex numbers, resources and variants are not supported"
                )));
            }
            (1 | 2 | 4 | STRING_VAL, _) => return Err(wrong_wire("a field of TensorProto")),
            _ => reader.skip(wire)?,
        }
    }
    Ok(parts)
}

fn check_length(element: &[u8], name: &str) -> Result<()> {
    if u32::try_from(element.len()).is_err() {
        return Err(Error::invalid(format!("tensor '{name}': an element is 4 GiB or longer")));
    }
    Ok(())
}

fn read_shape(mut reader: Reader<'_>, parts: &mut Parts<'_>, name: &str) -> Result<()> {
    while let Some((field, wire)) = reader.tag()? {
        match (field, wire) {
            (2, LENGTH) => {
                let mut dimension = reader.nested()?;
                let mut size = 0;
                while let Some((field, wire)) = dimension.tag()? {
                    match (field, wire) {
                        (1, VARINT) => size = dimension.varint()?,
                        (1, _) => return Err(wrong_wire("a dimension's size")),
                        _ => dimension.skip(wire)?,
                    }
                }
                if parts.shape.len() >= Shape::MAX_RANK {
                    return Err(Error::invalid(format!(
                        "tensor '{name}': more than {} dimensions",
                        Shape::MAX_RANK
                    )));
                }
                #[allow(clippy::cast_possible_wrap)] // two's complement is what protobuf means
                parts.shape.push(size as i64);
            }
            (3, VARINT) => parts.unknown_rank = reader.varint()? != 0,
            (2 | 3, _) => return Err(wrong_wire("a field of TensorShapeProto")),
            _ => reader.skip(wire)?,
        }
    }
    Ok(())
}

/// Strings in `tensor_content`: all lengths as varints, then all bytes.
fn read_packed_strings(content: &Bytes, shape: &Shape, name: &str) -> Result<Bytes> {
    let malformed = || Error::invalid(format!("tensor '{name}': tensor_content does not hold its strings"));
    // Each length takes a byte at least.
    let count = shape.elements().filter(|&count| count <= content.len()).ok_or_else(malformed)?;
    let mut reader = Reader::new(content);
    let mut lengths = Vec::with_capacity(count);
    for _ in 0..count {
        lengths.push(
            reader.varint().ok().and_then(|length| usize::try_from(length).ok()).ok_or_else(malformed)?,
        );
    }
    let mut rest = reader.rest();
    let mut data = BytesMut::with_capacity(rest.len() + 4 * count);
    for length in lengths {
        let (element, tail) = rest.split_at_checked(length).ok_or_else(malformed)?;
        check_length(element, name)?;
        write_byte_string(&mut data, element);
        rest = tail;
    }
    if rest.is_empty() { Ok(data.freeze()) } else { Err(malformed()) }
}

fn read_typed(parts: Parts<'_>, name: &str, datatype: Datatype, filling: &mut Filling) -> Result<Bytes> {
    let expected = field_of(datatype);
    let wrong = parts.values.iter().map(|(field, _)| *field).find(|&field| field != expected);
    let wrong = wrong.or((parts.string_count > 0 && expected != STRING_VAL).then_some(STRING_VAL));
    if let Some(field) = wrong {
        return Err(Error::invalid(format!(
            "tensor '{name}': {datatype} elements belong in field {expected} of TensorProto, got field {field}"
        )));
    }
    let (mut data, given) = if datatype == Datatype::Bytes {
        (parts.strings, parts.string_count)
    } else {
        let mut data = BytesMut::new();
        for (_, values) in parts.values {
            read_values(values, name, datatype, &mut data)?;
        }
        let given = data.len() / datatype.element_bytes().unwrap_or(1);
        (data, given)
    };
    // What is wrong with a shape is the validator's to say.
    let Some(missing) = parts.shape.elements().and_then(|elements| elements.checked_sub(given)) else {
        return Ok(data.freeze());
    };
    if missing == 0 {
        return Ok(data.freeze());
    }
    let last = match (datatype.element_bytes(), given) {
        (_, 0) => vec![0; datatype.element_bytes().unwrap_or(4)],
        (Some(element_bytes), _) => data[data.len() - element_bytes..].to_vec(),
        (None, _) => last_string(&data),
    };
    let filled = filling.spend(missing.checked_mul(last.len()), name)?;
    data.reserve(filled);
    for _ in 0..missing {
        data.put_slice(&last);
    }
    Ok(data.freeze())
}

/// The last element with its length.
fn last_string(data: &[u8]) -> Vec<u8> {
    let mut last = Vec::new();
    if let Some(element) = split_byte_strings(data).filter_map(Result::ok).last() {
        write_byte_string(&mut last, element);
    }
    last
}

fn read_values(values: Values<'_>, name: &str, datatype: Datatype, data: &mut BytesMut) -> Result<()> {
    match (values, datatype) {
        (Values::Packed(packed), Datatype::Fp32 | Datatype::Fp64) => {
            let bytes = packed.rest();
            if bytes.len() % datatype.element_bytes().unwrap_or(1) != 0 {
                return Err(Error::invalid(format!("tensor '{name}': its values end within an element")));
            }
            data.put_slice(bytes);
        }
        (Values::Fixed4(bytes), Datatype::Fp32) => data.put_slice(&bytes),
        (Values::Fixed8(bytes), Datatype::Fp64) => data.put_slice(&bytes),
        (_, Datatype::Fp32 | Datatype::Fp64) | (Values::Fixed4(_) | Values::Fixed8(_), _) => {
            return Err(wrong_wire("a tensor's values"));
        }
        (Values::Varint(value), _) => put_integer(value, name, datatype, data)?,
        (Values::Packed(mut packed), _) => {
            data.reserve(packed.rest().len());
            while !packed.is_empty() {
                put_integer(packed.varint()?, name, datatype, data)?;
            }
        }
    }
    Ok(())
}

/// Append an integer, a bool or the bits of a half as its datatype, refusing what does not fit.
#[allow(clippy::cast_possible_wrap)] // two's complement is what protobuf means
fn put_integer(value: u64, name: &str, datatype: Datatype, data: &mut BytesMut) -> Result<()> {
    let signed = value as i64;
    let refused = || Error::invalid(format!("tensor '{name}': {signed} does not fit in {datatype}"));
    match datatype {
        Datatype::Bool => data.put_u8(u8::from(value != 0)),
        Datatype::Int8 => data.put_i8(i8::try_from(signed).map_err(|_| refused())?),
        Datatype::Int16 => data.put_i16_le(i16::try_from(signed).map_err(|_| refused())?),
        Datatype::Int32 => data.put_i32_le(i32::try_from(signed).map_err(|_| refused())?),
        Datatype::Int64 => data.put_i64_le(signed),
        Datatype::Uint8 => data.put_u8(u8::try_from(signed).map_err(|_| refused())?),
        Datatype::Uint16 | Datatype::Fp16 | Datatype::Bf16 => {
            data.put_u16_le(u16::try_from(signed).map_err(|_| refused())?);
        }
        Datatype::Uint32 => data.put_u32_le(u32::try_from(value).map_err(|_| refused())?),
        Datatype::Uint64 => data.put_u64_le(value),
        Datatype::Fp32 | Datatype::Fp64 | Datatype::Bytes => return Err(wrong_wire("a tensor's values")),
    }
    Ok(())
}

/// A `TensorProto` in two parts: what comes before the elements, and the elements. BYTES are all before.
pub(super) fn write(tensor: &Tensor) -> (BytesMut, Bytes) {
    let mut head = BytesMut::with_capacity(64);
    put_tag(&mut head, 1, VARINT);
    put_varint(&mut head, u64::from(number_of(tensor.datatype)));
    let mut shape = BytesMut::new();
    for &size in tensor.shape.iter() {
        #[allow(clippy::cast_sign_loss)] // two's complement is what protobuf means
        let size = size as u64;
        put_tag(&mut shape, 2, LENGTH);
        put_varint(&mut shape, 1 + varint_bytes(size) as u64);
        put_tag(&mut shape, 1, VARINT);
        put_varint(&mut shape, size);
    }
    put_bytes(&mut head, 2, &shape);
    if tensor.datatype == Datatype::Bytes {
        for element in split_byte_strings(&tensor.data).map_while(Result::ok) {
            put_bytes(&mut head, STRING_VAL, element);
        }
        return (head, Bytes::new());
    }
    put_tag(&mut head, 4, LENGTH);
    put_varint(&mut head, tensor.data.len() as u64);
    (head, tensor.data.clone())
}
