//! One input, filled from JSON values: its elements, and the shape that their nesting has.
//!
//! Knows what the model declares of it, and not where in a body the values are.

use std::fmt::Display;

use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::BytesMut;
use kingpole_values::{Datatype, Error, Result, Shape, Tensor, write_byte_string};
use smallvec::SmallVec;

use super::DeclaredInput;
use super::cursor::Cursor;
use crate::rest::elements::read_one;

/// Padding is optional: clients differ.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Elements of an input that are being gathered; values may come whole or row by row.
#[derive(Debug)]
pub(super) struct Column<'a> {
    declared: &'a DeclaredInput,
    data: BytesMut,
    /// Length of the lists at each depth that was seen, once one has closed.
    lengths: SmallVec<[Option<usize>; 4]>,
    /// How many lists there are around each element, counting rows as one.
    rank: Option<usize>,
    /// Where the value at hand is, from the outermost dimension.
    position: SmallVec<[usize; 8]>,
    rows: usize,
}

impl<'a> Column<'a> {
    pub(super) fn new(declared: &'a DeclaredInput) -> Self {
        Self {
            declared,
            data: BytesMut::new(),
            lengths: SmallVec::new(),
            rank: None,
            position: SmallVec::new(),
            rows: 0,
        }
    }

    /// Rows added so far.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Take a value as the whole tensor.
    pub(super) fn whole(mut self, mut value: Cursor<'_>) -> Result<Tensor> {
        self.nested(&mut value)?;
        Ok(self.finish())
    }

    /// Add a value as the next row, stepping behind it.
    pub(super) fn row(&mut self, cursor: &mut Cursor<'_>) -> Result<()> {
        self.begin_row();
        self.nested(cursor)?;
        self.end_row();
        Ok(())
    }

