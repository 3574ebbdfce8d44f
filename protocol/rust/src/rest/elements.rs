//! A tensor's `data` in JSON, flat or nested, to little-endian bytes.
//!
//! The text was seen to be well-formed JSON before; here each element is read once, straight into
//! its datatype.

use std::fmt::Display;

use bytes::{BufMut, Bytes, BytesMut};
use half::{bf16, f16};
use kingpole_values::{Datatype, Error, Result, Shape, write_byte_string};

/// Read `data`, checking its nesting and the number of elements against the shape.
pub(super) fn read(text: &str, name: &str, datatype: Datatype, shape: &Shape) -> Result<Bytes> {
    let mut list = List { text: text.as_bytes(), at: 0, name, datatype };
    // An element and its separator take at least two bytes of text.
    let foreseen = shape.elements().unwrap_or(0).min(text.len() / 2 + 1);
    let mut data = BytesMut::with_capacity(foreseen * datatype.element_bytes().unwrap_or(8));
    let out = &mut data;
    let (elements, nesting) = match datatype {
        Datatype::Bool => list.walk(|list| list.boolean().map(|value| out.put_u8(u8::from(value))))?,
        Datatype::Uint8 => list.walk(|list| list.integer().map(|value: u8| out.put_u8(value)))?,
        Datatype::Uint16 => list.walk(|list| list.integer().map(|value: u16| out.put_u16_le(value)))?,
        Datatype::Uint32 => list.walk(|list| list.integer().map(|value: u32| out.put_u32_le(value)))?,
        Datatype::Uint64 => list.walk(|list| list.integer().map(|value: u64| out.put_u64_le(value)))?,
        Datatype::Int8 => list.walk(|list| list.integer().map(|value: i8| out.put_i8(value)))?,
        Datatype::Int16 => list.walk(|list| list.integer().map(|value: i16| out.put_i16_le(value)))?,
        Datatype::Int32 => list.walk(|list| list.integer().map(|value: i32| out.put_i32_le(value)))?,
        Datatype::Int64 => list.walk(|list| list.integer().map(|value: i64| out.put_i64_le(value)))?,
        Datatype::Fp16 => list.walk(|list| {
            list.float(|value: f64| f16::from_f64(value), half::f16::is_finite)
                .map(|half| out.put_u16_le(half.to_bits()))
        })?,
        Datatype::Bf16 => list.walk(|list| {
            list.float(|value: f64| bf16::from_f64(value), half::bf16::is_finite)
                .map(|half| out.put_u16_le(half.to_bits()))
        })?,
        Datatype::Fp32 => list
            .walk(|list| list.float(|value: f32| value, f32::is_finite).map(|value| out.put_f32_le(value)))?,
        Datatype::Fp64 => list
            .walk(|list| list.float(|value: f64| value, f64::is_finite).map(|value| out.put_f64_le(value)))?,
        Datatype::Bytes => list.walk(|list| list.string(out))?,
    };
    check(elements, &nesting, name, shape)?;
    Ok(data.freeze())
}

/// Read the one element that `text` begins with, and append it; the number of bytes that it took of the text.
pub(crate) fn read_one(text: &[u8], name: &str, datatype: Datatype, out: &mut BytesMut) -> Result<usize> {
    let mut list = List { text, at: 0, name, datatype };
    match datatype {
        Datatype::Bool => list.boolean().map(|value| out.put_u8(u8::from(value)))?,
        Datatype::Uint8 => list.integer().map(|value: u8| out.put_u8(value))?,
        Datatype::Uint16 => list.integer().map(|value: u16| out.put_u16_le(value))?,
        Datatype::Uint32 => list.integer().map(|value: u32| out.put_u32_le(value))?,
        Datatype::Uint64 => list.integer().map(|value: u64| out.put_u64_le(value))?,
        Datatype::Int8 => list.integer().map(|value: i8| out.put_i8(value))?,
        Datatype::Int16 => list.integer().map(|value: i16| out.put_i16_le(value))?,
        Datatype::Int32 => list.integer().map(|value: i32| out.put_i32_le(value))?,
        Datatype::Int64 => list.integer().map(|value: i64| out.put_i64_le(value))?,
        Datatype::Fp16 => {
            out.put_u16_le(list.float(|value: f64| f16::from_f64(value), f16::is_finite)?.to_bits());
        }
        Datatype::Bf16 => {
            out.put_u16_le(list.float(|value: f64| bf16::from_f64(value), bf16::is_finite)?.to_bits());
        }
        Datatype::Fp32 => out.put_f32_le(list.float(|value: f32| value, f32::is_finite)?),
        Datatype::Fp64 => out.put_f64_le(list.float(|value: f64| value, f64::is_finite)?),
        Datatype::Bytes => list.string(out)?,
    }
    Ok(list.at)
}

