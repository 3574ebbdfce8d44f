//! The usual request, read in one pass: each tensor's `data` as soon as its datatype is known.
//!
//! It gives up at whatever is not usual: `data` before `datatype`, fields it does not know or finds
//! twice, nulls, and anything wrong. `schema` then reads the text in full; what is wrong, only it
//! says. So whatever is accepted here must be accepted there, with the same meaning.

use kingpole_values::{Datatype, Shape};
use serde::Deserialize;

use super::elements;
use super::schema::{Capped, RequestJson, TensorJson};
use crate::MAX_TENSORS;

/// Read a request; `None` if it is not a usual one.
pub(super) fn read(json: &[u8]) -> Option<RequestJson<'_>> {
    let mut cursor = Cursor { text: json, at: 0 };
    let mut request = RequestJson::default();
    cursor.object(|cursor, field| match field {
        b"id" => cursor.value(&mut request.id),
        b"parameters" => cursor.value(&mut request.parameters),
        b"outputs" => cursor.value(&mut request.outputs),
        b"inputs" if request.inputs.is_none() => {
            request.inputs = Some(Capped(cursor.tensors()?));
            Some(())
        }
        _ => None,
    })?;
    cursor.peek().is_none().then_some(request)
}

/// A place in the text. Every method gives `None` to give up.
struct Cursor<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
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

    fn take(&mut self, expected: u8) -> Option<()> {
        (self.peek()? == expected).then(|| self.at += 1)
    }

    /// Read an object, each field's value with `read`.
    fn object(&mut self, mut read: impl FnMut(&mut Self, &'a [u8]) -> Option<()>) -> Option<()> {
        self.list(b'{', b'}', |cursor| {
            cursor.take(b'"')?;
            let rest = &cursor.text[cursor.at..];
            let name = &rest[..rest.iter().position(|byte| matches!(byte, b'"' | b'\\'))?];
            cursor.at += name.len();
            cursor.take(b'"')?;
            cursor.take(b':')?;
            cursor.peek()?;
            read(cursor, name)
        })
    }

    /// Read what is between `open` and `close`, separated by commas, each with `read`.
    fn list(&mut self, open: u8, close: u8, mut read: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        self.take(open)?;
        if self.peek()? == close {
            self.at += 1;
            return Some(());
        }
        loop {
            read(self)?;
            if self.peek()? == close {
                self.at += 1;
                return Some(());
            }
            self.take(b',')?;
        }
    }

    /// Read a value as the full reader would, into a field that must be empty.
    fn value<T: Deserialize<'a>>(&mut self, field: &mut Option<T>) -> Option<()> {
        let mut values = serde_json::Deserializer::from_slice(&self.text[self.at..]).into_iter::<T>();
        let value = values.next()?.ok()?;
        let (text, _) = self.text[self.at..].split_at(values.byte_offset());
        // serde does not look into the strings of fields that it ignores.
        std::str::from_utf8(text).ok()?;
        self.at += text.len();
        field.replace(value).is_none().then_some(())
    }

    fn tensors(&mut self) -> Option<Vec<TensorJson<'a>>> {
        let mut tensors = Vec::new();
        self.list(b'[', b']', |cursor| {
            tensors.push(cursor.tensor()?);
            (tensors.len() <= MAX_TENSORS).then_some(())
        })?;
        Some(tensors)
    }

    fn tensor(&mut self) -> Option<TensorJson<'a>> {
        let mut tensor = TensorJson::default();
        self.object(|cursor, field| match field {
            b"name" => cursor.value(&mut tensor.name),
            b"datatype" => cursor.value(&mut tensor.datatype),
            b"shape" => cursor.value(&mut tensor.shape),
            b"parameters" => cursor.value(&mut tensor.parameters),
            b"data" if tensor.elements.is_none() => {
                let datatype = Datatype::from_name(&tensor.datatype.as_ref()?.0)?;
                let shape = tensor.shape.as_ref().map(|shape| Shape::new(&shape.0));
                let foreseen = shape.as_ref().and_then(Shape::elements).unwrap_or(0);
                let text = &cursor.text[cursor.at..];
                let (elements, length) = elements::read(text, "", datatype, foreseen).ok()?;
                cursor.at += length;
                // One that announces too much ends the pass: no two keep more room than they fill.
                let fits = shape.is_none_or(|shape| elements.fill(&shape));
                tensor.elements = fits.then_some(elements);
                fits.then_some(())
            }
            _ => None,
        })?;
        Some(tensor)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use kingpole_values::Result;

    use super::*;
    use crate::rest::{RestInferRequest, decode_infer_request};

    fn decode(json: &str) -> Result<RestInferRequest> {
        decode_infer_request(Bytes::copy_from_slice(json.as_bytes()), None)
    }

    #[test]
    fn the_usual_request_takes_one_pass_and_means_what_it_means_in_full() {
        let tensors = [
            (r#""datatype":"FP32","shape":[2,2]"#, "[[1,2.5],[-3e2 , 4]]"),
            (r#""shape":[2],"datatype":"INT64""#, " [ -9223372036854775808,\n9223372036854775807 ] "),
            (r#""datatype":"BYTES","shape":[2]"#, r#"["a,]\"\u00e9","é"]"#),
            (r#""datatype":"BOOL","shape":[]"#, "true"),
            (r#""datatype":"UINT8","shape":[2,0]"#, "[[],[]]"),
        ];
        for (head, data) in tensors {
            let request = |head: &str, data: &str, extra: &str| {
                format!(
                    r#"{{"id":"7","parameters":{{"k":1}},"inputs":[{{"name":"x",{head},"data":{data}{extra}}}],"outputs":[{{"name":"y"}}]}}"#
                )
            };
            let usual = request(head, data, "");
            assert!(read(usual.as_bytes()).is_some(), "{usual}");
            let unknown_field = request(head, data, r#","unknown":[{"a":null}]"#);
            let data_first = request("", data, &format!(",{head}")).replace(",,", ",");
            for other in [unknown_field, data_first] {
                assert!(read(other.as_bytes()).is_none(), "{other}");
                assert_eq!(decode(&other).unwrap(), decode(&usual).unwrap(), "{other}");
            }
        }
    }

    #[test]
    fn what_is_not_json_is_never_read() {
        let faults = [
            "[01]", "[-]", "[1.]", "[.5]", "[1.e5]", "[1e]", "[+1]", "[-inf]", "[1,]", "[,1]", "[1 2]",
            "[1]]", "[[1]", "[1", "", "[1}", "[0x1]", "[1_0]", "[-01.5]", "[\"1\"]", "null", "[null]",
            "[1]1",
        ];
        for data in faults {
            for datatype in ["FP32", "FP16", "INT32"] {
                let json = format!(
                    r#"{{"inputs":[{{"name":"x","shape":[1],"datatype":"{datatype}","data":{data}}}]}}"#
                );
                assert!(read(json.as_bytes()).is_none(), "{json}");
                assert!(decode(&json).is_err(), "{json}");
            }
        }
        for text in ["\"\u{1}\"", "\"\\x\"", "\"", "\"\\", "a", "\"\\ud800\""] {
            let json =
                format!(r#"{{"inputs":[{{"name":"x","shape":[1],"datatype":"BYTES","data":[{text}]}}]}}"#);
            assert!(read(json.as_bytes()).is_none(), "{json}");
        }
        let not_utf8 =
            b"{\"inputs\":[{\"name\":\"x\",\"shape\":[1],\"datatype\":\"BYTES\",\"data\":[\"\xff\"]}]}";
        assert!(read(not_utf8).is_none());
        for json in
            ["{", "{}x", "{\"id\"}", "{\"id\":\"a\",}", "{\"id\":\"a\",\"id\":\"b\"}", "{\"id\":null}", "[]"]
        {
            assert!(read(json.as_bytes()).is_none(), "{json}");
        }
    }
}
