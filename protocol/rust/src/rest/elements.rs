//! A tensor's `data` in JSON, flat or nested, to little-endian bytes.
//!
//! Each element is read once, straight into its datatype, and the grammar is checked on the way: the
//! text may be anything.

use std::fmt::Display;

use bytes::{BufMut, Bytes, BytesMut};
use kingpole_values::{Datatype, Error, Result, Shape, write_byte_string};

use super::half_precision;

/// The elements of one tensor, before anything is known of their number.
pub(super) struct Elements {
    pub(super) data: Bytes,
    pub(super) count: usize,
    /// The length of the lists at each depth; empty for a bare element.
    pub(super) nesting: Vec<usize>,
}

impl Elements {
    /// The bytes, if number and nesting of the elements are what the shape says.
    pub(super) fn check(self, name: &str, shape: &Shape) -> Result<Bytes> {
        if self.nesting.len() > 1 {
            let nested: Shape =
                self.nesting.iter().map(|&length| i64::try_from(length).unwrap_or(i64::MAX)).collect();
            if nested != *shape {
                return Err(Error::invalid(format!(
                    "tensor '{name}': data is nested as {nested}, but shape is {shape}"
                )));
            }
            return Ok(self.data);
        }
        if self.nesting.is_empty() && !shape.is_empty() {
            return Err(Error::invalid(format!("tensor '{name}': data must be a list")));
        }
        match shape.elements() {
            Some(expected) if expected == self.count => Ok(self.data),
            Some(expected) => Err(Error::invalid(format!(
                "tensor '{name}': shape {shape} needs {expected} elements, got {}",
                self.count
            ))),
            None => Err(Error::invalid(format!(
                "tensor '{name}': shape {shape} has a negative dimension or too many elements"
            ))),
        }
    }

    /// Whether there are as many elements as the shape says.
    pub(super) fn fill(&self, shape: &Shape) -> bool {
        shape.elements() == Some(self.count)
    }
}

/// Read the `data` at the start of `text`; the elements, and how much of the text they are.
///
/// `foreseen` elements get their room at once, but never more than the text can hold.
pub(super) fn read(
    text: &[u8],
    name: &str,
    datatype: Datatype,
    foreseen: usize,
) -> Result<(Elements, usize)> {
    let mut list = List { text, at: 0, name, datatype };
    // An element and its separator take at least two bytes of text.
    let foreseen = foreseen.min(text.len() / 2 + 1);
    let mut data = BytesMut::with_capacity(foreseen * datatype.element_bytes().unwrap_or(8));
    let out = &mut data;
    let (count, nesting) = match datatype {
        Datatype::Bool => list.walk(|list| list.boolean().map(|value| out.put_u8(u8::from(value))))?,
        Datatype::Uint8 => list.walk(|list| list.integer().map(|value: u8| out.put_u8(value)))?,
        Datatype::Uint16 => list.walk(|list| list.integer().map(|value: u16| out.put_u16_le(value)))?,
        Datatype::Uint32 => list.walk(|list| list.integer().map(|value: u32| out.put_u32_le(value)))?,
        Datatype::Uint64 => list.walk(|list| list.integer().map(|value: u64| out.put_u64_le(value)))?,
        Datatype::Int8 => list.walk(|list| list.integer().map(|value: i8| out.put_i8(value)))?,
        Datatype::Int16 => list.walk(|list| list.integer().map(|value: i16| out.put_i16_le(value)))?,
        Datatype::Int32 => list.walk(|list| list.integer().map(|value: i32| out.put_i32_le(value)))?,
        Datatype::Int64 => list.walk(|list| list.integer().map(|value: i64| out.put_i64_le(value)))?,
        Datatype::Fp16 => list.walk(|list| list.half(half_precision::FP16, out))?,
        Datatype::Bf16 => list.walk(|list| list.half(half_precision::BF16, out))?,
        Datatype::Fp32 => list.walk(|list| list.fp32(out))?,
        Datatype::Fp64 => list.walk(|list| list.fp64(out))?,
        Datatype::Bytes => list.walk(|list| list.string(out))?,
    };
    Ok((Elements { data: data.freeze(), count, nesting }, list.at))
}

