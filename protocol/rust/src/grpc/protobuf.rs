//! The protobuf wire format: bounds-checked reading over shared bytes, and writing.
//!
//! Knows no message.

use bytes::{BufMut, Bytes};
use kingpole_values::{ByteString, Error, Result};

pub(crate) const VARINT: u8 = 0;
pub(crate) const FIXED64: u8 = 1;
pub(crate) const LENGTH: u8 = 2;
pub(crate) const FIXED32: u8 = 5;

/// Reads one message (a range of the body); nested messages are readers of a smaller range.
#[derive(Clone, Debug)]
pub(crate) struct Reader<'a> {
    body: &'a Bytes,
    at: usize,
    end: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(body: &'a Bytes) -> Self {
        Self { body, at: 0, end: body.len() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.at >= self.end
    }

    /// Bytes left to read.
    pub(crate) fn rest(&self) -> &'a [u8] {
        &self.body[self.at..self.end]
    }

    /// The next field's number and wire type, or `None` at the message's end.
    pub(crate) fn tag(&mut self) -> Result<Option<(u32, u8)>> {
        if self.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let field = u32::try_from(tag >> 3).ok().filter(|&field| field > 0 && field < 1 << 29);
        let Some(field) = field else {
            return Err(malformed("a field number is out of range"));
        };
        Ok(Some((field, (tag & 7) as u8)))
    }

    pub(crate) fn varint(&mut self) -> Result<u64> {
        let mut value = 0u64;
        for (position, &byte) in self.rest().iter().take(10).enumerate() {
            if position == 9 && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << (7 * position);
            if byte & 0x80 == 0 {
                self.at += position + 1;
                return Ok(value);
            }
        }
        Err(malformed("a varint is cut off or too long"))
    }

    pub(crate) fn fixed<const N: usize>(&mut self) -> Result<[u8; N]> {
        let Some(bytes) = self.rest().first_chunk::<N>() else {
            return Err(malformed("a fixed-size number is cut off"));
        };
        self.at += N;
        Ok(*bytes)
    }

    /// A length-prefixed field as a reader of its range.
    pub(crate) fn nested(&mut self) -> Result<Reader<'a>> {
        let length = self.varint()?;
        let left = self.end - self.at;
        match usize::try_from(length) {
            Ok(length) if length <= left => {
                let nested = Reader { body: self.body, at: self.at, end: self.at + length };
                self.at += length;
                Ok(nested)
            }
            _ => Err(malformed("a field is longer than the message it is in")),
        }
    }

    /// A length-prefixed field as a view of the body.
    pub(crate) fn bytes(&mut self) -> Result<Bytes> {
        let nested = self.nested()?;
        Ok(self.body.slice(nested.at..nested.end))
    }

    /// A string field as a view of the body.
    pub(crate) fn string(&mut self, what: &'static str) -> Result<ByteString> {
        ByteString::try_from(self.bytes()?).map_err(|_| Error::invalid(format!("{what} is not UTF-8")))
    }

    pub(crate) fn skip(&mut self, wire: u8) -> Result<()> {
        match wire {
            VARINT => self.varint().map(drop),
            FIXED64 => self.fixed::<8>().map(drop),
            LENGTH => self.nested().map(drop),
            FIXED32 => self.fixed::<4>().map(drop),
            _ => Err(malformed("a field has an unknown wire type")),
        }
    }
}

pub(crate) fn malformed(what: &str) -> Error {
    Error::invalid(format!("malformed protobuf message: {what}"))
}

pub(crate) fn wrong_wire(what: &'static str) -> Error {
    malformed(&format!("{what} has the wrong wire type"))
}

/// Bytes that a varint takes.
pub(crate) const fn varint_bytes(value: u64) -> usize {
    (70 - (value | 1).leading_zeros() as usize) / 7
}

#[allow(clippy::cast_possible_truncation)] // the low 7 bits are what is meant
pub(crate) fn put_varint(buffer: &mut impl BufMut, mut value: u64) {
    while value >= 0x80 {
        buffer.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    buffer.put_u8(value as u8);
}

pub(crate) fn put_tag(buffer: &mut impl BufMut, field: u32, wire: u8) {
    put_varint(buffer, u64::from(field << 3) | u64::from(wire));
}

/// A length-prefixed field. Written even when empty.
pub(crate) fn put_bytes(buffer: &mut impl BufMut, field: u32, bytes: &[u8]) {
    put_tag(buffer, field, LENGTH);
    put_varint(buffer, bytes.len() as u64);
    buffer.put_slice(bytes);
}

/// A string field, left out when empty, as proto3 does.
pub(crate) fn put_string(buffer: &mut impl BufMut, field: u32, text: &str) {
    if !text.is_empty() {
        put_bytes(buffer, field, text.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_survive_and_their_size_is_foreseen() {
        for value in [0, 1, 127, 128, 300, 1 << 21, u64::from(u32::MAX), 1 << 62, u64::MAX] {
            let mut buffer = Vec::new();
            put_varint(&mut buffer, value);
            assert_eq!(buffer.len(), varint_bytes(value), "{value}");
            let body = Bytes::from(buffer);
            assert_eq!(Reader::new(&body).varint().unwrap(), value);
        }
    }

    #[test]
    fn an_endless_varint_is_refused() {
        let body = Bytes::from_static(&[0xff; 11]);
        assert!(Reader::new(&body).varint().is_err());
        let body = Bytes::from_static(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]);
        assert!(Reader::new(&body).varint().is_err(), "a tenth byte above 1 passes 64 bits");
    }
}
