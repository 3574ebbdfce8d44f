//! Flatbuffers, read without trust and without demands on alignment, and written front to back.
//!
//! Knows no message.

use bytes::Bytes;
use kingpole_values::{ByteString, Error, Result};
use smallvec::SmallVec;

/// A place in a body that holds a table. Every read checks its bounds.
#[derive(Clone, Copy)]
pub(super) struct Table<'a> {
    body: &'a Bytes,
    at: usize,
    vtable: &'a [u8],
}

impl<'a> Table<'a> {
    /// The table that the body's first 4 bytes point to.
    pub(super) fn root(body: &'a Bytes) -> Result<Self> {
        let at = follow(body, 0)?;
        Self::at(body, at)
    }

    fn at(body: &'a Bytes, at: usize) -> Result<Self> {
        let distance = i64::from(i32::from_le_bytes(fixed(body, at)?));
        let vtable_at = i64::try_from(at)
            .ok()
            .and_then(|at| usize::try_from(at - distance).ok())
            .ok_or_else(|| malformed("a table's vtable is before the body"))?;
        let vtable_bytes = usize::from(u16::from_le_bytes(fixed(body, vtable_at)?));
        let vtable = vtable_at
            .checked_add(vtable_bytes)
            .and_then(|end| body.get(vtable_at..end))
            .filter(|vtable| vtable.len() >= 4)
            .ok_or_else(|| malformed("a vtable passes the end of the body"))?;
        Ok(Self { body, at, vtable })
    }

    /// Where a field is; `None` if it is absent.
    fn field(&self, slot: usize) -> Option<usize> {
        let entry = self.vtable.get(4 + 2 * slot..)?.first_chunk::<2>()?;
        match usize::from(u16::from_le_bytes(*entry)) {
            0 => None,
            offset => Some(self.at + offset),
        }
    }

    pub(super) fn byte(&self, slot: usize) -> Result<u8> {
        self.field(slot).map_or(Ok(0), |at| fixed::<1>(self.body, at).map(|[byte]| byte))
    }

    pub(super) fn long(&self, slot: usize) -> Result<i64> {
        self.field(slot).map_or(Ok(0), |at| fixed(self.body, at).map(i64::from_le_bytes))
    }

    pub(super) fn table(&self, slot: usize) -> Result<Option<Table<'a>>> {
        self.field(slot).map(|at| Table::at(self.body, follow(self.body, at)?)).transpose()
    }

    /// A vector of elements of `width` bytes: where it starts and how many there are.
    pub(super) fn vector(&self, slot: usize, width: usize) -> Result<Option<(usize, usize)>> {
        self.field(slot).map(|at| vector(self.body, follow(self.body, at)?, width)).transpose()
    }

    /// A vector of bytes, as a view of the body.
    pub(super) fn bytes(&self, slot: usize) -> Result<Option<Bytes>> {
        Ok(self.vector(slot, 1)?.map(|(start, length)| self.body.slice(start..start + length)))
    }

    pub(super) fn string(&self, slot: usize, what: &'static str) -> Result<Option<ByteString>> {
        self.bytes(slot)?.map(|bytes| text(bytes, what)).transpose()
    }

    /// The elements of a vector of strings, as views of the body.
    pub(super) fn strings(
        &self,
        slot: usize,
    ) -> Result<Option<impl ExactSizeIterator<Item = Result<Bytes>> + use<'a>>> {
        let body = self.body;
        let Some((start, length)) = self.vector(slot, 4)? else { return Ok(None) };
        Ok(Some((0..length).map(move |index| {
            let (start, length) = vector(body, follow(body, start + 4 * index)?, 1)?;
            Ok(body.slice(start..start + length))
        })))
    }

    /// The elements of a vector of tables.
    pub(super) fn tables(
        &self,
        slot: usize,
    ) -> Result<Option<impl ExactSizeIterator<Item = Result<Table<'a>>> + use<'a>>> {
        let body = self.body;
        let Some((start, length)) = self.vector(slot, 4)? else { return Ok(None) };
        Ok(Some((0..length).map(move |index| Table::at(body, follow(body, start + 4 * index)?))))
    }

    /// The elements of a vector of 64-bit integers.
    pub(super) fn longs(&self, slot: usize) -> Result<Option<impl ExactSizeIterator<Item = i64> + use<'a>>> {
        let Some((start, length)) = self.vector(slot, 8)? else { return Ok(None) };
        let (elements, _) = self.body[start..start + 8 * length].as_chunks::<8>();
        Ok(Some(elements.iter().map(|element| i64::from_le_bytes(*element))))
    }
}

pub(super) fn text(bytes: Bytes, what: &'static str) -> Result<ByteString> {
    ByteString::try_from(bytes).map_err(|_| Error::invalid(format!("{what} is not UTF-8")))
}

pub(super) fn malformed(what: &str) -> Error {
    Error::invalid(format!("malformed GraphPipe body: {what}"))
}