/// Read the one element that `text` begins with, and append it; the number of bytes that it took of the text.
#[cfg(feature = "migration")]
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
        Datatype::Fp16 => list.half(half_precision::FP16, out)?,
        Datatype::Bf16 => list.half(half_precision::BF16, out)?,
        Datatype::Fp32 => list.fp32(out)?,
        Datatype::Fp64 => list.fp64(out)?,
        Datatype::Bytes => list.string(out)?,
    }
    Ok(list.at)
}

/// The text of `data`, being read.
struct List<'a> {
    text: &'a [u8],
    at: usize,
    name: &'a str,
    datatype: Datatype,
}

/// The lists that are open, and what is known of the length of those at each depth.
struct Nesting {
    depth: usize,
    deepest: usize,
    /// Elements or lists seen so far in each open list.
    seen: [usize; Shape::MAX_RANK],
    /// Each depth's length, once one has closed.
    lengths: [Option<usize>; Shape::MAX_RANK],
    /// Where the elements are; the deepest lists, if there are any.
    element_depth: Option<usize>,
}

impl Nesting {
    const fn new() -> Self {
        Self {
            depth: 0,
            deepest: 0,
            seen: [0; Shape::MAX_RANK],
            lengths: [None; Shape::MAX_RANK],
            element_depth: None,
        }
    }

    /// Count one more element or list in the list that is open.
    fn count(&mut self) {
        if let Some(seen) = self.depth.checked_sub(1).and_then(|depth| self.seen.get_mut(depth)) {
            *seen += 1;
        }
    }

    /// Open a list; false if there are too many open.
    fn open(&mut self) -> bool {
        self.count();
        let Some(seen) = self.seen.get_mut(self.depth) else { return false };
        *seen = 0;
        self.depth += 1;
        self.deepest = self.deepest.max(self.depth);
        true
    }

    /// Close the list that is open; false if another of its depth had another length.
    fn close(&mut self) -> bool {
        self.depth -= 1;
        let seen = self.seen[self.depth];
        *self.lengths[self.depth].get_or_insert(seen) == seen
    }

    /// Whether an element here has the depth of those before.
    fn element(&mut self) -> bool {
        self.count();
        *self.element_depth.get_or_insert(self.depth) == self.depth
    }
}