fn check(elements: usize, nesting: &[usize], name: &str, shape: &Shape) -> Result<()> {
    if nesting.len() > 1 {
        let nested: Shape = nesting.iter().map(|&length| i64::try_from(length).unwrap_or(i64::MAX)).collect();
        if nested != *shape {
            return Err(Error::invalid(format!(
                "tensor '{name}': data is nested as {nested}, but shape is {shape}"
            )));
        }
        return Ok(());
    }
    if nesting.is_empty() && !shape.is_empty() {
        return Err(Error::invalid(format!("tensor '{name}': data must be a list")));
    }
    match shape.elements() {
        Some(expected) if expected == elements => Ok(()),
        Some(expected) => Err(Error::invalid(format!(
            "tensor '{name}': shape {shape} needs {expected} elements, got {elements}"
        ))),
        None => Err(Error::invalid(format!(
            "tensor '{name}': shape {shape} has a negative dimension or too many elements"
        ))),
    }
}

/// The text of `data`, being read.
struct List<'a> {
    text: &'a [u8],
    at: usize,
    name: &'a str,
    datatype: Datatype,
}

impl List<'_> {
    /// Read every element with `read`; the number of elements, and the length of the lists at each
    /// depth (empty for a bare element).
    fn walk(&mut self, mut read: impl FnMut(&mut Self) -> Result<()>) -> Result<(usize, Vec<usize>)> {
        let mut elements = 0usize;
        let mut depth = 0usize;
        // Elements or lists seen so far in each open list, and each depth's length once one has closed.
        let mut seen = [0usize; Shape::MAX_RANK];
        let mut lengths: [Option<usize>; Shape::MAX_RANK] = [None; Shape::MAX_RANK];
        let mut deepest = 0usize;
        let mut element_depth = None;
        loop {
            match self.peek() {
                Some(b'[') => {
                    if depth == Shape::MAX_RANK {
                        return Err(
                            self.refuse(format_args!("data is nested deeper than {}", Shape::MAX_RANK))
                        );
                    }
                    if depth > 0 {
                        seen[depth - 1] += 1;
                    }
                    seen[depth] = 0;
                    depth += 1;
                    deepest = deepest.max(depth);
                    self.at += 1;
                }
                Some(b']') if depth > 0 => {
                    depth -= 1;
                    self.at += 1;
                    if *lengths[depth].get_or_insert(seen[depth]) != seen[depth] {
                        return Err(self.ragged());
                    }
                    if depth == 0 {
                        break;
                    }
                }
                Some(b',') => self.at += 1,
                Some(_) => {
                    if *element_depth.get_or_insert(depth) != depth {
                        return Err(self.ragged());
                    }
                    read(self)?;
                    elements += 1;
                    if depth == 0 {
                        break;
                    }
                    seen[depth - 1] += 1;
                }
                None => return Err(self.refuse("data is cut off")),
            }
        }
        if element_depth.is_some_and(|element_depth| element_depth != deepest) {
            return Err(self.ragged());
        }
        Ok((elements, lengths[..deepest].iter().map(|length| length.unwrap_or(0)).collect()))
    }

    /// The next byte that is not white space.
    fn peek(&mut self) -> Option<u8> {
        while let Some(&byte) = self.text.get(self.at) {
            if !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                return Some(byte);
            }
            self.at += 1;
        }
        None
    }

    fn rest(&self) -> &[u8] {
        &self.text[self.at..]
    }

    fn boolean(&mut self) -> Result<bool> {
        let value = if self.rest().starts_with(b"true") {
            true
        } else if self.rest().starts_with(b"false") {
            false
        } else {
            return Err(self.unexpected("true or false"));
        };
        self.at += if value { 4 } else { 5 };
        Ok(value)
    }

    fn integer<T: TryFrom<i128>>(&mut self) -> Result<T> {
        let text = self.rest();
        let negative = text.first() == Some(&b'-');
        let mut length = usize::from(negative);
        let mut value: i128 = 0;
        while let Some(&digit @ b'0'..=b'9') = text.get(length) {
            // Saturates far outside every datatype: 40 digits are refused as 20 are.
            value = value.saturating_mul(10).saturating_add(i128::from(digit - b'0'));
            length += 1;
        }
        if length == usize::from(negative) {
            return Err(self.unexpected("an integer"));
        }
        if matches!(text.get(length), Some(b'.' | b'e' | b'E')) {
            return Err(self.unexpected("an integer"));
        }
        let Ok(value) = T::try_from(if negative { -value } else { value }) else {
            return Err(self.refuse(format_args!("{} does not fit in {}", self.token(), self.datatype)));
        };
        self.at += length;
        Ok(value)
    }

    fn float<F: fast_float2::FastFloat, T: Copy>(
        &mut self,
        convert: impl Fn(F) -> T,
        is_finite: impl Fn(T) -> bool,
    ) -> Result<T> {
        if !matches!(self.rest().first(), Some(b'-' | b'0'..=b'9')) {
            return Err(self.unexpected("a number"));
        }
        let Ok((value, length)) = fast_float2::parse_partial::<F, _>(self.rest()) else {
            return Err(self.unexpected("a number"));
        };
        let value = convert(value);
        if !is_finite(value) {
            return Err(self.refuse(format_args!("{} does not fit in {}", self.token(), self.datatype)));
        }
        self.at += length;
        Ok(value)
    }

    fn string(&mut self, out: &mut BytesMut) -> Result<()> {
        if self.rest().first() != Some(&b'"') {
            return Err(self.unexpected("a string"));
        }
        let mut escaped = false;
        let mut end = self.at + 1;
        loop {
            match self.text.get(end) {
                Some(b'"') => break,
                Some(b'\\') => {
                    escaped = true;
                    end += 2;
                }
                Some(_) => end += 1,
                None => return Err(self.refuse("data is cut off within a string")),
            }
        }
        if escaped {
            let element: String = serde_json::from_slice(&self.text[self.at..=end])
                .map_err(|_| self.refuse("a string has an escape that is not Unicode text"))?;
            write_byte_string(out, element.as_bytes());
        } else {
            write_byte_string(out, &self.text[self.at + 1..end]);
        }
        self.at = end + 1;
        Ok(())
    }

    /// The element at hand, shortened, for an error's text.
    fn token(&self) -> String {
        if self.rest().starts_with(b"{") {
            return "an object".to_owned();
        }
        let end = self
            .rest()
            .iter()
            .position(|byte| matches!(byte, b',' | b']' | b'}' | b' ' | b'\n' | b'\r' | b'\t'));
        let token = String::from_utf8_lossy(&self.rest()[..end.unwrap_or(self.rest().len())]);
        if token.chars().count() > 40 {
            token.chars().take(40).chain("...".chars()).collect()
        } else {
            token.into()
        }
    }

    fn unexpected(&self, expected: &str) -> Error {
        self.refuse(format_args!("{} needs {expected}, got {}", self.datatype, self.token()))
    }

    fn ragged(&self) -> Error {
        self.refuse("data is nested unevenly")
    }

    fn refuse(&self, what: impl Display) -> Error {
        Error::invalid(format!("tensor '{}': {what}", self.name))
    }
}