    /// Add values side by side as the next row.
    pub(super) fn cells<'c>(&mut self, cells: impl Iterator<Item = Cursor<'c>>) -> Result<()> {
        self.begin_row();
        self.open_list(1);
        let mut width = 0;
        for mut cell in cells {
            self.position.push(width);
            self.nested(&mut cell)?;
            self.position.pop();
            width += 1;
        }
        self.close_list(1, width)?;
        self.end_row();
        Ok(())
    }

    /// Add plain texts side by side as the next row.
    pub(super) fn texts<'t>(&mut self, texts: impl Iterator<Item = &'t str>) -> Result<()> {
        self.begin_row();
        self.open_list(1);
        let mut width = 0;
        for text in texts {
            self.position.push(width);
            self.text(text)?;
            self.position.pop();
            width += 1;
        }
        self.close_list(1, width)?;
        self.end_row();
        Ok(())
    }

    /// Add a plain text as the next row.
    pub(super) fn text_row(&mut self, text: &str) -> Result<()> {
        self.begin_row();
        self.text(text)?;
        self.end_row();
        Ok(())
    }

    fn begin_row(&mut self) {
        self.position.push(self.rows);
        self.open_list(0);
    }

    fn end_row(&mut self) {
        self.position.pop();
        self.rows += 1;
        self.lengths[0] = Some(self.rows);
    }

    /// The tensor as it was nested.
    pub(super) fn finish(self) -> Tensor {
        let shape = self
            .lengths
            .iter()
            .map(|length| i64::try_from(length.unwrap_or(0)).unwrap_or(i64::MAX))
            .collect();
        Tensor {
            name: self.declared.name.clone(),
            datatype: self.declared.datatype,
            shape,
            data: self.data.freeze(),
        }
    }

    /// As [`Self::finish`], with a last dimension of 1 put in or left out where that is what the model declares:
    /// a row of a table holds a value, not a list of one.
    pub(super) fn finish_fitted(self) -> Tensor {
        let wanted = &self.declared.shape;
        let mut tensor = self.finish();
        let shape = &tensor.shape;
        if shape.len() + 1 == wanted.len() && matches!(wanted.last(), Some(-1 | 1)) {
            tensor.shape.push(1);
        } else if shape.len() == wanted.len() + 1 && shape.last() == Some(&1) {
            tensor.shape = shape[..wanted.len()].iter().copied().collect();
        }
        tensor
    }

    fn nested(&mut self, cursor: &mut Cursor<'_>) -> Result<()> {
        if cursor.peek() != b'[' {
            return self.element(cursor);
        }
        let depth = self.position.len();
        if depth == Shape::MAX_RANK {
            return Err(self.refuse(format_args!("data is nested deeper than {}", Shape::MAX_RANK)));
        }
        if self.rank.is_some_and(|rank| rank <= depth) {
            return Err(self.refuse("a list is where other lists have an element"));
        }
        self.open_list(depth);
        cursor.enter(b'[');
        let mut length = 0;
        while cursor.member(b']') {
            self.position.push(length);
            self.nested(cursor)?;
            self.position.pop();
            length += 1;
        }
        self.close_list(depth, length)
    }

    fn open_list(&mut self, depth: usize) {
        if self.lengths.len() <= depth {
            self.lengths.resize(depth + 1, None);
        }
    }

    fn close_list(&mut self, depth: usize, length: usize) -> Result<()> {
        match self.lengths[depth] {
            Some(other) if other != length => {
                Err(self.refuse(format_args!("a list of {length} is where other lists are of {other}")))
            }
            _ => {
                self.lengths[depth] = Some(length);
                Ok(())
            }
        }
    }

    /// Note that an element is here, which the nesting of the others must allow.
    fn check_depth(&mut self) -> Result<()> {
        let depth = self.position.len();
        if self.lengths.len() > depth {
            return Err(self.refuse("an element is where other lists have a list"));
        }
        self.rank = Some(depth);
        Ok(())
    }

    fn element(&mut self, cursor: &mut Cursor<'_>) -> Result<()> {
        self.check_depth()?;
        let datatype = self.declared.datatype;
        if cursor.peek() == b'{'
            && let Some(text) = cursor.base64()?
        {
            if datatype != Datatype::Bytes {
                return Err(self.refuse(format_args!("{datatype} elements cannot be base64")));
            }
            let decoded = BASE64.decode(text.as_bytes());
            let decoded = decoded.map_err(|error| self.refuse(format_args!("b64 is not base64: {error}")))?;
            write_byte_string(&mut self.data, &decoded);
            return Ok(());
        }
        match read_one(cursor.rest(), "", datatype, &mut self.data) {
            Ok(nbytes) => {
                cursor.advance(nbytes);
                Ok(())
            }
            Err(error) => Err(self.place(&error)),
        }
    }

    /// An element as a table of text has it: strings without quotes, truth in any case.
    fn text(&mut self, text: &str) -> Result<()> {
        self.check_depth()?;
        let datatype = self.declared.datatype;
        if datatype == Datatype::Bytes {
            write_byte_string(&mut self.data, text.as_bytes());
            return Ok(());
        }
        let text = text.trim();
        if text.is_empty() {
            return Err(self.refuse(format_args!("{datatype} needs a value, got an empty field")));
        }
        let lower = if datatype == Datatype::Bool { text.to_ascii_lowercase() } else { String::new() };
        let text = if datatype == Datatype::Bool { &lower } else { text };
        match read_one(text.as_bytes(), "", datatype, &mut self.data) {
            Ok(nbytes) if nbytes == text.len() => Ok(()),
            Ok(_) => {
                Err(self.refuse(format_args!("{datatype} cannot be read from '{}'", super::shown(text))))
            }
            Err(error) => Err(self.place(&error)),
        }
    }

    /// An element's error with the tensor and the place in it.
    fn place(&self, error: &Error) -> Error {
        let what = error.message.split_once(": ").map_or(&*error.message, |(_, rest)| rest);
        self.refuse(what)
    }

    fn refuse(&self, what: impl Display) -> Error {
        let position: Shape =
            self.position.iter().map(|&index| i64::try_from(index).unwrap_or(i64::MAX)).collect();
        Error::invalid(format!("tensor '{}' at {position}: {what}", self.declared.name))
    }
}
