//! A place in JSON text that serde has seen to be well-formed.
//!
//! Knows no tensor. Even so, text that is not well-formed only gives errors, never a panic or an endless loop.

use std::borrow::Cow;

use kingpole_values::{Error, Result};

#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text: text.as_bytes(), at: 0 }
    }

    /// The next byte that is not white space; 0 at the end, which no JSON holds.
    pub(super) fn peek(&mut self) -> u8 {
        while let Some(&byte) = self.text.get(self.at) {
            if !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                return byte;
            }
            self.at += 1;
        }
        0
    }

    pub(super) fn rest(&self) -> &'a [u8] {
        &self.text[self.at..]
    }

    /// Go on behind so many bytes of the rest.
    pub(super) fn advance(&mut self, nbytes: usize) {
        self.at = (self.at + nbytes).min(self.text.len());
    }

    /// Step into a list or an object, if one is next.
    pub(super) fn enter(&mut self, opening: u8) -> bool {
        let is_next = self.peek() == opening;
        self.at += usize::from(is_next);
        is_next
    }

    /// Whether another member of the list or object follows; steps behind the comma, or the end.
    pub(super) fn member(&mut self, closing: u8) -> bool {
        match self.peek() {
            b',' => {
                self.at += 1;
                true
            }
            0 => false,
            byte if byte == closing => {
                self.at += 1;
                false
            }
            _ => true,
        }
    }

    /// The name of an object's next field, and the colon.
    pub(super) fn key(&mut self) -> Result<Cow<'a, str>> {
        let key = self.string()?;
        if self.peek() == b':' {
            self.at += 1;
        }
        Ok(key)
    }

    pub(super) fn string(&mut self) -> Result<Cow<'a, str>> {
        let malformed = || Error::invalid("malformed JSON: a string is expected");
        if self.peek() != b'"' {
            return Err(malformed());
        }
        let from = self.at;
        let escaped = self.skip_string();
        let text = &self.text[from..self.at];
        if escaped {
            return serde_json::from_slice(text)
                .map(Cow::Owned)
                .map_err(|_| Error::invalid("a string has an escape that is not Unicode text"));
        }
        let inner = text.len().checked_sub(1).and_then(|end| text.get(1..end)).ok_or_else(malformed)?;
        std::str::from_utf8(inner).map(Cow::Borrowed).map_err(|_| malformed())
    }

    /// Step behind a string; whether it has escapes.
    fn skip_string(&mut self) -> bool {
        let mut escaped = false;
        self.at += 1;
        while let Some(&byte) = self.text.get(self.at) {
            self.at += 1;
            match byte {
                b'"' => return escaped,
                b'\\' => {
                    escaped = true;
                    self.advance(1);
                }
                _ => {}
            }
        }
        escaped
    }

    /// Step behind a value of any kind, without recursion.
    pub(super) fn skip(&mut self) {
        let mut depth = 0usize;
        loop {
            match self.peek() {
                0 => return,
                b'[' | b'{' => {
                    depth += 1;
                    self.at += 1;
                }
                b']' | b'}' => {
                    depth = depth.saturating_sub(1);
                    self.at += 1;
                }
                b'"' => {
                    self.skip_string();
                }
                b',' | b':' => {
                    self.at += 1;
                    continue;
                }
                _ => {
                    let rest = self.rest();
                    let ends = |byte: &u8| matches!(byte, b',' | b']' | b'}' | b' ' | b'\n' | b'\r' | b'\t');
                    self.at += rest.iter().position(ends).unwrap_or(rest.len());
                }
            }
            if depth == 0 {
                return;
            }
        }
    }

    /// The text of a value, stepping behind it.
    pub(super) fn value(&mut self) -> Self {
        self.peek();
        let from = self.at;
        self.skip();
        Self { text: &self.text[..self.at], at: from }
    }

    /// The text of `{"b64": "..."}`, if that is next; stays where it is otherwise.
    pub(super) fn base64(&mut self) -> Result<Option<Cow<'a, str>>> {
        let mut ahead = *self;
        if !ahead.enter(b'{') || !ahead.member(b'}') || ahead.key()? != "b64" {
            return Ok(None);
        }
        if ahead.peek() != b'"' {
            return Ok(None);
        }
        let text = ahead.string()?;
        if ahead.member(b'}') {
            return Ok(None);
        }
        *self = ahead;
        Ok(Some(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_of_any_kind_is_stepped_over_whole() {
        for value in
            ["1.5", "\"a\\\"],b\"", "[1,[2,{\"x\":[]}]]", "{\"a\":{\"b\":[1]},\"c\":null}", "true", "[]"]
        {
            let text = format!(" {value} ,7]");
            let mut cursor = Cursor::new(&text);
            assert_eq!(cursor.value().rest(), value.as_bytes());
            assert!(cursor.member(b']'));
            assert_eq!(cursor.peek(), b'7');
        }
    }

    #[test]
    fn only_a_lone_b64_is_base64() {
        let read = |text: &'static str| Cursor::new(text).base64().unwrap().map(Cow::into_owned);
        assert_eq!(read(r#" { "b64" : "YQ==" }"#), Some("YQ==".to_owned()));
        for other in [r#"{"b64":"YQ==","x":1}"#, r#"{"b64":1}"#, "{}", r#"{"x":1}"#, "[1]", "1"] {
            assert_eq!(read(other), None, "{other}");
        }
    }
}
