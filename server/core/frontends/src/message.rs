//! HTTP requests and responses as the routes see them, whichever HTTP version carries them.

use std::borrow::Cow;
use std::time::Instant;

use bytes::Bytes;
use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};

use crate::body::Source;
use crate::streamed::Streamed;

/// A request whose body has not been read.
pub(crate) struct HttpRequest {
    pub method: Method,
    pub uri: Uri,
    pub headers: HeaderMap,
    pub body: Source,
    pub received: Instant,
}

/// A response. Its body is written piece by piece, never joined.
pub(crate) struct HttpResponse {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub pieces: Vec<Bytes>,
    /// What comes after the pieces, as it is made; its length is not known.
    pub streamed: Option<Streamed>,
    /// The rest of the request was not read, so that an HTTP/1.1 connection cannot go on.
    pub close: bool,
}

pub(crate) const JSON: HeaderValue = HeaderValue::from_static("application/json");
pub(crate) const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");
pub(crate) const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

impl HttpResponse {
    pub(crate) fn new(status: StatusCode, content_type: HeaderValue, pieces: Vec<Bytes>) -> Self {
        let mut headers = HeaderMap::with_capacity(4);
        headers.insert(header::CONTENT_TYPE, content_type);
        Self { status, headers, pieces, streamed: None, close: false }
    }

    pub(crate) fn json(status: StatusCode, value: &serde_json::Value) -> Self {
        Self::new(status, JSON, vec![Bytes::from(value.to_string())])
    }

    /// The error body of Open Inference.
    pub(crate) fn error(status: StatusCode, message: &str) -> Self {
        Self::json(status, &serde_json::json!({ "error": message }))
    }

    pub(crate) fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    pub(crate) fn streaming(mut self, streamed: Streamed) -> Self {
        self.streamed = Some(streamed);
        self
    }

    pub(crate) fn closing(mut self) -> Self {
        self.close = true;
        self
    }

    pub(crate) fn body_bytes(&self) -> usize {
        self.pieces.iter().map(Bytes::len).sum()
    }
}

/// Decode `%xx` once. Malformed sequences stay as they are; what is not UTF-8 becomes U+FFFD, which
/// no model is named by.
pub(crate) fn decode_percent(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut position = 0;
    while position < bytes.len() {
        let pair = (bytes[position] == b'%').then(|| bytes.get(position + 1..position + 3)).flatten();
        let value = pair.and_then(|pair| {
            let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
            Some(digit(pair[0])? * 16 + digit(pair[1])?)
        });
        if let Some(value) = value {
            decoded.push(value);
            position += 3;
        } else {
            decoded.push(bytes[position]);
            position += 1;
        }
    }
    Cow::Owned(String::from_utf8_lossy(&decoded).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_sequences_are_decoded_once() {
        assert_eq!(decode_percent("a%20b"), "a b");
        assert_eq!(decode_percent("%2525"), "%25");
        assert_eq!(decode_percent("100%"), "100%");
        assert_eq!(decode_percent("%zz%4"), "%zz%4");
        assert_eq!(decode_percent("%ff"), "\u{fffd}");
    }
}