impl List<'_> {
    /// Read every element with `read`; the number of elements, and the length of the lists at each
    /// depth (empty for a bare element).
    fn walk(&mut self, mut read: impl FnMut(&mut Self) -> Result<()>) -> Result<(usize, Vec<usize>)> {
        let mut nesting = Nesting::new();
        let mut elements = 0usize;
        loop {
            // A value has to begin here.
            if self.peek() == Some(b'[') {
                if !nesting.open() {
                    return Err(self.refuse(format_args!("data is nested deeper than {}", Shape::MAX_RANK)));
                }
                self.at += 1;
                if self.peek() != Some(b']') {
                    continue;
                }
            } else {
                if !nesting.element() {
                    return Err(self.ragged());
                }
                read(self)?;
                elements += 1;
            }
            // One has ended, or an empty list is about to: lists close until a comma asks for more.
            while nesting.depth > 0 {
                match self.peek() {
                    Some(b',') => break,
                    Some(b']') if nesting.close() => self.at += 1,
                    Some(b']') => return Err(self.ragged()),
                    _ => return Err(self.malformed()),
                }
            }
            if nesting.depth == 0 {
                break;
            }
            self.at += 1;
        }
        if nesting.element_depth.is_some_and(|depth| depth != nesting.deepest) {
            return Err(self.ragged());
        }
        let lengths = &nesting.lengths[..nesting.deepest];
        Ok((elements, lengths.iter().map(|length| length.unwrap_or(0)).collect()))
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
        let start = usize::from(negative);
        let mut length = start;
        let mut value = Some(0u64);
        while let Some(&digit @ b'0'..=b'9') = text.get(length) {
            value = value.and_then(|value| value.checked_mul(10)?.checked_add(u64::from(digit - b'0')));
            length += 1;
        }
        if length == start || matches!(text.get(length), Some(b'.' | b'e' | b'E')) {
            return Err(self.unexpected("an integer"));
        }
        if text[start] == b'0' && length > start + 1 {
            return Err(self.malformed());
        }
        let value = value.map(|value| if negative { -i128::from(value) } else { i128::from(value) });
        let Some(value) = value.and_then(|value| T::try_from(value).ok()) else {
            return Err(self.too_big());
        };
        self.at += length;
        Ok(value)
    }

    /// A number as `convert` makes it of the number and of its text; `None` if it does not fit.
    fn float<F: fast_float2::FastFloat, T>(&mut self, convert: impl Fn(F, &[u8]) -> Option<T>) -> Result<T> {
        let text = self.rest();
        let start = usize::from(text.first() == Some(&b'-'));
        let digits = text[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let fraction = text.get(start + digits) == Some(&b'.');
        if digits == 0 {
            return Err(self.unexpected("a number"));
        }
        // What the parser below would take, but JSON does not: 01, 1. and 1.e5.
        if (text[start] == b'0' && digits > 1)
            || (fraction && !text.get(start + digits + 1).is_some_and(u8::is_ascii_digit))
        {
            return Err(self.malformed());
        }
        let Ok((value, length)) = fast_float2::parse_partial::<F, _>(text) else {
            return Err(self.unexpected("a number"));
        };
        let Some(value) = convert(value, &text[..length]) else {
            return Err(self.too_big());
        };
        self.at += length;
        Ok(value)
    }

    fn half(&mut self, format: half_precision::Format, out: &mut BytesMut) -> Result<()> {
        self.float(|value, text| format.round(value, text)).map(|bits| out.put_u16_le(bits))
    }

    fn fp32(&mut self, out: &mut BytesMut) -> Result<()> {
        self.float(|value: f32, _| Some(value).filter(|value| value.is_finite()))
            .map(|value| out.put_f32_le(value))
    }

    fn fp64(&mut self, out: &mut BytesMut) -> Result<()> {
        self.float(|value: f64, _| Some(value).filter(|value| value.is_finite()))
            .map(|value| out.put_f64_le(value))
    }

    fn string(&mut self, out: &mut BytesMut) -> Result<()> {
        if self.rest().first() != Some(&b'"') {
            return Err(self.unexpected("a string"));
        }
        let mut escaped = false;
        let mut end = self.at + 1;
        loop {
            let plain = self.text[end.min(self.text.len())..].iter();
            let plain = plain.take_while(|&&byte| byte != b'"' && byte != b'\\' && byte >= 0x20).count();
            end += plain;
            match self.text.get(end) {
                Some(b'"') => break,
                Some(b'\\') => {
                    escaped = true;
                    end += 2;
                }
                Some(_) => return Err(self.malformed()),
                None => return Err(self.refuse("data is cut off within a string")),
            }
        }
        if escaped {
            let element: String = serde_json::from_slice(&self.text[self.at..=end])
                .map_err(|_| self.refuse("a string has an escape that is not Unicode text"))?;
            write_byte_string(out, element.as_bytes());
        } else {
            let element = std::str::from_utf8(&self.text[self.at + 1..end]).map_err(|_| self.malformed())?;
            write_byte_string(out, element.as_bytes());
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

    fn too_big(&self) -> Error {
        self.refuse(format_args!("{} does not fit in {}", self.token(), self.datatype))
    }

    fn malformed(&self) -> Error {
        self.refuse("data is not JSON")
    }

    fn ragged(&self) -> Error {
        self.refuse("data is nested unevenly")
    }

    fn refuse(&self, what: impl Display) -> Error {
        Error::invalid(format!("tensor '{}': {what}", self.name))
    }
}