fn fixed<const N: usize>(body: &[u8], at: usize) -> Result<[u8; N]> {
    body.get(at..)
        .and_then(|rest| rest.first_chunk::<N>())
        .copied()
        .ok_or_else(|| malformed("an offset passes the end of the body"))
}

/// Where the offset at `at` points to.
fn follow(body: &[u8], at: usize) -> Result<usize> {
    let offset = u32::from_le_bytes(fixed(body, at)?) as usize;
    at.checked_add(offset).filter(|_| offset > 0).ok_or_else(|| malformed("an offset points to itself"))
}

fn vector(body: &[u8], at: usize, width: usize) -> Result<(usize, usize)> {
    let length = u32::from_le_bytes(fixed(body, at)?) as usize;
    let start = at + 4;
    match length.checked_mul(width) {
        Some(nbytes) if nbytes <= body.len() - start => Ok((start, length)),
        _ => Err(malformed("a vector passes the end of the body")),
    }
}

/// One field of a table to be written.
#[derive(Clone, Copy)]
pub(super) enum Field {
    Absent,
    Byte(u8),
    Long(i64),
    /// Filled in later by [`Writer::point`].
    Offset,
}

/// Writes a flatbuffer front to back: tables first, and what they point to after them.
pub(super) struct Writer {
    pub(super) head: Vec<u8>,
}

/// Where the fields of a written table are.
pub(super) type Places = SmallVec<[usize; 6]>;

impl Writer {
    /// A buffer with room for the root's offset.
    pub(super) fn new() -> Self {
        let mut head = Vec::with_capacity(512);
        head.extend_from_slice(&[0; 4]);
        Self { head }
    }

    pub(super) fn align(&mut self, multiple: usize, then: usize) {
        let at = self.head.len() + then;
        self.head.resize(at.next_multiple_of(multiple) - then, 0);
    }

    /// Write a table, and let the offset at `from` point to it; where its fields are.
    pub(super) fn table(&mut self, from: usize, fields: &[Field]) -> Places {
        let vtable_bytes = 4 + 2 * fields.len();
        self.align(8, vtable_bytes);
        let vtable = self.head.len();
        self.head.resize(vtable + vtable_bytes, 0);
        let table = self.head.len();
        self.head.extend_from_slice(&to_u32(vtable_bytes).to_le_bytes());
        let mut places: Places = SmallVec::from_elem(0, fields.len());
        // Widest first; 8-byte fields are 8-aligned because the table is.
        for width in [8, 4, 1] {
            for (index, field) in fields.iter().enumerate() {
                let bytes: SmallVec<[u8; 8]> = match field {
                    Field::Long(value) if width == 8 => SmallVec::from_slice(&value.to_le_bytes()),
                    Field::Offset if width == 4 => SmallVec::from_slice(&[0; 4]),
                    Field::Byte(value) if width == 1 => SmallVec::from_slice(&[*value]),
                    _ => continue,
                };
                self.align(width, 0);
                places[index] = self.head.len();
                self.head.extend_from_slice(&bytes);
                self.put_u16(vtable + 4 + 2 * index, places[index] - table);
            }
        }
        self.put_u16(vtable, vtable_bytes);
        let table_bytes = self.head.len() - table;
        self.put_u16(vtable + 2, table_bytes);
        self.point(from, table);
        places
    }

    /// Write a string (or byte vector with a NUL after it) that the offset at `from` points to.
    pub(super) fn string(&mut self, from: usize, text: &[u8]) {
        self.align(4, 0);
        self.point(from, self.head.len());
        self.head.extend_from_slice(&to_u32(text.len()).to_le_bytes());
        self.head.extend_from_slice(text);
        self.head.push(0);
    }

    /// Write a vector of 64-bit integers.
    pub(super) fn longs(&mut self, from: usize, elements: &[i64]) {
        self.align(8, 4);
        self.point(from, self.head.len());
        self.head.extend_from_slice(&to_u32(elements.len()).to_le_bytes());
        for element in elements {
            self.head.extend_from_slice(&element.to_le_bytes());
        }
    }

    /// Write a vector of offsets to be pointed later; where its first element is.
    pub(super) fn offsets(&mut self, from: usize, elements: usize) -> usize {
        self.align(4, 0);
        self.point(from, self.head.len());
        self.head.extend_from_slice(&to_u32(elements).to_le_bytes());
        let start = self.head.len();
        self.head.resize(start + 4 * elements, 0);
        start
    }

    /// Let the offset at `from` point to `to`.
    pub(super) fn point(&mut self, from: usize, to: usize) {
        self.head[from..from + 4].copy_from_slice(&to_u32(to - from).to_le_bytes());
    }

    fn put_u16(&mut self, at: usize, value: usize) {
        let value = u16::try_from(value).expect("a table has a few fields");
        self.head[at..at + 2].copy_from_slice(&value.to_le_bytes());
    }
}

/// Lengths and offsets; the encoder refused messages too long for them before.
pub(super) fn to_u32(value: usize) -> u32 {
    u32::try_from(value).expect("the message is shorter than 2 GiB")
}
